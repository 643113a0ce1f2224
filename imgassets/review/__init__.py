"""Manifests to what a person looks at: contact sheets and plots. No Dagster."""
