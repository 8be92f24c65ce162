"""What the module adds to Segment Statistics. A folder of its own: Slicer takes every .py beside the module for a module."""
