"""The page in a real browser, on the demo's state."""
