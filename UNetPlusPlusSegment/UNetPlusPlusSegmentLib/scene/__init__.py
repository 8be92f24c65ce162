"""Slicer's scene: volumes from it, jobs for the worker, segmentations into it. Uses slicer and vtk; imports every room but cli."""
