"""Sources: read product documents (MongoDB, CSV, Python function) and make URL rows; no Dagster."""
