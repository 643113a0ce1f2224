"""URL rows to served bytes and outcomes. No Dagster, and no decoding of pixels."""
