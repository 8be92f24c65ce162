"""A case of a cohort in the scene: its CT and segmentation, loaded to be reviewed and corrected. MRML through `mrml`; no Qt."""
# ruff: noqa: ANN001 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import slicer

from .. import files
from ..files.nrrd import read_nrrd_layers
from ..jobs.corrections import add_correction, corrected_path, segmentation_path
from ..jobs.results import check_scan
from . import mrml, showing
from .snapshots import Snapshot, snapshot


class ShownCase:
    """A case that was loaded into the scene; `drop` removes it again.

    Attributes:
        folder: Folder with the results of its cohort.
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
            CohortError: The CT is no longer the one that was segmented. The scene is unchanged.
        """
        self.folder, self.record = folder, record
        volume, _ = files.read_volume(record["input"], record.get("series"), bool(record.get("force")))
        path = segmentation_path(folder, record["case"])
        if record["status"] != "failed" and not path.is_file():
            raise files.FileError(f"{path} no longer exists: run the cohort again.")
        if path.is_file():
            check_scan(folder, record["case"])
            read_nrrd_layers(path)  # Slicer's core ends the whole process on a damaged file
        self._scene = slicer.mrmlScene
        self.volumeNode = slicer.util.addVolumeFromArray(
            showing.in_32_bits(volume.array), volume.ijk_to_ras, record["case"]
        )
        self.volumeNode.CreateDefaultDisplayNodes()
        self.segmentationNode: Any = None
        if path.is_file():
            try:
                self._load(path)
            except files.FileError:
                self.drop()
                raise
        self._before = self._snapshot()

    def _load(self, path: Path) -> None:
        node = self._scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{self.record['case']} segmentation")
        self.segmentationNode = node
        node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(path))
        if not node.GetStorageNode().ReadData(node):
            raise files.FileError(f"{path} cannot be read: run the cohort again.")
        self._scene.RemoveNode(node.GetStorageNode())  # otherwise Save would overwrite the result
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volumeNode)
        node.CreateDefaultDisplayNodes()

    @property
    def is_whole(self) -> bool:
        """True if no node of the case was removed from the scene."""
        return all(self._is_there(node) for node in (self.volumeNode, self.segmentationNode) if node is not None)

    @property
    def is_changed(self) -> bool:
        """True if voxels, names, colours or terms were changed since the segmentation was loaded or saved, and it is still there."""
        try:
            now = self._snapshot()
        except mrml.SegmentationError:  # more segments than were loaded, and than a file can hold
            return True
        return now is not None and not now.same_as(self._before)

    def save(self) -> dict[str, Any]:
        """Save the segmentation next to the original one, and measure it.

        Returns:
            The manifest line of the correction.

        Raises:
            ValueError: The segmentation or the CT is no longer in the scene, segments overlap, or the file cannot be written.
        """
        now = self._snapshot()
        if now is None:
            raise files.FileError("The segmentation was removed from the scene: load the case again.")
        if not self._is_there(self.volumeNode):
            raise files.FileError(
                "The CT was removed from the scene, so changes cannot be saved in the cohort: save the segmentation elsewhere with"
                " Slicer's Save, then load the case again."
            )
        now.check_overlap()
        path = corrected_path(self.folder, self.record["case"])
        files.write_segmentation(path, now.labelmap, now.ijk_to_ras, now.segments)
        volume = mrml.volume_from_node(self.volumeNode)
        line = add_correction(self.folder, self.record, volume, now.labelmap, now.segments)
        self._before = now
        return line

    def drop(self) -> None:
        """Remove what was loaded from the scene."""
        for node in (self.segmentationNode, self.volumeNode):
            if self._is_there(node):
                showing.remove(node)

    def _snapshot(self) -> Snapshot | None:
        """The segmentation now, on the grid of the CT, which may have been removed from the scene; None if it was removed itself."""
        if not self._is_there(self.segmentationNode):
            return None
        return snapshot(self.segmentationNode, self.volumeNode)

    def _is_there(self, node) -> bool:
        return node is not None and bool(self._scene.IsNodePresent(node))
