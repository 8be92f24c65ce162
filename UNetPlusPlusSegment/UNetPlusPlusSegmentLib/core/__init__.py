"""What all other rooms speak of: volumes, masks, segments. NumPy, and SimpleITK in `masks`; imports no other room."""
