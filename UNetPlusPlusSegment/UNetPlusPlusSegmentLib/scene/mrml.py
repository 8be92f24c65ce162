"""MRML nodes: reads volumes from the scene, and adds segmentations and maps to it.

Everything here reads or changes the scene, so call it on Slicer's main thread. There are three frames: IJK (voxels), RAS (a
node's own patient coordinates, mm) and world (RAS after the transforms above the node). A mask stays in the IJK of its
volume, and its segmentation gets the transform of that volume, so no voxel is resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ..core.segment import Segment
from ..core.volume import Volume, VolumeError, bounding_box

BINARY_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
REFERENCE_GRID = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()


class SegmentationError(ValueError):
    """A segmentation that cannot be read or written; the scene is unchanged."""


def volume_from_node(volumeNode) -> Volume:
    """Read a `vtkMRMLScalarVolumeNode` in its own IJK and RAS; transforms above it are not applied.

    Returns:
        The voxels, axes (K, J, I), a read-only view of the node's memory, and the node's IJK to RAS matrix (mm).

    Raises:
        VolumeError: The node is missing, of another class, or has no voxels.
    """
    _require_scalar_volume(volumeNode)
    array = slicer.util.arrayFromVolume(volumeNode).view()
    array.flags.writeable = False  # no step may change the CT in the scene
    return Volume(array, _ijk_to_ras(volumeNode))


def world_ijk_to_ras(volumeNode, under=None) -> np.ndarray:
    """IJK to RAS of a volume (4 × 4, mm), rotated by the linear transforms above it (or above `under`).

    This orientation defines the axial slices, so that transforms which correct the patient's position are respected. Only the
    nearest rotation or reflection is applied: scaling and shear, such as those of an affine registration to an atlas, would
    change voxel sizes and volumes. Non-linear transforms are ignored, too: the one that Slicer puts above a series with gantry
    tilt or uneven slices moves slices by millimetres but does not rotate the patient.
    """
    return _turned_to_world(_ijk_to_ras(volumeNode), under or volumeNode)


def _turned_to_world(ijk_to_ras: np.ndarray, node) -> np.ndarray:
    to_world, transformNode = np.eye(4), node.GetParentTransformNode()
    while transformNode is not None:
        if transformNode.IsLinear():
            matrix = vtk.vtkMatrix4x4()
            transformNode.GetMatrixTransformToParent(matrix)
            to_world = slicer.util.arrayFromVTKMatrix(matrix) @ to_world
        transformNode = transformNode.GetParentTransformNode()
    left, _, right = np.linalg.svd(to_world[:3, :3])
    turned = to_world @ ijk_to_ras
    turned[:3, :3] = left @ right @ ijk_to_ras[:3, :3]  # the orthogonal part of a polar decomposition
    return turned


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
    _require_scalar_volume(volumeNode, labelmap)
    inside, first_kji = _crop_to_labels(labelmap, segments)
    if inPlaceOf and segmentationNode is None:
        raise SegmentationError(f"To replace the segments {[*inPlaceOf.values()]}, pass their segmentation, too.")
    segmentIDs = segmentationNode.GetSegmentation().GetSegmentIDs() if segmentationNode is not None else ()
    ijk_to_ras = _ijk_to_ras(volumeNode)
    if segmentIDs:
        ijk_to_ras = _volume_to_segmentation(volumeNode, segmentationNode) @ ijk_to_ras
    for old in (*inPlaceOf.values(), *insteadOf):
        _require_segment(old, segmentationNode)
    staying = set(segmentIDs).difference(inPlaceOf.values(), insteadOf)
    taken = {segmentationNode.GetSegmentation().GetSegment(segmentID).GetName() for segmentID in staying}
    images = _images(
        inside, segments, inPlaceOf, lambda voxels: _oriented_image(inside.shape, first_kji, ijk_to_ras, voxels)
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
    _require_scalar_volume(volumeNode)
    if segmentationNode.GetSegmentation().GetNumberOfSegments():
        _volume_to_segmentation(volumeNode, segmentationNode)


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


def labelmap_of(segmentationNode, segmentID: str, volumeNode) -> np.ndarray:
    """Read a segment, by its ID, on the grid of a scalar volume; transforms above both are applied.

    Returns:
        bool, axes (K, J, I) of the volume; exact for a segment created on this grid, otherwise nearest-neighbour.

    Raises:
        VolumeError: `volumeNode` is not a scalar volume with voxels.
        SegmentationError: The segment does not exist, or has no binary labelmap.
    """
    _require_scalar_volume(volumeNode)
    _require_segment(segmentID, segmentationNode)
    own = slicer.vtkOrientedImageData()
    segmentationNode.GetBinaryLabelmapRepresentation(segmentID, own)  # 1 inside, also out of a shared layer
    shape_kji = volumeNode.GetImageData().GetDimensions()[::-1]
    grid = _oriented_image(shape_kji, (0, 0, 0), _ijk_to_ras(volumeNode))
    return _resample(own, grid, _transform_between(segmentationNode, volumeNode)) != 0


def merged_labelmap_of(segmentationNode, volumeNode) -> np.ndarray:
    """Read all segments on the grid of a scalar volume, as `labelmap_of` reads one; where they overlap, the later one wins.

    Returns:
        uint8, axes (K, J, I) of the volume: 1, 2, … in the order of the segments, of which there may be up to 255.

    Raises:
        VolumeError: `volumeNode` is not a scalar volume with voxels.
        SegmentationError: A segment has no binary labelmap.
    """
    _require_scalar_volume(volumeNode)
    shape_kji = volumeNode.GetImageData().GetDimensions()[::-1]
    merged, ids = slicer.vtkOrientedImageData(), vtk.vtkStringArray()
    segmentIDs = segmentationNode.GetSegmentation().GetSegmentIDs()
    for segmentID in segmentIDs:
        _require_segment(segmentID, segmentationNode)
        ids.InsertNextValue(segmentID)
    # On the grid of the volume Slicer merges all segments at once, and the app takes a snapshot after each stroke. On another one
    # it would lose what that grid cannot hold.
    whole = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    grid, resample = _oriented_image(shape_kji, (0, 0, 0), _ijk_to_ras(volumeNode)), slicer.vtkOrientedImageDataResample
    if (
        segmentIDs
        and not _transform_between(segmentationNode, volumeNode).GetNumberOfConcatenatedTransforms()
        and segmentationNode.GenerateMergedLabelmapForAllSegments(merged, whole, None, ids)
        and resample.DoGeometriesMatch(merged, grid)
        and resample.DoExtentsMatch(merged, grid)
    ):
        return voxels_of(merged).astype(np.uint8)
    labelmap = np.zeros(shape_kji, np.uint8)
    for value, segmentID in enumerate(segmentIDs, start=1):
        labelmap[labelmap_of(segmentationNode, segmentID, volumeNode)] = value
    return labelmap


def labelmap_on_grid(labelmap: np.ndarray, volumeNode, segmentationNode, grid) -> np.ndarray:
    """Resample a label map from the voxels of its volume onto another grid; transforms above both are applied.

    Args:
        labelmap: Axes (K, J, I) of the volume.
        volumeNode: The `vtkMRMLScalarVolumeNode` it was made from.
        segmentationNode: The `vtkMRMLSegmentationNode` that defines the coordinates of `grid`.
        grid: A `vtkOrientedImageData`; its voxel values are not used.

    Returns:
        The values of the nearest voxels, axes (K, J, I) of the grid; 0 outside the volume.

    Raises:
        VolumeError: `volumeNode` is not a scalar volume with voxels, or its shape differs from the label map's.
    """
    _require_scalar_volume(volumeNode, labelmap)
    own = _oriented_image(labelmap.shape, (0, 0, 0), _ijk_to_ras(volumeNode), labelmap)
    return _resample(own, grid, _transform_between(volumeNode, segmentationNode))


def voxels_of(image) -> np.ndarray:
    """The voxels of a `vtkOrientedImageData`, axes (K, J, I) of its extent: a view, for reading and writing."""
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def segment_on_own_grid(segmentationNode, segmentID: str) -> Volume | None:
    """Read a segment, by its ID, on its own grid.

    Returns:
        uint8, 1 inside, cropped to the extent of the segment's image, with IJK to RAS rotated as in `world_ijk_to_ras`;
        None if it is empty.

    Raises:
        SegmentationError: The segment does not exist, or has no binary labelmap.
    """
    _require_segment(segmentID, segmentationNode)
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    segmentationNode.GetBinaryLabelmapRepresentation(segmentID, image)
    scalars = image.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        return None
    image.GetImageToWorldMatrix(matrix)
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    ijk_to_ras[:3, 3] += ijk_to_ras[:3, :3] @ image.GetExtent()[::2]
    return Volume((voxels_of(image) != 0).view(np.uint8), _turned_to_world(ijk_to_ras, segmentationNode))


def centre_of(segmentationNode, segmentID: str) -> tuple[float, float, float] | None:
    """The centre of a segment's bounds, RAS in the world (mm); None if it was removed or is empty."""
    segment, bounds = segmentationNode.GetSegmentation().GetSegment(segmentID), [0.0] * 6
    if segment is None:
        return None
    segment.GetBounds(bounds)
    return tuple(segmentationNode.GetSegmentCenterRAS(segmentID)) if bounds[0] <= bounds[1] else None


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
    _require_scalar_volume(volumeNode, array)
    values = np.asarray(array, dtype=np.float32)
    mapNode = mapNode or _new_node("vtkMRMLScalarVolumeNode", name, volumeNode)
    mapNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    mapNode.CopyOrientation(volumeNode)
    slicer.util.updateVolumeFromArray(mapNode, values)
    mapNode.CreateDefaultDisplayNodes()
    file_beside(volumeNode, mapNode)
    return mapNode


