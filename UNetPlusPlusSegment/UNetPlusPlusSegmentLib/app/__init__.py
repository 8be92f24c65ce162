"""The app in a browser, on Slicer's own views (trame-slicer): a front door, and a process with its own scene for each session."""
