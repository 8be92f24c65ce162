"""Brings what was found into a segment, through the masks of the Segment Editor, voxel by voxel. MRML, NumPy; no Qt."""

import numpy as np
import slicer

from UNetPlusPlusSegmentLib.scene import mrml

ADD, REMOVE = 2, 1


def changes(host, volumeNode, found, region=None):
    """Tell what the selected segment gains and loses, as far as the editor's area and intensity range allow it.

    Args:
        host: The effect's C++ side.
        volumeNode: The `vtkMRMLScalarVolumeNode` that was analysed.
        found: bool (K, J, I) on its voxels.
        region: The voxels in which the segment becomes what was found, and loses all else: bool (K, J, I), or True for
            all of the volume. None: it only gains.

    Returns:
        ADD, REMOVE or 0 for each voxel of the segmentation's grid, uint8 (K, J, I). That grid may be another than the
        volume's: then the nearest voxel counts.
    """
    codes = np.where(found, ADD, 0 if region is None else REMOVE).astype(np.uint8)
    if isinstance(region, np.ndarray):
        codes[~region] = 0
    segmentationNode = host.parameterSetNode().GetSegmentationNode()
    codes = mrml.labelmap_on_grid(codes, volumeNode, segmentationNode, host.defaultModifierLabelmap())
    codes[~_editable(host)] = 0
    return codes


def write(host, codes):
    """Change the selected segment as `changes` said; other segments lose what it gains as the overwrite mode says."""
    modes = slicer.qSlicerSegmentEditorAbstractEffect
    # First what is gained: emptied first, a segment that is itself the editable area would leave nothing to edit.
    for code, mode in ((ADD, modes.ModificationModeAdd), (REMOVE, modes.ModificationModeRemove)):
        if code in codes:
            modifier = host.defaultModifierLabelmap()
            mrml.voxels_of(modifier)[:] = codes == code
            host.modifySelectedSegmentByLabelmap(modifier, mode)


def _editable(host):
    """The voxels in which the editor lets the selected segment change; bool on the segmentation's grid.

    The editor applies its masks again when it is written, but for removing inside another segment it takes the selected
    one as editable, too.
    """
    node = host.parameterSetNode()
    editable = mrml.voxels_of(host.maskLabelmap()) == 0
    if node.GetSourceVolumeIntensityMask():
        low, high = node.GetSourceVolumeIntensityMaskRange()
        hu = mrml.voxels_of(host.sourceVolumeImageData())
        editable &= (low <= hu) & (hu <= high)
    return editable
