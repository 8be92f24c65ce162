"""Writes a result into a segment, respecting the masks of the Segment Editor. MRML and NumPy; no Qt."""

import numpy as np
import slicer

from UNetPlusPlusSegmentLib.scene import mrml, placement

ADD, REMOVE = 2, 1


def changes(host, volumeNode, found, region=None):
    """Which voxels the selected segment gains and loses, within the editable area and intensity range.

    Args:
        host: The effect's C++ side.
        volumeNode: The `vtkMRMLScalarVolumeNode` that was analysed.
        found: bool (K, J, I) on its voxels.
        region: Where the segment is replaced by what was found: bool (K, J, I), or True for the whole volume. None only adds
            voxels.

    Returns:
        ADD, REMOVE or 0 for each voxel of the segmentation's grid, uint8 (K, J, I). If this grid is not the volume's, the nearest
        voxel is used.
    """
    codes = np.where(found, ADD, 0 if region is None else REMOVE).astype(np.uint8)
    if isinstance(region, np.ndarray):
        codes[~region] = 0
    segmentationNode = host.parameterSetNode().GetSegmentationNode()
    codes = mrml.labelmap_on_grid(codes, volumeNode, segmentationNode, host.defaultModifierLabelmap())
    codes[~_editable(host)] = 0
    return codes


def editable_part(host, volumeNode, found):
    """What was found that lies in the geometry of the segmentation and may be edited; bool (K, J, I) on the volume's voxels."""
    segmentationNode, image = host.parameterSetNode().GetSegmentationNode(), host.defaultModifierLabelmap()
    placement.voxels_of(image)[:] = _editable(host)
    grid = placement.oriented_image(found.shape, (0, 0, 0), placement.ijk_to_ras_of(volumeNode))
    return found & (placement.resampled(image, grid, placement.transform_between(segmentationNode, volumeNode)) != 0)


def write(host, codes):
    """Apply `changes` to the selected segment; the overwrite mode decides whether other segments lose what it gains."""
    modes = slicer.qSlicerSegmentEditorAbstractEffect
    # Add first: if the segment is itself the editable area, removing first would leave nothing to edit.
    for code, mode in ((ADD, modes.ModificationModeAdd), (REMOVE, modes.ModificationModeRemove)):
        if code in codes:
            modifier = host.defaultModifierLabelmap()
            placement.voxels_of(modifier)[:] = codes == code
            host.modifySelectedSegmentByLabelmap(modifier, mode)


def _editable(host):
    """The voxels that the editor's masks allow to change; bool on the segmentation's grid.

    The editor applies its masks again when a segment is written, but when voxels are removed inside another segment, it also
    treats the selected segment as editable.
    """
    node = host.parameterSetNode()
    editable = placement.voxels_of(host.maskLabelmap()) == 0
    if node.GetSourceVolumeIntensityMask():
        low, high = node.GetSourceVolumeIntensityMaskRange()
        hu = placement.voxels_of(host.sourceVolumeImageData())
        editable &= (low <= hu) & (hu <= high)
    return editable
