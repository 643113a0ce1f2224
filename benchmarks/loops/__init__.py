"""Programs that run in the peers' environments: nothing of this project is imported here."""
