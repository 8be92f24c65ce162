"""Volume sequences in the scene: their frames, and sequences of segmentations. Main thread only, like `mrml`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer

from ..core.segment import Segment
from . import mrml, showing


def browser_of(volumeNode):
    """The `vtkMRMLSequenceBrowserNode` that replays a volume; None if the volume is not a frame of a sequence."""
    return slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volumeNode) if volumeNode else None


class SegmentationSequence:
    """A sequence of segmentations, one for each frame of a volume sequence; added to the scene once complete."""

    def __init__(self, volumeNode, browserNode) -> None:
        """Add nothing to the scene yet.

        Args:
            volumeNode: The `vtkMRMLScalarVolumeNode` that shows the frames.
            browserNode: The `vtkMRMLSequenceBrowserNode` that replays them.
        """
        self._volumeNode, self._browserNode = volumeNode, browserNode
        self._volumes = browserNode.GetSequenceNode(volumeNode)
        self._segmentations = slicer.vtkMRMLSequenceNode()
        self._segmentations.SetName(f"{volumeNode.GetName()} segmentation")
        self._segmentations.CopySequenceIndex(self._volumes)

    def __len__(self) -> int:
        """Number of frames."""
        return self._volumes.GetNumberOfDataNodes()

    def frame(self, item: int):
        """The volume of a frame, a `vtkMRMLScalarVolumeNode` in the sequence's internal scene."""
        return self._volumes.GetNthDataNode(item)

    def put(self, item: int, labelmap: np.ndarray, segments: Sequence[Segment]) -> None:
        """Store the result for a frame; raises the errors of `showing.show_segmentation`."""
        scratch = slicer.vtkMRMLScene()
        volumeNode = scratch.AddNewNodeByClass(self.frame(item).GetClassName())
        volumeNode.CopyContent(self.frame(item), False)
        segmentationNode = showing.show_segmentation(labelmap, segments, volumeNode)
        self._segmentations.SetDataNodeAtValue(segmentationNode, self._volumes.GetNthIndexValue(item))
        scratch.Clear(True)

    def show(self):
        """Add the sequence to the scene, synchronized with the volume; returns the segmentation node that shows it."""
        scene = self._volumeNode.GetScene()
        # The segmentation gets the same name, and selectors could not tell two nodes with one name apart.
        self._segmentations.SetName(scene.GenerateUniqueName(self._segmentations.GetName()))
        scene.AddNode(self._segmentations)
        self._browserNode.AddSynchronizedSequenceNode(self._segmentations)
        self._browserNode.SetSaveChanges(self._segmentations, True)  # otherwise corrections are lost at the next frame
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browserNode)
        segmentationNode = self._browserNode.GetProxyNode(self._segmentations)
        segmentationNode.SetAndObserveTransformNodeID(self._volumeNode.GetTransformNodeID())
        segmentationNode.CreateDefaultDisplayNodes()
        role = segmentationNode.GetReferenceImageGeometryReferenceRole()
        segmentationNode.SetNodeReferenceID(role, self._volumeNode.GetID())
        showing.file_beside(self._volumeNode, segmentationNode)
        return segmentationNode

    def look_at(self, item: int, name: str) -> tuple[float, float, float] | None:
        """Go to a frame; returns the centre of its segment with this name (`mrml.centre_of`), or None without a sequence to go to."""
        self._browserNode.SetSelectedItemNumber(item)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(self._browserNode)
        segmentationNode = self._browserNode.GetProxyNode(self._segmentations)
        if segmentationNode is None:  # sequence or browser was removed, but what they showed last is still there
            return None
        return mrml.centre_of(segmentationNode, segmentationNode.GetSegmentation().GetSegmentIdBySegmentName(name))
