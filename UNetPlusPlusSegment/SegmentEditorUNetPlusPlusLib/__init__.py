"""The Segment Editor effect. Slicer looks for its class here, by the name of its file."""

from .SegmentEditorEffect import SegmentEditorEffect

__all__ = ["SegmentEditorEffect"]
