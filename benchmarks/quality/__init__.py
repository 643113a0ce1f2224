"""How good the pictures are: labelled sets, and what is measured on them."""
