"""Checks of a partition's manifests and files. Dagster is in `imgassets.defs.checks`."""
