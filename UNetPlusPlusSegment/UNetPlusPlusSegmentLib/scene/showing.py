"""Adds segmentations and maps to the scene. A mask stays in the IJK of its volume, and its segmentation gets the transform of that
volume, so no voxel is resampled. Call it on Slicer's main thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import slicer
import vtk

from ..core.segment import Segment
from ..core.volume import bounding_box
from .mrml import BINARY_LABELMAP, SegmentationError, require_scalar_volume, require_segment
from .placement import ijk_to_ras_of, oriented_image, transform_between

REFERENCE_GRID = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()


def show_segmentation(
    labelmap: np.ndarray,
    segments: Sequence[Segment],
    volumeNode,
    segmentationNode=None,
    inPlaceOf: Mapping[int, str] = MappingProxyType({}),
    insteadOf: Collection[str] = (),
):
    """Add a label map to the scene as segments, voxel for voxel on the grid of its volume.

    A new or empty segmentation gets the transform of the volume, and its geometry as reference. A segmentation with
    segments keeps them, voxel for voxel and in place, with its transform and reference geometry; new segments are placed
    through the linear transform between the nodes. (Slicer saves a segmentation on one grid, so saving resamples them if
    the reference geometry is that of another volume; a separate segmentation avoids this.)

    Args:
        labelmap: Axes (K, J, I) of the volume; 0 is background, every other value belongs to one of `segments`.
        segments: Each becomes a segment, even if no voxel has its value. A name already in use gets a number, because
            Slicer exports segments to files by name.
        volumeNode: The `vtkMRMLScalarVolumeNode` the label map was made from.
        segmentationNode: The `vtkMRMLSegmentationNode` to add to, or None for a new one, "<volume> segmentation".
        inPlaceOf: For each value in `segments` that replaces a segment of `segmentationNode`, the ID of that segment. ID,
            visibility and opacity are kept; a single segment also keeps its position. The others are added.
        insteadOf: IDs of segments to remove; the new ones may get their names.

    Returns:
        The segmentation node. Its last segments are the new ones, in their order, unless a single segment was replaced.

    Raises:
        VolumeError: `volumeNode` is not a scalar volume with voxels, or its shape differs from the label map's.
        SegmentationError: Label map, segments and segmentation do not match. Nothing was changed.
    """
    require_scalar_volume(volumeNode, labelmap)
    inside, first_kji = _crop_to_labels(labelmap, segments)
    if inPlaceOf and segmentationNode is None:
        raise SegmentationError(f"To replace the segments {[*inPlaceOf.values()]}, pass their segmentation, too.")
    segmentIDs = segmentationNode.GetSegmentation().GetSegmentIDs() if segmentationNode is not None else ()
    ijk_to_ras = ijk_to_ras_of(volumeNode)
    if segmentIDs:
        ijk_to_ras = _volume_to_segmentation(volumeNode, segmentationNode) @ ijk_to_ras
    for old in (*inPlaceOf.values(), *insteadOf):
        require_segment(old, segmentationNode)
    staying = set(segmentIDs).difference(inPlaceOf.values(), insteadOf)
    taken = {segmentationNode.GetSegmentation().GetSegment(segmentID).GetName() for segmentID in staying}
    images = _images(
        inside, segments, inPlaceOf, lambda voxels: oriented_image(inside.shape, first_kji, ijk_to_ras, voxels)
    )
    newSegments = {each.value: _new_segment(each, images[each.value], taken) for each in segments}
    # The scene changes only after this.

    segmentationNode = _prepared(segmentationNode, volumeNode)
    _add_or_replace(newSegments, images, inPlaceOf, insteadOf, segmentationNode)
    _refer_to(volumeNode, segmentationNode, force=not segmentIDs)
    file_beside(volumeNode, segmentationNode)
    return segmentationNode


def check_segmentation(segmentationNode, volumeNode) -> None:
    """Refuse, before a run, a segmentation that `show_segmentation` could not add the result for a volume to; raises its errors."""
    require_scalar_volume(volumeNode)
    if segmentationNode.GetSegmentation().GetNumberOfSegments():
        _volume_to_segmentation(volumeNode, segmentationNode)


def show_scalar_volume(array: np.ndarray, volumeNode, name: str, mapNode=None):
    """Add a map (probability, uncertainty) to the scene, in the same position and under the same transform as its volume.

    Args:
        array: Axes (K, J, I) of the volume; stored as float32.
        volumeNode: The `vtkMRMLScalarVolumeNode` the map belongs to.
        name: Name of a new node; it gets a number if it is in use.
        mapNode: The `vtkMRMLScalarVolumeNode` of an earlier map that this one replaces; None adds one.

    Returns:
        The `vtkMRMLScalarVolumeNode` of the map.

    Raises:
        VolumeError: `volumeNode` is not a scalar volume with voxels, or its shape differs from the map's.
    """
    require_scalar_volume(volumeNode, array)
    values = np.asarray(array, dtype=np.float32)
    mapNode = mapNode or _new_node("vtkMRMLScalarVolumeNode", name, volumeNode)
    mapNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    mapNode.CopyOrientation(volumeNode)
    slicer.util.updateVolumeFromArray(mapNode, values)
    mapNode.CreateDefaultDisplayNodes()
    file_beside(volumeNode, mapNode)
    return mapNode


def in_32_bits(array: np.ndarray) -> np.ndarray:
    """The array itself, or with integers of 64 bits, which `slicer.util.updateVolumeFromArray` refuses, clipped to 32 bits."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return array
    limits = np.iinfo(np.int32)
    return array.clip(limits.min, limits.max).astype(np.int32)


