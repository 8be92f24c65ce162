"""Facts about what can be chosen as input, and a start for new points and boxes. Knows MRML and Slicer; no Qt."""

import slicer


def firstVolume():
    """The first scalar volume of the scene that users see, label maps aside; None if there is none."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors():
            return node
    return None


def isFrame(volumeNode) -> bool:
    """True if a volume is one frame of a sequence; None is not."""
    if volumeNode is None:
        return False
    return slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volumeNode) is not None


def isMadeFrom(segmentationNode, volumeNode) -> bool:
    """True if the voxels of a segmentation are those of a volume; either may be None."""
    if segmentationNode is None or volumeNode is None:
        return False
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReference(role) is volumeNode


def spanVolume(roiNode, volumeNode) -> None:
    """Make a box as large as the volume, so that there are handles to drag."""
    bounds = [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    ends = list(zip(bounds[::2], bounds[1::2], strict=True))
    roiNode.SetCenterWorld([(low + high) / 2 for low, high in ends])
    roiNode.SetSizeWorld([high - low for low, high in ends])
