"""The four assets, one module per asset: the libraries that each calls, the metadata it shows."""
