"""Surfaces: segments as closed triangle meshes, smoothed as in Slicer, in STL and OBJ files. Needs VTK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..core.segment import Segment
from ..core.volume import bounding_box
from .images import FileError
from .writing import whole_file

OBJ = ".obj"
# Slicer's smoothing factor, 0…1; the lower ones are for segments with few voxels, which would lose too much volume.
SMOOTHINGS = (0.5, 0.25, 0.0)
LITTLE = 0.8  # share of the mask's volume that smoothing must leave
# A surface whose volume differs from the mask's by more than NEAR is moved until it differs by less than EXACT (relative).
NEAR, EXACT = 1e-2, 1e-3
MOST_STEPS = 30
HEADER = "UNetPlusPlusSegment. SPACE=LPS"  # Slicer reads the last word, and assumes LPS if there is none


class Surface(NamedTuple):
    """A closed mesh.

    Attributes:
        points: (points, 3), LPS in mm.
        triangles: (triangles, 3), indices of points, counter-clockwise when seen from outside.
    """

    points: np.ndarray
    triangles: np.ndarray


def check_surfaces() -> None:
    """Refuse, before time is spent, if no surface can be made.

    Raises:
        FileError: VTK is not installed.
    """
    try:
        import vtk  # noqa: F401
    except ImportError as error:
        raise FileError(
            "Surfaces are made with VTK, which is not installed: pip install vtk, or leave out stl and obj."
        ) from error


def closed_surface(mask: np.ndarray, ijk_to_ras: np.ndarray) -> Surface:
    """Make the smoothed surface of a region; it runs half way between the voxels inside and outside.

    Smoothing shrinks small regions, such as nodules. These are smoothed less, and the surface is then moved outwards until it
    encloses the volume of the mask.

    Args:
        mask: bool (K, J, I); may touch the border of the array.
        ijk_to_ras: 4 × 4, in mm.

    Returns:
        The mesh; without points if the mask is empty.

    Source: `vtkBinaryLabelmapToClosedSurfaceConversionRule` (Slicer), with its default smoothing and without its decimation.
    """
    box = bounding_box(mask)
    if box is None:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), int))
    first = [along.start - 1 for along in reversed(box)]
    padded, linear = np.pad(mask[box], 1).astype(np.uint8), ijk_to_ras[:3, :3]
    turn = -1 if np.linalg.det(linear) < 0 else 1  # on a left-handed grid, the triangles would be inside out
    mask_mm3 = np.count_nonzero(padded) * abs(np.linalg.det(linear))
    for smoothing in SMOOTHINGS:
        ijk, triangles = _contour(padded, smoothing)
        ras = (ijk + first) @ linear.T + ijk_to_ras[:3, 3]
        surface = Surface(ras * [-1, -1, 1], triangles[:, ::turn])
        if volume_mm3(surface) > LITTLE * mask_mm3:
            break
    return surface if abs(volume_mm3(surface) / mask_mm3 - 1) < NEAR else _moved_outwards(surface, mask_mm3)


def _contour(voxels: np.ndarray, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (IJK) and triangles of a uint8 array (K, J, I) of 0 and 1; smoothed in voxels, as in Slicer."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    image = vtk.vtkImageData()
    image.SetDimensions(*voxels.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    contour = vtk.vtkDiscreteFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, 1)
    contour.ComputeGradientsOff()
    contour.ComputeNormalsOff()
    smoother = vtk.vtkWindowedSincPolyDataFilter()
    smoother.SetInputConnection(contour.GetOutputPort())
    smoother.SetNumberOfIterations(round(20 + smoothing * 40))
    smoother.SetPassBand(10 ** (-4 * smoothing))
    smoother.BoundarySmoothingOff()
    smoother.FeatureEdgeSmoothingOff()
    smoother.NonManifoldSmoothingOn()
    smoother.NormalizeCoordinatesOn()
    smoother.Update()
    mesh = smoother.GetOutput()
    triangles = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return vtk_to_numpy(mesh.GetPoints().GetData()), triangles


def _moved_outwards(surface: Surface, mm3: float) -> Surface:
    """Move all points of a mesh along its normals by the same distance, until it encloses a volume of `mm3`."""
    for _ in range(MOST_STEPS):
        missing_mm3 = mm3 - volume_mm3(surface)
        if abs(missing_mm3) < EXACT * mm3:
            break
        a, b, c = (surface.points[surface.triangles[:, corner]] for corner in range(3))
        normals = np.cross(b - a, c - a)  # their length is twice the area
        area_mm2 = np.linalg.norm(normals, axis=1).sum() / 2
        outwards = np.zeros(surface.points.shape)
        for corner in range(3):
            np.add.at(outwards, surface.triangles[:, corner], normals)
        outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-30)
        surface = surface._replace(points=surface.points + missing_mm3 / area_mm2 * outwards)
    return surface


def volume_mm3(surface: Surface) -> float:
    """Volume inside a closed mesh; negative if it is inside out."""
    points = np.asarray(surface.points, float)
    # Centred, as far from the origin the result would be a small difference of large numbers.
    points = points - points.mean(axis=0)
    a, b, c = (points[surface.triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def write_surfaces(path: str | Path, labelmap: np.ndarray, ijk_to_ras: np.ndarray, segments: Sequence[Segment]) -> None:
    """Write the surfaces of segments to one file, in mm and LPS, as Slicer reads and writes it.

    Args:
        path: `.stl` (binary) with all segments in one mesh, or `.obj` with a coloured object for each. An existing file is
            replaced once the new one is complete.
        labelmap: uint8 (K, J, I), 0 where there is no segment.
        ijk_to_ras: 4 × 4, in mm.
        segments: The segments to write; an empty one gives no triangles.

    Raises:
        FileError: It cannot be written, or VTK is not installed.
    """
    check_surfaces()
    surfaces = [closed_surface(labelmap == segment.value, ijk_to_ras) for segment in segments]
    with whole_file(path) as beside, beside.open("wb") as stream:
        if str(path).lower().endswith(OBJ):
            stream.writelines(_obj(segments, surfaces))
        else:
            _write_stl(stream, surfaces)


def _write_stl(stream: BinaryIO, surfaces: Sequence[Surface]) -> None:
    corners = np.concatenate([np.zeros((0, 3, 3)), *(surface.points[surface.triangles] for surface in surfaces)])
    facets = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facets["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    facets["corners"] = corners
    stream.write(HEADER.encode().ljust(80))
    stream.write(np.uint32(len(facets)).astype("<u4").tobytes())
    stream.write(facets.tobytes())


def _obj(segments: Sequence[Segment], surfaces: Sequence[Surface]) -> Iterator[bytes]:
    yield f"# {HEADER}\n".encode()
    first = 1  # OBJ numbers points from 1, across all objects
    for segment, surface in zip(segments, surfaces, strict=True):
        red, green, blue = (channel / 255 for channel in segment.color)
        yield f"o {' '.join(segment.name.split())}\n".encode()
        colour = f"{red:.4f} {green:.4f} {blue:.4f}"
        yield from (f"v {x:.4f} {y:.4f} {z:.4f} {colour}\n".encode() for x, y, z in surface.points)
        yield from ("f {} {} {}\n".format(*corners).encode() for corners in surface.triangles + first)
        first += len(surface.points)
