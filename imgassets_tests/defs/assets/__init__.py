"""Tests of the assets, run by Dagster."""
