"""Training data: targets, slice folders, the sampling of slices, and lookalikes of organs."""
