"""How good: faces found and cut off, products kept, background trimmed."""
