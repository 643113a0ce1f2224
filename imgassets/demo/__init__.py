"""The demo: a sample catalogue, its image server, and an embedded MongoDB.

Only the command line, the tests and the benchmarks import it.
"""
