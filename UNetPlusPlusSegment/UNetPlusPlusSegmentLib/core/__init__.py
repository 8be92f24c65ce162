"""Volumes, masks and segments, which all other rooms use. NumPy, and SimpleITK in `masks`; imports no other room."""
