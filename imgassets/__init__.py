"""Turns product documents in MongoDB into clean image datasets, with Dagster.

Nothing lives here but the version: import what you need from its module.
"""

from importlib.metadata import version

__version__ = version("imgassets")
