"""Sources: read product documents (MongoDB, files, functions) and make URL rows; no Dagster."""
