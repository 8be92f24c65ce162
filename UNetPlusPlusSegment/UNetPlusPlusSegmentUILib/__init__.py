"""The panel of the module, and what it shares with the Segment Editor effect. Uses Qt and Slicer."""
