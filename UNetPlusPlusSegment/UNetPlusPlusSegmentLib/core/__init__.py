"""Shared types: volumes, masks, segments, requests, results. NumPy, and SimpleITK and SciPy in `masks`; imports no other room."""
