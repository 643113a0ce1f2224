"""Turns product documents in MongoDB into clean image datasets, with Dagster.

Nothing lives here but the version: import what you need from its module.
"""


def __getattr__(name: str) -> str:
    """Look the version up when it is asked for: every run would pay for it (20 ms)."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("imgassets")