def _new_node(className: str, name: str, volumeNode):
    """Add a node to the scene of a volume; its name gets a number if it is in use, as selectors show nothing but names."""
    scene = volumeNode.GetScene()
    return scene.AddNewNodeByClass(className, scene.GenerateUniqueName(name))


def _require_scalar_volume(volumeNode, array: np.ndarray | None = None) -> None:
    if volumeNode is None:
        raise VolumeError("No volume was given: load a CT and select it as the input volume.")
    className = volumeNode.GetClassName()
    if className != "vtkMRMLScalarVolumeNode":  # label maps, RGB, diffusion and 4D volumes are classes derived from it
        kind = className.removeprefix("vtkMRML").removesuffix("Node")
        raise VolumeError(f"{volumeNode.GetName()} is a {kind}, not a scalar volume: select the CT itself.")
    imageData = volumeNode.GetImageData()
    if imageData is None or imageData.GetPointData().GetScalars() is None or 0 in imageData.GetDimensions():
        raise VolumeError(f"{volumeNode.GetName()} has no voxels: load its image again, or select another volume.")
    if imageData.GetNumberOfScalarComponents() != 1:
        raise VolumeError(
            f"{volumeNode.GetName()} has {imageData.GetNumberOfScalarComponents()} values in each voxel, such as colours: select the"
            " CT itself."
        )
    if array is not None and array.shape != imageData.GetDimensions()[::-1]:
        raise VolumeError(
            f"A result of {array.shape} voxels (K, J, I) does not match {volumeNode.GetName()}, which has"
            f" {imageData.GetDimensions()[::-1]}: segment this volume again."
        )


