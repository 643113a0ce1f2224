"""The state of partitions, and backfills of those that need one; reports on the command line."""
