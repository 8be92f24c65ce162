"""Slicer's scene: volumes out of it, jobs for the worker, segmentations into it. Knows slicer and vtk; imports all but cli."""
