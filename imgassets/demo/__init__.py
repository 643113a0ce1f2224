"""The demo: a sample catalogue, its image server, and an embedded MongoDB.

Only the command line and the tests import it.
"""
