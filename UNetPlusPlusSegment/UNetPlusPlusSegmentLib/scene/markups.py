"""Points and boxes placed in the scene, converted to the voxel grid of a volume. Only reads nodes; no Qt.

A frame of a sequence has voxels at a place of its own, but the transforms are above the volume that shows the frames: `under`.
"""
# ruff: noqa: ANN001, N803, N806 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from ..core.request import Point, as_box, as_point
from ..core.result import Result
from ..core.segment import Segment
from ..core.volume import Volume, VolumeError, inside_box, turned_in
from . import placement


def points_on_volume(points, volumeNode, volume: Volume) -> tuple[Point, ...]:
    """Convert points in the world to the RAS of a volume.

    Args:
        points: A `vtkMRMLMarkupsNode`, whose placed control points are used, or RAS points in the world (mm).
        volumeNode: The `vtkMRMLScalarVolumeNode`; linear and non-linear transforms above it are applied.
        volume: Its voxels; its RAS is that of the points returned.

    Returns:
        The points, in the RAS of `volume`.

    Raises:
        RequestError: A point is not three numbers.
        VolumeError: There is no point, or a point is outside the volume.
    """
    world = [as_point(point) for point in _positions(points)]
    if not world:
        raise VolumeError("No point was placed: click each nodule in a slice view, or select no point list.")
    size = np.array(volume.array.shape[::-1])
    found: list[Point] = []
    for number, point in enumerate(world, start=1):
        ijk = _ijk(point, volumeNode)
        if (ijk < -0.5).any() or (ijk > size - 0.5).any():
            place = ", ".join(f"{x:.0f}" for x in point)
            raise VolumeError(
                f"Point {number} ({place} mm) is outside {volumeNode.GetName()}: place it inside, or leave it out."
            )
        r, a, s = (volume.ijk_to_ras @ [*ijk, 1])[:3].tolist()
        found.append((r, a, s))
    return tuple(found)


def box_on_volume(roiNode, volumeNode, under=None) -> list[list[int]]:
    """The voxels inside an ROI.

    Args:
        roiNode: A `vtkMRMLMarkupsROINode`. If it is turned against the voxels, the box of voxels around it is meant.
        volumeNode: The `vtkMRMLScalarVolumeNode`; transforms above both (or above `under`) are applied.
        under: The volume that shows the frames, if `volumeNode` is a frame.

    Returns:
        First and past-the-last index along K, J and I.

    Raises:
        VolumeError: The ROI is not drawn yet, or contains no voxel of the volume.
    """
    if not roiNode.GetNumberOfDefinedControlPoints():
        raise VolumeError(
            f"{roiNode.GetName()} is not drawn yet: draw it in a slice view, or select no region of interest."
        )
    toWorld = _matrix(roiNode.GetObjectToWorldMatrix())
    half = np.array(roiNode.GetSize()) / 2
    corners = [toWorld @ [*(np.array(signs) * half), 1] for signs in product((-1, 1), repeat=3)]
    ijk = np.array([_ijk(corner[:3], volumeNode, under) for corner in corners])
    size = np.array(volumeNode.GetImageData().GetDimensions())
    first = np.maximum(np.ceil(ijk.min(axis=0) - 1e-6), 0).astype(int)  # only voxels whose centres lie inside
    last = np.minimum(np.floor(ijk.max(axis=0) + 1e-6) + 1, size).astype(int)
    if (first >= last).any():
        raise _no_voxel(roiNode, under or volumeNode)
    return np.column_stack([first, last])[::-1].tolist()


def places_in_roi(roiNode, volumeNode, under=None) -> dict[str, Any]:
    """What a request says of an ROI.

    Args:
        roiNode, volumeNode, under: As for `box_on_volume`.

    Returns:
        `box`; and `turned`, which is None if all of the box lies in the ROI. So it is under a non-linear transform, too.

    Raises:
        VolumeError: As for `box_on_volume`.
    """
    box = as_box(box_on_volume(roiNode, volumeNode, under))
    transformNode = (under or volumeNode).GetParentTransformNode()
    if transformNode is not None and not transformNode.IsTransformToWorldLinear():
        return {"box": box, "turned": None}
    first, *steps = (_world(ijk, volumeNode, under) for ijk in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)))
    ijkToWorld = np.eye(4)
    ijkToWorld[:3] = np.column_stack([*(step - first for step in steps), first])
    ijkToRoi = np.linalg.solve(_matrix(roiNode.GetObjectToWorldMatrix()), ijkToWorld)
    turned = turned_in(box, ijkToRoi, np.array(roiNode.GetSize()) / 2)
    if turned and not inside_box(box, turned).any():
        raise _no_voxel(roiNode, under or volumeNode)
    return {"box": box, "turned": turned}


