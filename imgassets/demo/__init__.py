"""A sample catalogue and the servers that it needs. Production code never imports this."""
