"""Download images: URL rows in, served bytes and outcomes out.

Dagster code belongs in `defs`, decoding of pixels in `imaging`.
"""