def inside_roi(roiNode, volumeNode) -> np.ndarray:
    """A mask of the voxels inside an ROI, which may be rotated relative to the volume.

    Returns:
        bool (K, J, I), True where the centre of the voxel is inside. Under a non-linear transform, the box of
        `box_on_volume`.

    Raises:
        VolumeError: As for `box_on_volume`.
    """
    places = places_in_roi(roiNode, volumeNode)
    inside = np.zeros(volumeNode.GetImageData().GetDimensions()[::-1], bool)
    inside[places["box"]] = inside_box(**places)
    return inside


def _no_voxel(roiNode, volumeNode) -> VolumeError:
    return VolumeError(
        f"{roiNode.GetName()} contains no voxel of {volumeNode.GetName()}: move the region of interest onto the volume, or select none."
    )


def in_world(point: Point, volumeNode, volume: Volume, under=None) -> Point:
    """Convert a point from the RAS of `volume` (see `points_on_volume`) to world coordinates, which the slice views show."""
    r, a, s = _world(np.linalg.solve(volume.ijk_to_ras, [*point, 1])[:3], volumeNode, under).tolist()
    return r, a, s


def result_in_world(result: Result, volumeNode, volume: Volume, under=None) -> Result:
    """A result for `volume`, with the points of its measurements and notes converted to world coordinates."""
    segments = tuple(_segment_in_world(each, volumeNode, volume, under) for each in result.segments)
    notes = tuple(
        replace(note, points=tuple(in_world(point, volumeNode, volume, under) for point in note.points))
        for note in result.notes
    )
    return replace(result, segments=segments, notes=notes)


def _segment_in_world(segment: Segment, volumeNode, volume: Volume, under) -> Segment:
    """A segment with its measured points (`centroid_ras`, …) converted, and with the positions that are told of them."""
    measurements = dict(segment.measurements)
    for key, value in measurements.items():
        if not key.endswith("_ras") or key == "extent_ras" or value is None:  # a size is no point
            continue
        if np.ndim(value) == 1:
            measurements[key] = in_world(value, volumeNode, volume, under)
        else:  # the ends of a diameter
            measurements[key] = tuple(in_world(each, volumeNode, volume, under) for each in value)
    if "doubtful_slices_ras" in measurements:
        slices = zip(measurements["doubtful_slices"], measurements["doubtful_slices_ras"], strict=True)
        measurements["doubtful_slices"] = [{**each, "s_mm": s} for each, (_, _, s) in slices]
    return replace(segment, measurements=measurements)


def _positions(points) -> Iterable[Sequence[float]]:
    if not hasattr(points, "GetNumberOfControlPoints"):
        yield from points
        return
    for index in range(points.GetNumberOfControlPoints()):
        if points.GetNthControlPointPositionStatus(index) == points.PositionDefined:
            position = [0.0, 0.0, 0.0]
            points.GetNthControlPointPositionWorld(index, position)
            yield tuple(position)


def _ijk(world: Sequence[float], volumeNode, under=None) -> np.ndarray:
    ras = [0.0, 0.0, 0.0]
    (under or volumeNode).TransformPointFromWorld([float(x) for x in world], ras)
    return np.linalg.solve(placement.ijk_to_ras_of(volumeNode), [*ras, 1])[:3]


def _world(ijk, volumeNode, under=None) -> np.ndarray:
    world, ras = [0.0, 0.0, 0.0], (placement.ijk_to_ras_of(volumeNode) @ [*ijk, 1])[:3]
    (under or volumeNode).TransformPointToWorld(ras.tolist(), world)
    return np.array(world)


def _matrix(vtkMatrix) -> np.ndarray:
    return np.array([[vtkMatrix.GetElement(i, j) for j in range(4)] for i in range(4)])
