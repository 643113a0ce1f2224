"""Numbers of each retailer's day, and the texts and images of reports about them; no Dagster."""
