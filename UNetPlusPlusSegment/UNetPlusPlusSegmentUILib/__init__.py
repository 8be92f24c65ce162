"""The module's windows: the panel, and all that it shares with the Segment Editor effect. Knows Qt and Slicer."""
