"""Measurements of imgassets: how good, how fast, beside which peer, with which command."""
