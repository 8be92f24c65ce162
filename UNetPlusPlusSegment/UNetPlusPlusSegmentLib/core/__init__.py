"""Shared types: volumes, masks, segments, requests, results. NumPy; `masks` also SciPy and SimpleITK, `agreement` SciPy."""
