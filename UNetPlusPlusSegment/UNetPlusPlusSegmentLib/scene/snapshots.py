"""Snapshots: copies of segmentations, to compare and to save them. MRML through `mrml`; no Qt."""
# ruff: noqa: ANN001, N803 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.segment import MOST_SEGMENTS, Segment
from . import mrml


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of a segmentation, independent of the scene, so that another thread can write it.

    Attributes:
        labelmap: uint8 (K, J, I) on the grid of the scan, 0 where there is no segment.
        segments: One for each value; without measurements.
        ijk_to_ras: 4 × 4, mm.
        ids: IDs of the segments in the scene.
    """

    labelmap: np.ndarray
    segments: tuple[Segment, ...]
    ijk_to_ras: np.ndarray
    ids: tuple[str, ...] = ()

    def same_as(self, other: Snapshot | None) -> bool:
        """True if nothing has changed since `other`."""
        return other is not None and self.segments == other.segments and np.array_equal(self.labelmap, other.labelmap)


def snapshot(segmentationNode, volumeNode) -> Snapshot:
    """Read a segmentation on the grid of a volume; where segments overlap, the later one wins.

    Raises:
        SegmentationError: There are more segments than a file can hold, or one has no binary labelmap.
    """
    segmentation = segmentationNode.GetSegmentation()
    if segmentation.GetNumberOfSegments() > MOST_SEGMENTS:
        raise mrml.SegmentationError(f"A file can hold up to {MOST_SEGMENTS} segments: remove some.")
    ids, segments = tuple(segmentation.GetSegmentIDs()), []
    for value, each in enumerate(ids, start=1):
        segment = segmentation.GetSegment(each)
        red, green, blue = (round(255 * channel) for channel in segment.GetColor())
        segments.append(Segment(value, segment.GetName(), segment.GetTerminology(), (red, green, blue), {}))
    labelmap = mrml.merged_labelmap_of(segmentationNode, volumeNode)
    return Snapshot(labelmap, tuple(segments), mrml.volume_from_node(volumeNode).ijk_to_ras, ids)
