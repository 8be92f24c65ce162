"""The app in a browser, on Slicer's own views through trame-slicer: a front door, and a process with a scene for each session."""