def _require_segment(segmentID: str, segmentationNode) -> None:
    segmentation = segmentationNode.GetSegmentation()
    known = segmentation.GetSegmentIDs() if segmentation.ContainsRepresentation(BINARY_LABELMAP) else ()
    if segmentID not in known:
        raise SegmentationError(
            f"{segmentationNode.GetName()} has no voxels for a segment with the ID {segmentID!r} (only for:"
            f" {', '.join(known) or 'none'}). Select another segment, or create its {BINARY_LABELMAP} representation first."
        )


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


def _ijk_to_ras(volumeNode) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _transform_between(node, otherNode):
    """The transform from the RAS of one node to that of another; empty if both have the same parent, so that nothing is resampled."""
    parents, transform = (node.GetParentTransformNode(), otherNode.GetParentTransformNode()), vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*parents, transform)
    return transform


def _volume_to_segmentation(volumeNode, segmentationNode) -> np.ndarray:
    """The 4 × 4 matrix from the RAS of a volume to that of a segmentation with segments; refuses to resample masks."""
    source = segmentationNode.GetSegmentation().GetSourceRepresentationName()
    if source != BINARY_LABELMAP:
        raise SegmentationError(
            f"{segmentationNode.GetName()} stores its segments as {source}, which cannot represent a mask exactly."
            f" Select a new segmentation, or make {BINARY_LABELMAP} its source representation."
        )
    linear = vtk.vtkTransform()
    between = _transform_between(volumeNode, segmentationNode)
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(between, linear):  # fills in `linear`
        raise SegmentationError(
            f"{volumeNode.GetName()} and {segmentationNode.GetName()} are under different non-linear transforms."
            " Select a new segmentation, or put both under the same transform."
        )
    return slicer.util.arrayFromVTKMatrix(linear.GetMatrix())


def _oriented_image(shape_kji, first_kji, ijk_to_ras: np.ndarray, voxels: np.ndarray | None = None):
    """A `vtkOrientedImageData` on part of a grid; `ijk_to_ras` is that of the whole grid."""
    image = slicer.vtkOrientedImageData()
    bounds = [(first, first + size - 1) for first, size in zip(first_kji, shape_kji, strict=True)]
    image.SetExtent(*bounds[2], *bounds[1], *bounds[0])  # I, J, K
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras))
    if voxels is not None:
        image.AllocateScalars(numpy_support.get_vtk_array_type(voxels.dtype), 1)
        numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = voxels.ravel()
    return image


def _resample(image, grid, transform) -> np.ndarray:
    """Resample an image onto another grid, nearest-neighbour."""
    onGrid = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, grid, onGrid, False, False, transform
    )
    return voxels_of(onGrid).copy()


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


def keep_name_and_color(segment) -> None:
    """Keep the name and colour of a `vtkSegment` even if the user chooses another term for it."""
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)


def _refer_to(volumeNode, segmentationNode, force: bool) -> None:
    """Make the volume the reference image (for DICOM SEG export) and the grid of saved files, unless they are already set."""
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    if force or not segmentationNode.GetSegmentation().GetConversionParameter(REFERENCE_GRID):
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)  # both
    elif not segmentationNode.GetNodeReferenceID(role):
        segmentationNode.SetNodeReferenceID(role, volumeNode.GetID())


def file_beside(volumeNode, node) -> None:
    """Move a node to the subject hierarchy folder of its volume, unless it is already in a folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    item, volumeItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(volumeNode)
    if item and volumeItem and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volumeItem))
