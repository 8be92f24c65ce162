"""Slice folders and targets: the meaning of pixels, the draw of slices, and the patches that the network gets."""
