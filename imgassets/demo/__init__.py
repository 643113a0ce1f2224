"""A sample catalogue and the servers that it needs.

Of all this, production code uses the embedded MongoDB alone.
"""
