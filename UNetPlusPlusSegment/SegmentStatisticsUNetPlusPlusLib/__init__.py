"""The module's plugin for Segment Statistics, in its own folder, as Slicer takes every .py file next to the module for a module."""
