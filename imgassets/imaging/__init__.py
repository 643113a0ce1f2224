"""Served bytes to training pictures: decode, faces, resize, trim, encode. No Dagster."""
