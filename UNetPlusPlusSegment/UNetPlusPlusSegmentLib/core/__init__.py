"""The words of all other rooms: volumes, masks, segments, requests, results. NumPy, and SimpleITK in `masks`; imports no other room."""
