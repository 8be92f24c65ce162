"""Points and boxes that the user placed in the scene, in the voxels of a volume. Asks nodes; knows no Qt and changes nothing."""
# ruff: noqa: ANN001, N803, N806 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from ..core.request import Point
from ..core.segment import Segment
from ..core.volume import Volume, VolumeError
from . import mrml


def points_on_volume(points, volumeNode, volume: Volume) -> tuple[Point, ...]:
    """Points in the frame of a volume.

    Args:
        points: A `vtkMRMLMarkupsNode`, whose placed control points count, or RAS points in the world (mm).
        volumeNode: The `vtkMRMLScalarVolumeNode`; transforms above it count, non-linear ones too.
        volume: Its voxels, and its frame.

    Returns:
        One point for each, in the RAS of `volume`.

    Raises:
        VolumeError: There is no point, or one lies outside the volume.
    """
    world = [list(map(float, point)) for point in _positions(points)]
    if not world:
        raise VolumeError("No point was placed. Click on each nodule in a slice view, or remove the list of points.")
    size = np.array(volume.array.shape[::-1])
    found: list[Point] = []
    for number, point in enumerate(world, start=1):
        ijk = _ijk(point, volumeNode)
        if (ijk < -0.5).any() or (ijk > size - 0.5).any():
            place = ", ".join(f"{x:.0f}" for x in point)
            raise VolumeError(f"Point {number} ({place} mm) does not lie in {volumeNode.GetName()}: move or remove it.")
        r, a, s = (volume.ijk_to_ras @ [*ijk, 1])[:3].tolist()
        found.append((r, a, s))
    return tuple(found)


def box_on_volume(roiNode, volumeNode) -> list[list[int]]:
    """The voxels inside an ROI.

    Args:
        roiNode: A `vtkMRMLMarkupsROINode`. Of one that is turned against the volume the enclosing box of voxels counts.
        volumeNode: The `vtkMRMLScalarVolumeNode`; transforms above both count.

    Returns:
        First and past-the-last index along K, J and I.

    Raises:
        VolumeError: The ROI holds no voxel of the volume.
    """
    toWorld = _matrix(roiNode.GetObjectToWorldMatrix())
    half = np.array(roiNode.GetSize()) / 2
    corners = [toWorld @ [*(np.array(signs) * half), 1] for signs in product((-1, 1), repeat=3)]
    ijk = np.array([_ijk(corner[:3], volumeNode) for corner in corners])
    size = np.array(volumeNode.GetImageData().GetDimensions())
    first = np.maximum(np.ceil(ijk.min(axis=0) - 1e-6), 0).astype(int)  # voxels whose centres lie inside
    last = np.minimum(np.floor(ijk.max(axis=0) + 1e-6) + 1, size).astype(int)
    if (first >= last).any():
        raise VolumeError(
            f"{roiNode.GetName()} holds no voxel of {volumeNode.GetName()}: move the box over the volume, or choose none."
        )
    return np.column_stack([first, last])[::-1].tolist()


def inside_roi(roiNode, volumeNode) -> np.ndarray:
    """The voxels of a volume that lie in an ROI, also in one that is turned against it.

    Returns:
        bool (K, J, I), True where the centre of the voxel is inside. Under a non-linear transform, of which a box has no
        more notion than of a turn, the box of `box_on_volume`.

    Raises:
        VolumeError: The ROI holds no voxel of the volume.
    """
    inside = np.zeros(volumeNode.GetImageData().GetDimensions()[::-1], bool)
    box = tuple(slice(*along) for along in box_on_volume(roiNode, volumeNode))
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is not None and not transformNode.IsTransformToWorldLinear():
        inside[box] = True
        return inside
    first, *steps = (_world(ijk, volumeNode) for ijk in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)))
    ijkToWorld = np.eye(4)
    ijkToWorld[:3] = np.column_stack([*(step - first for step in steps), first])
    ijkToRoi = np.linalg.solve(_matrix(roiNode.GetObjectToWorldMatrix()), ijkToWorld)
    k, j, i = np.ogrid[box]
    within = True
    for row, half in zip(ijkToRoi, np.array(roiNode.GetSize()) / 2, strict=False):
        within = within & (np.abs(row[0] * i + row[1] * j + row[2] * k + row[3]) <= half + 1e-6)
    inside[box] = within
    return inside


def in_world(point: Point | Sequence[Point], volumeNode, volume: Volume) -> tuple:
    """A point in the RAS of `volume` (see `points_on_volume`), or several, in the world, where the slice views show them."""
    if not isinstance(point[0], (int, float)):
        return tuple(in_world(each, volumeNode, volume) for each in point)
    return tuple(_world(np.linalg.solve(volume.ijk_to_ras, [*point, 1])[:3], volumeNode).tolist())


def segment_in_world(segment: Segment, volumeNode, volume: Volume) -> Segment:
    """A segment of `volume` whose measured points (`centroid_ras`, …) are those that the slice views show."""
    points = {
        key: in_world(value, volumeNode, volume)
        for key, value in segment.measurements.items()
        if key.endswith("_ras") and value is not None
    }
    return replace(segment, measurements={**segment.measurements, **points})


def _positions(points) -> Iterable[Point]:
    if not hasattr(points, "GetNumberOfControlPoints"):
        yield from points
        return
    for index in range(points.GetNumberOfControlPoints()):
        if points.GetNthControlPointPositionStatus(index) == points.PositionDefined:
            position = [0.0, 0.0, 0.0]
            points.GetNthControlPointPositionWorld(index, position)
            yield position


def _ijk(world: Point, volumeNode) -> np.ndarray:
    ras = [0.0, 0.0, 0.0]
    volumeNode.TransformPointFromWorld([float(x) for x in world], ras)
    return np.linalg.solve(mrml.volume_from_node(volumeNode).ijk_to_ras, [*ras, 1])[:3]


def _world(ijk, volumeNode) -> np.ndarray:
    world = [0.0, 0.0, 0.0]
    volumeNode.TransformPointToWorld((mrml.volume_from_node(volumeNode).ijk_to_ras @ [*ijk, 1])[:3].tolist(), world)
    return np.array(world)


def _matrix(vtkMatrix) -> np.ndarray:
    return np.array([[vtkMatrix.GetElement(i, j) for j in range(4)] for i in range(4)])