def remove(node) -> None:
    """Remove a node from its scene together with its display and storage nodes, which Slicer would leave there."""
    scene = node.GetScene()
    parts = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    parts += [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    scene.RemoveNode(node)
    for each in parts:
        if scene.IsNodePresent(each):
            scene.RemoveNode(each)


def keep_name_and_color(segment) -> None:
    """Keep the name and colour of a `vtkSegment` even if the user chooses another term for it."""
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)


def file_beside(volumeNode, node) -> None:
    """Move a node to the subject hierarchy folder of its volume, unless it is already in a folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    item, volumeItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(volumeNode)
    if item and volumeItem and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volumeItem))


def _images(inside: np.ndarray, segments: Sequence[Segment], inPlaceOf: Mapping[int, str], image_of: Callable) -> dict:
    """An image for each value: separate ones for segments that replace others, one shared layer for all added segments."""
    added = np.where(np.isin(inside, [*inPlaceOf]), 0, inside) if inPlaceOf else inside
    shared = image_of(added)
    own = {value: image_of((inside == value).astype(np.uint8)) for value in inPlaceOf}
    return {each.value: shared for each in segments} | own


def _prepared(segmentationNode, volumeNode):
    """Prepare a segmentation for segments of a volume: a new one if None; an empty one gets the transform of the volume."""
    if segmentationNode is None:
        segmentationNode = _new_node("vtkMRMLSegmentationNode", f"{volumeNode.GetName()} segmentation", volumeNode)
    if not segmentationNode.GetSegmentation().GetNumberOfSegments():
        segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        segmentationNode.SetSourceRepresentationToBinaryLabelmap()
    segmentationNode.CreateDefaultDisplayNodes()
    return segmentationNode


def _add_or_replace(
    newSegments: Mapping[int, Any], images: Mapping[int, Any], inPlaceOf, insteadOf, segmentationNode
) -> None:
    """Add and replace segments, remove old ones, and move the new ones to the end, in order."""
    segmentation = segmentationNode.GetSegmentation()
    IDs = _add({v: new for v, new in newSegments.items() if v not in inPlaceOf}, segmentationNode) | {**inPlaceOf}
    for value in inPlaceOf:
        _replace(IDs[value], newSegments[value], images[value], segmentationNode)
    for old in insteadOf:
        segmentation.RemoveSegment(old)
    if inPlaceOf and len(newSegments) > 1:
        for value in newSegments:
            segmentation.SetSegmentIndex(IDs[value], segmentation.GetNumberOfSegments() - 1)


def _crop_to_labels(labelmap: np.ndarray, segments: Sequence[Segment]) -> tuple[np.ndarray, list[int]]:
    """Check a label map; return its part with labels, in the smallest unsigned type, and the first K, J, I of that part."""
    values = [segment.value for segment in segments]
    box = bounding_box(labelmap)
    strangers = set() if box is None else set(np.unique(labelmap[box]).tolist()) - {0, *values}
    if strangers or labelmap.dtype.kind not in "bui" or len(set(values)) < len(values) or min(values, default=1) < 1:
        raise SegmentationError(
            f"A label map of type {labelmap.dtype} with other values {sorted(strangers)[:9]} does not match segments with the"
            f" values {values}. Use integers: 0 for background, and a different value of 1 or more for each segment."
        )
    if box is None:  # an empty segment also needs an image, with two voxels along each axis for the surface filter
        return np.zeros((2, 2, 2), np.uint8), [0, 0, 0]
    return labelmap[box].astype(np.min_scalar_type(max(values))), [along.start for along in box]


def _volume_to_segmentation(volumeNode, segmentationNode) -> np.ndarray:
    """The 4 × 4 matrix from the RAS of a volume to that of a segmentation with segments; refuses to resample masks."""
    source = segmentationNode.GetSegmentation().GetSourceRepresentationName()
    if source != BINARY_LABELMAP:
        raise SegmentationError(
            f"{segmentationNode.GetName()} stores its segments as {source}, which cannot represent a mask exactly."
            f" Select a new segmentation, or make {BINARY_LABELMAP} its source representation."
        )
    linear = vtk.vtkTransform()
    between = transform_between(volumeNode, segmentationNode)
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(between, linear):  # fills in `linear`
        raise SegmentationError(
            f"{volumeNode.GetName()} and {segmentationNode.GetName()} are under different non-linear transforms."
            " Select a new segmentation, or put both under the same transform."
        )
    return slicer.util.arrayFromVTKMatrix(linear.GetMatrix())


def _new_segment(segment: Segment, image, taken: set[str]):
    """A `vtkSegment` with its voxels in `image` and a name not yet in `taken` (`Nodule 2` for `Nodule 1`), which is added there."""
    stem, _, last = segment.name.rpartition(" ")
    name, number = segment.name, 0
    while name in taken:
        number += 1
        name = f"{stem} {int(last) + number}" if stem and last.isdecimal() else f"{segment.name}_{number}"
    taken.add(name)
    newSegment = slicer.vtkSegment()
    newSegment.SetName(name)
    newSegment.SetColor(*(channel / 255 for channel in segment.color))
    newSegment.SetTerminology(segment.terminology)
    keep_name_and_color(newSegment)
    newSegment.SetLabelValue(segment.value)
    newSegment.AddRepresentation(BINARY_LABELMAP, image)
    return newSegment


def _add(newSegments: Mapping[int, Any], segmentationNode) -> dict[int, str]:
    """Add all segments or none; return their IDs by value. If other segments have surfaces, Slicer creates them for these, too."""
    segmentation, newIDs = segmentationNode.GetSegmentation(), {}
    for value, newSegment in newSegments.items():  # they are alike, so if any is refused, the first one is
        newIDs[value] = segmentation.GenerateUniqueSegmentID(newSegment.GetName())
        if not segmentation.AddSegment(newSegment, newIDs[value]):
            raise SegmentationError(
                f"{segmentationNode.GetName()} accepts no new segment: one of its representations cannot be created"
                " from a mask. Select a new segmentation, or remove that representation in the Segmentations module."
            )
    return newIDs


def _replace(segmentID: str, newSegment, image, segmentationNode) -> None:
    segmentation, logic = segmentationNode.GetSegmentation(), slicer.vtkSlicerSegmentationsModuleLogic
    segmentation.SeparateSegmentLabelmap(segmentID)  # so that other segments in its layer keep their voxels
    logic.SetBinaryLabelmapToSegment(image, segmentationNode, segmentID, logic.MODE_REPLACE)
    segment = segmentation.GetSegment(segmentID)
    segment.SetName(newSegment.GetName())
    segment.SetColor(newSegment.GetColor())
    segment.SetTerminology(newSegment.GetTerminology())
    keep_name_and_color(segment)


def _refer_to(volumeNode, segmentationNode, force: bool) -> None:
    """Make the volume the reference image (for DICOM SEG export) and the grid of saved files, unless they are already set."""
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    if force or not segmentationNode.GetSegmentation().GetConversionParameter(REFERENCE_GRID):
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)  # both
    elif not segmentationNode.GetNodeReferenceID(role):
        segmentationNode.SetNodeReferenceID(role, volumeNode.GetID())


def _new_node(className: str, name: str, volumeNode):
    """Add a node to the scene of a volume; its name gets a number if it is in use, as selectors show nothing but names."""
    scene = volumeNode.GetScene()
    return scene.AddNewNodeByClass(className, scene.GenerateUniqueName(name))
