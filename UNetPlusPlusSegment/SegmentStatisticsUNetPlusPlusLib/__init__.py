"""The module's plugin of Segment Statistics. A folder of its own: Slicer takes every .py beside the module for a module."""
