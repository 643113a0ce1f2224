"""Scripts that run in environments without imgassets, so they must not import it."""
