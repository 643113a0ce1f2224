"""The launcher and its fork server, tested with real processes."""
