"""Slicer's scene: reads volumes from it, sends them to the worker, and adds segmentations to it. Uses slicer and vtk."""
