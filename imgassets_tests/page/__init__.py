"""Dagster's UI in a real browser, on the demo's data."""
