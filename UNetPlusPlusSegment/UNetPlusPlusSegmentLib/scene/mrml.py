"""Reads volumes and segments from MRML nodes. Call it on Slicer's main thread; the frames are those of `placement`."""

from __future__ import annotations

import hashlib

import numpy as np
import slicer
import vtk

from ..core.volume import Volume, VolumeError, bounding_box, crop
from .placement import ijk_to_ras_of, oriented_image, resampled, transform_between, turned_to_world, voxels_of

BINARY_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


class SegmentationError(ValueError):
    """A segmentation that cannot be read or written; the scene is unchanged."""


def volume_from_node(volumeNode) -> Volume:
    """Read a `vtkMRMLScalarVolumeNode` in its own IJK and RAS; transforms above it are not applied.

    Returns:
        The voxels, axes (K, J, I), a read-only view of the node's memory, and the node's IJK to RAS matrix (mm).

    Raises:
        VolumeError: The node is missing, of another class, or has no voxels.
    """
    require_scalar_volume(volumeNode)
    array = slicer.util.arrayFromVolume(volumeNode).view()
    array.flags.writeable = False  # no step may change the CT in the scene
    return Volume(array, ijk_to_ras_of(volumeNode))


def labelmap_of(segmentationNode, segmentID: str, volumeNode) -> np.ndarray:
    """Read a segment, by its ID, on the grid of a scalar volume; transforms above both are applied.

    Returns:
        bool, axes (K, J, I) of the volume; exact for a segment created on this grid, otherwise nearest-neighbour.

    Raises:
        VolumeError: `volumeNode` is not a scalar volume with voxels.
        SegmentationError: The segment does not exist, or has no binary labelmap.
    """
    require_scalar_volume(volumeNode)
    require_segment(segmentID, segmentationNode)
    own = slicer.vtkOrientedImageData()
    segmentationNode.GetBinaryLabelmapRepresentation(segmentID, own)  # 1 inside, also out of a shared layer
    shape_kji = volumeNode.GetImageData().GetDimensions()[::-1]
    grid = oriented_image(shape_kji, (0, 0, 0), ijk_to_ras_of(volumeNode))
    return resampled(own, grid, transform_between(segmentationNode, volumeNode)) != 0


def merged_labelmap_of(segmentationNode, volumeNode) -> np.ndarray:
    """Read all segments on the grid of a scalar volume, as `labelmap_of` reads one; where they overlap, the later one wins.

    Returns:
        uint8, axes (K, J, I) of the volume: 1, 2, … in the order of the segments, of which there may be up to 255.

    Raises:
        VolumeError: `volumeNode` is not a scalar volume with voxels.
        SegmentationError: A segment has no binary labelmap.
    """
    require_scalar_volume(volumeNode)
    shape_kji = volumeNode.GetImageData().GetDimensions()[::-1]
    merged, ids = slicer.vtkOrientedImageData(), vtk.vtkStringArray()
    segmentIDs = segmentationNode.GetSegmentation().GetSegmentIDs()
    for segmentID in segmentIDs:
        require_segment(segmentID, segmentationNode)
        ids.InsertNextValue(segmentID)
    # On the grid of the volume Slicer merges all segments at once, and the app takes a snapshot after each stroke. On another one
    # it would lose what that grid cannot hold.
    whole = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    grid, resample = (
        oriented_image(shape_kji, (0, 0, 0), ijk_to_ras_of(volumeNode)),
        slicer.vtkOrientedImageDataResample,
    )
    if (
        segmentIDs
        and not transform_between(segmentationNode, volumeNode).GetNumberOfConcatenatedTransforms()
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
    require_scalar_volume(volumeNode, labelmap)
    own = oriented_image(labelmap.shape, (0, 0, 0), ijk_to_ras_of(volumeNode), labelmap)
    return resampled(own, grid, transform_between(volumeNode, segmentationNode))


def segment_on_own_grid(segmentationNode, segmentID: str) -> Volume | None:
    """Read a segment, by its ID, on its own grid.

    Returns:
        uint8, 1 inside, cropped to the extent of the segment's image, with IJK to RAS rotated as in `world_ijk_to_ras`;
        None if it is empty.

    Raises:
        SegmentationError: The segment does not exist, or has no binary labelmap.
    """
    own = _on_own_grid(segmentationNode, segmentID)
    return own and Volume(own.array, turned_to_world(own.ijk_to_ras, segmentationNode))


def digest_of(segmentationNode, segmentID: str) -> bytes:
    """A digest of the voxels of a segment, by its ID, and of their places: the same as long as nobody edits it.

    The modification time of its image also changes without edits, as when Slicer merges layers to save them.

    Raises:
        SegmentationError: The segment does not exist, or has no binary labelmap.
    """
    own = _on_own_grid(segmentationNode, segmentID)
    box = bounding_box(own.array) if own else None
    if own is None or box is None:
        return b""
    inside = crop(own, box)
    places = inside.array.shape, (inside.ijk_to_ras.round(3) + 0.0).tolist()  # + 0.0 makes 0.0 of -0.0
    return hashlib.blake2b(repr(places).encode() + np.packbits(inside.array).tobytes()).digest()


def _on_own_grid(segmentationNode, segmentID: str) -> Volume | None:
    """As `segment_on_own_grid`, with IJK to RAS of the segmentation, without the transforms above it."""
    require_segment(segmentID, segmentationNode)
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    segmentationNode.GetBinaryLabelmapRepresentation(segmentID, image)
    scalars = image.GetPointData().GetScalars()
    if scalars is None or not scalars.GetNumberOfTuples():
        return None
    image.GetImageToWorldMatrix(matrix)
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    ijk_to_ras[:3, 3] += ijk_to_ras[:3, :3] @ image.GetExtent()[::2]
    return Volume((voxels_of(image) != 0).view(np.uint8), ijk_to_ras)


def centre_of(segmentationNode, segmentID: str) -> tuple[float, float, float] | None:
    """The centre of a segment's bounds, RAS in the world (mm); None if it was removed or is empty."""
    segment, bounds = segmentationNode.GetSegmentation().GetSegment(segmentID), [0.0] * 6
    if segment is None:
        return None
    segment.GetBounds(bounds)
    return tuple(segmentationNode.GetSegmentCenterRAS(segmentID)) if bounds[0] <= bounds[1] else None


def require_scalar_volume(volumeNode, array: np.ndarray | None = None) -> None:
    """Refuse what is not a `vtkMRMLScalarVolumeNode` with voxels, or not of the shape (K, J, I) of `array`; raises VolumeError."""
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


def require_segment(segmentID: str, segmentationNode) -> None:
    """Refuse a segment that does not exist, or has no binary labelmap; raises SegmentationError."""
    segmentation = segmentationNode.GetSegmentation()
    known = segmentation.GetSegmentIDs() if segmentation.ContainsRepresentation(BINARY_LABELMAP) else ()
    if segmentID not in known:
        raise SegmentationError(
            f"{segmentationNode.GetName()} has no voxels for a segment with the ID {segmentID!r} (only for:"
            f" {', '.join(known) or 'none'}). Select another segment, or create its {BINARY_LABELMAP} representation first."
        )
