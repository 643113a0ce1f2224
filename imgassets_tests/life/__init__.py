"""The project as it runs unattended: Dagster's own daemon and webserver, nothing replaced."""
