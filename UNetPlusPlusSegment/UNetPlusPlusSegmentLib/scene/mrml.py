"""MRML nodes: volumes out of the scene, segmentations and maps into it.

Everything here reads or changes the scene, so call it on Slicer's main thread. Three frames meet: IJK (voxels), RAS (a
node's own patient coordinates, mm) and world (RAS after the transforms above the node). A mask stays in the IJK of its
volume and its segmentation gets the transform of that volume, so no voxel is resampled on the way in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ..core.segment import Segment
from ..core.volume import Volume, VolumeError, bounding_box

BINARY_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
REFERENCE_GRID = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()


class SegmentationError(ValueError):
    """A result cannot be put into, or read from, a segmentation; the scene is as it was before."""


def volume_from_node(volumeNode) -> Volume:
    """Read a `vtkMRMLScalarVolumeNode` in its own IJK and RAS; transforms above it are not applied.

    Returns:
        The voxels, axes (K, J, I), a read-only view of the node's memory, and the node's IJK to RAS matrix (mm).

    Raises:
        VolumeError: The node is missing, of another kind, or holds no voxels.
    """
    _require_scalar_volume(volumeNode)
    array = slicer.util.arrayFromVolume(volumeNode).view()
    array.flags.writeable = False  # a step that works in place must not change the CT in the scene
    return Volume(array, _ijk_to_ras(volumeNode))


def world_ijk_to_ras(volumeNode, under=None) -> np.ndarray:
    """Tell how a volume lies in the world: its IJK to RAS, turned by the linear transforms above it (or above `under`).

    The matrix (4 × 4, mm) to orient by: who corrected a patient's position with a transform is taken at their word.
    Scaling and shear, of an affine registration to an atlas say, are left out, so that voxel sizes and millilitres stay
    those of the scan: only the nearest rotation or reflection is applied. So are non-linear transforms: the one that
    Slicer puts above a series with gantry tilt or uneven slices moves slices by millimetres and turns nobody round.
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

    A new or empty segmentation goes under the transform of the volume and takes its geometry as reference. One that
    holds segments keeps them, voxel for voxel and where the user sees them, with its transform and reference geometry;
    the new ones are placed through the linear transform between the nodes. (Slicer saves a segmentation on one grid, so
    saving resamples them if the reference is another volume's; a segmentation of their own avoids that.)

    Args:
        labelmap: Axes (K, J, I) of the volume; 0 is background, every other value belongs to one of `segments`.
        segments: One segment is made of each, also if no voxel has its value. A name that is taken gets a number, since
            Slicer exports segments to files by name.
        volumeNode: The `vtkMRMLScalarVolumeNode` the label map was made from.
        segmentationNode: The `vtkMRMLSegmentationNode` to add to, or None for a new one, "<volume> segmentation".
        inPlaceOf: From the values of `segments` that take the place of one in `segmentationNode` to its ID, which stays, as
            do visibility and opacity; of an only segment, the position, too. The others are added.
        insteadOf: IDs of segments that are removed once the new ones are there; their names are free for these.

    Returns:
        The segmentation node; where several were given, or one was added, they are its last ones, in their order.

    Raises:
        VolumeError: `volumeNode` is no scalar volume with voxels, or of another shape than the label map.
        SegmentationError: Label map, segments and segmentation do not fit together. Nothing was changed.
    """
    _require_scalar_volume(volumeNode, labelmap)
    inside, first_kji = _crop_to_labels(labelmap, segments)
    if inPlaceOf and segmentationNode is None:
        raise SegmentationError(f"Pass {[*inPlaceOf.values()]} with their segmentation.")
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


def _images(inside: np.ndarray, segments: Sequence[Segment], inPlaceOf: Mapping[int, str], image_of: Callable) -> dict:
    """An image for each value: one of its own for what takes the place of another segment, one layer for all that is added."""
    added = np.where(np.isin(inside, [*inPlaceOf]), 0, inside) if inPlaceOf else inside
    shared = image_of(added)
    own = {value: image_of((inside == value).astype(np.uint8)) for value in inPlaceOf}
    return {each.value: shared for each in segments} | own


def _prepared(segmentationNode, volumeNode):
    """A segmentation that can take segments of a volume: a new one if None; an empty one goes under the volume's transform."""
    if segmentationNode is None:
        name = f"{volumeNode.GetName()} segmentation"
        segmentationNode = volumeNode.GetScene().AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    if not segmentationNode.GetSegmentation().GetNumberOfSegments():
        segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        segmentationNode.SetSourceRepresentationToBinaryLabelmap()
    segmentationNode.CreateDefaultDisplayNodes()
    return segmentationNode


def _add_or_replace(
    newSegments: Mapping[int, object], images: Mapping[int, object], inPlaceOf, insteadOf, segmentationNode
) -> None:
    """Add and replace segments, remove the old ones, and bring the new ones into their order, at the end."""
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
    """Read a segment, by its ID, on the grid of a scalar volume, wherever the transforms above the two put them.

    Returns:
        bool, axes (K, J, I) of the volume; exact for a segment made on this grid, else by nearest voxel.

    Raises:
        VolumeError: `volumeNode` is no scalar volume with voxels.
        SegmentationError: There is no such segment, or it has no binary labelmap.
    """
    _require_scalar_volume(volumeNode)
    _require_segment(segmentID, segmentationNode)
    own = slicer.vtkOrientedImageData()
    segmentationNode.GetBinaryLabelmapRepresentation(segmentID, own)  # 1 inside, also out of a shared layer
    shape_kji = volumeNode.GetImageData().GetDimensions()[::-1]
    grid = _oriented_image(shape_kji, (0, 0, 0), _ijk_to_ras(volumeNode))
    return _resample(own, grid, _transform_between(segmentationNode, volumeNode)) != 0


def labelmap_on_grid(labelmap: np.ndarray, volumeNode, segmentationNode, grid) -> np.ndarray:
    """Bring a label map from the voxels of its volume onto another grid, wherever the transforms put the two.

    Args:
        labelmap: Axes (K, J, I) of the volume.
        volumeNode: The `vtkMRMLScalarVolumeNode` it was made from.
        segmentationNode: The `vtkMRMLSegmentationNode` in whose coordinates `grid` lies.
        grid: A `vtkOrientedImageData`; its voxels do not matter.

    Returns:
        The values of the nearest voxels, axes (K, J, I) of the grid; 0 outside the volume.

    Raises:
        VolumeError: `volumeNode` is no scalar volume with voxels, or of another shape than the label map.
    """
    _require_scalar_volume(volumeNode, labelmap)
    own = _oriented_image(labelmap.shape, (0, 0, 0), _ijk_to_ras(volumeNode), labelmap)
    return _resample(own, grid, _transform_between(volumeNode, segmentationNode))


def voxels_of(image) -> np.ndarray:
    """The voxels of a `vtkOrientedImageData`, axes (K, J, I) of its extent: a view, for reading and writing."""
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def segment_on_own_grid(segmentationNode, segmentID: str) -> Volume | None:
    """Read a segment, by its ID, on the grid that it was drawn on.

    Returns:
        uint8, 1 inside, cropped to where the segment has an image, with IJK to RAS turned as `world_ijk_to_ras` says;
        None if it is empty.

    Raises:
        SegmentationError: There is no such segment, or it has no binary labelmap.
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
    """The middle of the bounds of a segment, RAS in the world (mm); None if it is gone, or empty."""
    segment, bounds = segmentationNode.GetSegmentation().GetSegment(segmentID), [0.0] * 6
    if segment is None:
        return None
    segment.GetBounds(bounds)
    return tuple(segmentationNode.GetSegmentCenterRAS(segmentID)) if bounds[0] <= bounds[1] else None


def show_scalar_volume(array: np.ndarray, volumeNode, name: str, mapNode=None):
    """Put a map (probability, uncertainty) into the scene, in the same place and under the same transform as its volume.

    Args:
        array: Axes (K, J, I) of the volume; kept as float32.
        volumeNode: The `vtkMRMLScalarVolumeNode` the map belongs to.
        name: Of a new node; the scene adds a number if it is taken.
        mapNode: The `vtkMRMLScalarVolumeNode` of an earlier map that this one takes the place of; None adds.

    Returns:
        The `vtkMRMLScalarVolumeNode` of the map.

    Raises:
        VolumeError: `volumeNode` is no scalar volume with voxels, or of another shape than the map.
    """
    _require_scalar_volume(volumeNode, array)
    values = np.asarray(array, dtype=np.float32)
    mapNode = mapNode or volumeNode.GetScene().AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    mapNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    mapNode.CopyOrientation(volumeNode)
    slicer.util.updateVolumeFromArray(mapNode, values)
    mapNode.CreateDefaultDisplayNodes()
    file_beside(volumeNode, mapNode)
    return mapNode


def _require_scalar_volume(volumeNode, array: np.ndarray | None = None) -> None:
    if volumeNode is None:
        raise VolumeError("No volume was given. Load a CT and choose it as the input volume.")
    className = volumeNode.GetClassName()
    if className != "vtkMRMLScalarVolumeNode":  # label maps, RGB, diffusion and 4D volumes are classes derived from it
        kind = className.removeprefix("vtkMRML").removesuffix("Node")
        raise VolumeError(f"{volumeNode.GetName()} is a {kind}, not a scalar volume. Choose the CT itself.")
    imageData = volumeNode.GetImageData()
    if imageData is None or imageData.GetPointData().GetScalars() is None or 0 in imageData.GetDimensions():
        raise VolumeError(f"{volumeNode.GetName()} holds no voxels. Load its image again, or choose another volume.")
    if array is not None and array.shape != imageData.GetDimensions()[::-1]:
        raise VolumeError(
            f"A result of {array.shape} voxels (K, J, I) does not fit {volumeNode.GetName()}, which has"
            f" {imageData.GetDimensions()[::-1]}. Show it on the volume it was made from, as that was when it was read."
        )


def _require_segment(segmentID: str, segmentationNode) -> None:
    segmentation = segmentationNode.GetSegmentation()
    known = segmentation.GetSegmentIDs() if segmentation.ContainsRepresentation(BINARY_LABELMAP) else ()
    if segmentID not in known:
        raise SegmentationError(
            f"{segmentationNode.GetName()} has no voxels for a segment with the ID {segmentID!r} (it has for:"
            f" {', '.join(known) or 'none'}). Choose another, or create the {BINARY_LABELMAP} of its surfaces first."
        )


def _crop_to_labels(labelmap: np.ndarray, segments: Sequence[Segment]) -> tuple[np.ndarray, list[int]]:
    """Check a label map; return the part that holds labels, in the smallest unsigned type, and its first K, J, I."""
    values = [segment.value for segment in segments]
    box = bounding_box(labelmap)
    strangers = set() if box is None else set(np.unique(labelmap[box]).tolist()) - {0, *values}
    if strangers or labelmap.dtype.kind not in "bui" or len(set(values)) < len(values) or min(values, default=1) < 1:
        raise SegmentationError(
            f"A label map of type {labelmap.dtype} that also has {sorted(strangers)[:9]} does not fit segments with the"
            f" values {values}. Use whole numbers: 0 for background and, for each segment, one of its own from 1 on."
        )
    if box is None:  # nothing found: a segment needs an image all the same, and a surface filter two voxels each way
        return np.zeros((2, 2, 2), np.uint8), [0, 0, 0]
    return labelmap[box].astype(np.min_scalar_type(max(values))), [along.start for along in box]


def _ijk_to_ras(volumeNode) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _transform_between(node, otherNode):
    """RAS of one node to RAS of another; empty if both have the same parent transform: then nothing is resampled."""
    parents, transform = (node.GetParentTransformNode(), otherNode.GetParentTransformNode()), vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*parents, transform)
    return transform


def _volume_to_segmentation(volumeNode, segmentationNode) -> np.ndarray:
    """RAS of the volume to RAS of a segmentation that holds segments, 4 × 4; refused if a mask would be resampled."""
    source = segmentationNode.GetSegmentation().GetSourceRepresentationName()
    if source != BINARY_LABELMAP:
        raise SegmentationError(
            f"{segmentationNode.GetName()} keeps its segments as {source}, where a mask would lose its voxels."
            f" Choose a new segmentation, or make {BINARY_LABELMAP} its source representation."
        )
    linear = vtk.vtkTransform()
    between = _transform_between(volumeNode, segmentationNode)
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(between, linear):  # fills in `linear`
        raise SegmentationError(
            f"{volumeNode.GetName()} and {segmentationNode.GetName()} lie under different non-linear transforms."
            " Choose a new segmentation, or put both under the same transform."
        )
    return slicer.util.arrayFromVTKMatrix(linear.GetMatrix())


def _oriented_image(shape_kji, first_kji, ijk_to_ras: np.ndarray, voxels: np.ndarray | None = None):
    """A `vtkOrientedImageData` on part of a grid; `ijk_to_ras` is that of the whole, not of the part."""
    image = slicer.vtkOrientedImageData()
    bounds = [(first, first + size - 1) for first, size in zip(first_kji, shape_kji, strict=True)]
    image.SetExtent(*bounds[2], *bounds[1], *bounds[0])  # I, J, K
    image.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras))
    if voxels is not None:
        image.AllocateScalars(numpy_support.get_vtk_array_type(voxels.dtype), 1)
        numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = voxels.ravel()
    return image


def _resample(image, grid, transform) -> np.ndarray:
    """An image on another grid, by nearest voxel."""
    onGrid = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, grid, onGrid, False, False, transform
    )
    return voxels_of(onGrid).copy()


def _new_segment(segment: Segment, image, taken: set[str]):
    """A `vtkSegment` that finds its voxels in `image`, with a name that is not yet in `taken` and joins it."""
    name, number = segment.name, 1
    while name in taken:
        name, number = f"{segment.name}_{number}", number + 1
    taken.add(name)
    newSegment = slicer.vtkSegment()
    newSegment.SetName(name)
    newSegment.SetColor(*(channel / 255 for channel in segment.color))
    newSegment.SetTerminology(segment.terminology)
    keep_name_and_color(newSegment)
    newSegment.SetLabelValue(segment.value)
    newSegment.AddRepresentation(BINARY_LABELMAP, image)
    return newSegment


def _add(newSegments: Mapping[int, object], segmentationNode) -> dict[int, str]:
    """Add all or none, and return their IDs by value. Where others have surfaces, Slicer makes those of the new ones, too."""
    segmentation, newIDs = segmentationNode.GetSegmentation(), {}
    for value, newSegment in newSegments.items():  # they are alike: if one is refused, it is the first
        newIDs[value] = segmentation.GenerateUniqueSegmentID(newSegment.GetName())
        if not segmentation.AddSegment(newSegment, newIDs[value]):
            raise SegmentationError(
                f"{segmentationNode.GetName()} takes no new segment: one of its representations cannot be made from a"
                " mask. Choose a new segmentation, or remove that representation in the Segmentations module."
            )
    return newIDs


def _replace(segmentID: str, newSegment, image, segmentationNode) -> None:
    segmentation, logic = segmentationNode.GetSegmentation(), slicer.vtkSlicerSegmentationsModuleLogic
    segmentation.SeparateSegmentLabelmap(segmentID)  # other segments in its layer keep their voxels
    logic.SetBinaryLabelmapToSegment(image, segmentationNode, segmentID, logic.MODE_REPLACE)
    segment = segmentation.GetSegment(segmentID)
    segment.SetName(newSegment.GetName())
    segment.SetColor(newSegment.GetColor())
    segment.SetTerminology(newSegment.GetTerminology())
    keep_name_and_color(segment)


def keep_name_and_color(segment) -> None:
    """Have Slicer leave the name and the colour of a `vtkSegment` as they are when the user chooses another term for it."""
    segment.SetNameAutoGenerated(False)
    segment.SetColorAutoGenerated(False)


def _refer_to(volumeNode, segmentationNode, force: bool) -> None:
    """Make the volume the reference image (DICOM SEG export asks for one) and its grid that of files, if none is."""
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    if force or not segmentationNode.GetSegmentation().GetConversionParameter(REFERENCE_GRID):
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)  # both
    elif not segmentationNode.GetNodeReferenceID(role):
        segmentationNode.SetNodeReferenceID(role, volumeNode.GetID())


def file_beside(volumeNode, node) -> None:
    """Put a node into the subject hierarchy folder of its volume, unless it has been put somewhere already."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    item, volumeItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(volumeNode)
    if item and volumeItem and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volumeItem))
