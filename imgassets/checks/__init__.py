"""What must hold of a partition, judged from its manifests and files; no Dagster here."""
