"""Slice folders: the meaning of their pixels, the draw of slices, and the patches that the network gets."""
