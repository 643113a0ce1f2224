"""The warm server, with real processes."""
