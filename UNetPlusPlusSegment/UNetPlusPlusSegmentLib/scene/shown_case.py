"""A case of a cohort in the scene: its CT and segmentation, loaded to be reviewed and corrected. MRML through `mrml`; no Qt."""
# ruff: noqa: ANN001 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from .. import files
from ..core.segment import Segment
from ..jobs.corrections import add_correction, segmentation_path
from . import mrml


class ShownCase:
    """A case that was loaded into the scene; `drop` removes it again.

    Attributes:
        record: Its manifest line.
        volumeNode, segmentationNode: Its nodes, which the user may have removed from the scene.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        """Load the CT, and its segmentation if there is one (the corrected one, if it exists).

        Args:
            folder: Folder with the results of the cohort.
            record: The manifest line of the case.

        Raises:
            FileError, VolumeError: The CT or the segmentation no longer exists, or cannot be read. The scene is unchanged.
        """
        self.record, self._folder = record, folder
        volume, _ = files.read_volume(record["input"], record.get("series"), bool(record.get("force")))
        path = segmentation_path(folder, record["case"])
        if record["status"] != "failed" and not path.is_file():
            raise files.FileError(f"{path} no longer exists: run the cohort again.")
        self._scene = slicer.mrmlScene
        self.volumeNode = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, record["case"])
        self.volumeNode.CreateDefaultDisplayNodes()
        self.segmentationNode: Any = None
        if path.is_file():
            try:
                self._load(path)
            except files.FileError:
                self.drop()
                raise
        self._before = self._labelmap()

    def _load(self, path: Path) -> None:
        node = self._scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{self.record['case']} segmentation")
        self.segmentationNode = node
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(path))
        if not node.GetStorageNode().ReadData(node):
            raise files.FileError(f"{path} cannot be read: run the cohort again.")
        node.SetAndObserveStorageNodeID(None)  # otherwise Save would overwrite the result
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volumeNode)
        node.CreateDefaultDisplayNodes()

    @property
    def is_changed(self) -> bool:
        """True if the segmentation has been changed since it was loaded or saved."""
        now = self._labelmap()
        return now is not None and not (self._before is not None and np.array_equal(now, self._before))

    def save(self) -> dict[str, Any]:
        """Save the segmentation next to the original one, and measure it.

        Returns:
            The manifest line of the correction.

        Raises:
            ValueError: The segmentation or the CT is no longer in the scene, or the file cannot be written.
        """
        labelmap = self._labelmap()
        if labelmap is None:
            raise files.FileError("The CT or its segmentation was removed from the scene: load the case again.")
        segmentation = self.segmentationNode.GetSegmentation()
        segments = []
        for value, each in enumerate(segmentation.GetSegmentIDs(), start=1):
            segment = segmentation.GetSegment(each)
            red, green, blue = (round(255 * channel) for channel in segment.GetColor())
            segments.append(Segment(value, segment.GetName(), segment.GetTerminology(), (red, green, blue), {}))
        volume = mrml.volume_from_node(self.volumeNode)
        line = add_correction(self._folder, self.record, volume, labelmap, segments)
        self._before = labelmap
        return line

    def drop(self) -> None:
        """Remove what was loaded from the scene."""
        for node in (self.segmentationNode, self.volumeNode):
            if self._is_there(node):
                self._scene.RemoveNode(node)

    def _labelmap(self) -> np.ndarray | None:
        """uint8 (K, J, I) on the CT's voxels: 1, 2, … in the order of the segments, later ones on top; None if a node was removed."""
        if not (self._is_there(self.segmentationNode) and self._is_there(self.volumeNode)):
            return None
        labelmap = np.zeros(mrml.volume_from_node(self.volumeNode).array.shape, np.uint8)
        for value, each in enumerate(self.segmentationNode.GetSegmentation().GetSegmentIDs(), start=1):
            labelmap[mrml.labelmap_of(self.segmentationNode, each, self.volumeNode)] = value
        return labelmap

    def _is_there(self, node) -> bool:
        return node is not None and bool(self._scene.IsNodePresent(node))
