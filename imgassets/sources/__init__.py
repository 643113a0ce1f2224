"""Product documents to URL rows: MongoDB, a CSV file, a function of your own. No Dagster."""
