"""End-to-end tests with Dagster's real daemon and webserver; nothing is mocked."""
