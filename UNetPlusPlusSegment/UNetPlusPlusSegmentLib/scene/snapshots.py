"""Snapshots: copies of segmentations, to compare and to save them. MRML through `mrml`; no Qt."""
# ruff: noqa: ANN001, N803 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.segment import MOST_SEGMENTS, Segment
from . import mrml, placement


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A copy of a segmentation, independent of the scene, so that another thread can write it.

    Attributes:
        labelmap: uint8 (K, J, I) on the grid of the scan, 0 where there is no segment.
        segments: One for each value; without measurements.
        ijk_to_ras: 4 × 4, mm.
        ids: IDs of the segments in the scene.
        overlap: The names of two segments that overlap, of which the label map shows the second one; None if none do.
    """

    labelmap: np.ndarray
    segments: tuple[Segment, ...]
    ijk_to_ras: np.ndarray
    ids: tuple[str, ...] = ()
    overlap: tuple[str, str] | None = None

    def same_as(self, other: Snapshot | None) -> bool:
        """True if nothing has changed since `other`."""
        return (
            other is not None
            and (self.segments, self.overlap) == (other.segments, other.overlap)
            and np.array_equal(self.labelmap, other.labelmap)
        )

    def check_overlap(self) -> None:
        """Refuse segments that overlap, before they are written: the label map would cut one of them.

        Raises:
            SegmentationError: Two segments overlap.
        """
        if self.overlap:
            one, other = self.overlap
            raise mrml.SegmentationError(
                f"{one} and {other} overlap, but only one segment can be saved in each voxel: subtract one from the other (Logical"
                " operators)."
            )


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
    overlap = _overlap(segmentationNode, volumeNode, labelmap)
    return Snapshot(labelmap, tuple(segments), mrml.volume_from_node(volumeNode).ijk_to_ras, ids, overlap)


def _overlap(segmentationNode, volumeNode, labelmap: np.ndarray) -> tuple[str, str] | None:
    """The names of two segments that overlap, in their order, given the label map of all; None if none do."""
    segmentation = segmentationNode.GetSegmentation()
    count = segmentation.GetNumberOfLayers(mrml.BINARY_LABELMAP)  # within a layer, segments cannot overlap
    layers = [segmentation.GetLayerDataObject(layer, mrml.BINARY_LABELMAP) for layer in range(count)]
    # Each segment by itself takes seconds in a large scan, and the app takes a snapshot after each stroke.
    drawn = sum(np.count_nonzero(placement.voxels_of(layer)) for layer in layers if layer.GetPointData().GetScalars())
    if count < 2 or drawn == np.count_nonzero(labelmap):
        return None
    for value, each in enumerate(segmentation.GetSegmentIDs(), start=1):
        later = labelmap[mrml.labelmap_of(segmentationNode, each, volumeNode) & (labelmap > value)]
        if later.size:
            return segmentation.GetSegment(each).GetName(), segmentation.GetNthSegment(int(later[0]) - 1).GetName()
    return None
