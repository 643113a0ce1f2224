"""The Dagster definitions: real runs on an ephemeral instance."""
