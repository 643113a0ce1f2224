"""Turn served image files into training images: decode, remove faces, resize, trim, encode."""
