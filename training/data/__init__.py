"""What the pixels of a slice folder mean, which slices are drawn, and what they look like to the network."""
