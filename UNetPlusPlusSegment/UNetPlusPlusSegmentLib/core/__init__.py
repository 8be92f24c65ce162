"""Shared types: volumes, masks, segments, requests, results; and a lock. NumPy; `masks` also SciPy and SimpleITK, `agreement` SciPy."""
