"""What the panel is made of beside its widget, and what it shares with the Segment Editor effect. Knows Qt and Slicer."""
