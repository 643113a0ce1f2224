"""The four assets: which libraries they call, and what they show. One module an asset."""
