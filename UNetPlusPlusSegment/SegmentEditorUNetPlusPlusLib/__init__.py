"""The Segment Editor effect. Slicer looks for the class in this package, by the name of its file."""

from .SegmentEditorEffect import SegmentEditorEffect

__all__ = ["SegmentEditorEffect"]
