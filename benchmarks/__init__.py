"""How fast imgassets is, beside which peer, with which command; see README.md."""
