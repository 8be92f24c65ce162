"""Surfaces: closed, the right side out, as large as their masks, and where Slicer puts them."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from Testing.support.sample_files import FLIPPED, OBLIQUE, SEGMENTS, SHEARED, STRAIGHT, labels
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.files import FileError, surfaces

pytest.importorskip("vtk")
GRIDS = pytest.mark.parametrize(
    "matrix", [STRAIGHT, OBLIQUE, FLIPPED, SHEARED], ids=["straight", "oblique", "flipped", "sheared"]
)


def ball(radius_mm: float, matrix: np.ndarray, size: int = 60) -> np.ndarray:
    k, j, i = np.mgrid[:size, :size, :size] - size // 2 + 0.3
    ras = np.stack([i, j, k], axis=-1) @ matrix[:3, :3].T
    return np.linalg.norm(ras, axis=-1) < radius_mm


@GRIDS
def test_a_surface_is_closed_outside_out_and_as_large_as_its_mask(matrix):
    spacing_mm = np.linalg.norm(matrix[:3, :3], axis=0).max()
    mask = ball(15 * spacing_mm / 2, matrix)
    surface = surfaces.closed_surface(mask, matrix)
    edges = np.sort(surface.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    _, counts = np.unique(edges, axis=0, return_counts=True)
    assert (counts == 2).all(), "each edge belongs to two triangles"
    assert surfaces.volume_mm3(surface) == pytest.approx(mask.sum() * abs(np.linalg.det(matrix[:3, :3])), rel=0.06)
    centre_lps = (matrix @ [*(np.argwhere(mask).mean(axis=0)[::-1]), 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(surface.points.mean(axis=0), centre_lps, atol=0.05 * spacing_mm)


def test_the_volume_of_an_organ_is_within_a_hundredth_of_its_mask_s(shared_data):
    for name in ("abdomen_3mm_liver.nii.gz", "abdomen_dicom_liver.nii.gz"):
        volume, _ = files.read_volume(shared_data(f"volumes/{name}"), force=True)
        mask = volume.array > 0
        found_ml = surfaces.volume_mm3(surfaces.closed_surface(mask, volume.ijk_to_ras)) / 1000
        assert found_ml == pytest.approx(mask.sum() * volume.voxel_volume_ml, rel=0.01)


@GRIDS
@pytest.mark.parametrize("voxels", [1, 8, 30, 100, 500, 4000])
def test_the_volume_of_a_nodule_is_that_of_its_mask_however_few_voxels_it_has(voxels, matrix):
    k, j, i = np.mgrid[:41, :41, :41] - 20
    ras_mm = np.linalg.norm(np.stack([i, j, k], axis=-1) @ matrix[:3, :3].T, axis=-1)
    mask = ras_mm <= np.sort(ras_mm, axis=None)[voxels - 1]
    surface = surfaces.closed_surface(mask, matrix)
    found_mm3, mask_mm3 = surfaces.volume_mm3(surface), mask.sum() * abs(np.linalg.det(matrix[:3, :3]))
    assert found_mm3 == pytest.approx(mask_mm3, rel=0.01)
    lps = (np.argwhere(mask)[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]) * [-1, -1, 1]
    a_voxel_mm = 1.2 * np.abs(matrix[:3, :3]).sum(axis=1)  # a single one becomes an octahedron
    for end in (np.min, np.max):
        assert (np.abs(end(surface.points, axis=0) - end(lps, axis=0)) < a_voxel_mm).all()


def test_two_nodules_in_one_segment_keep_their_places():
    mask = np.zeros((20, 40, 40), bool)
    mask[5:8, 5:8, 5:8] = mask[12:16, 25:31, 25:31] = True
    matrix = np.diag([-0.7, -0.7, 2.5, 1])
    surface = surfaces.closed_surface(mask, matrix)
    for part, centre_ijk in (
        (surface.points[:, 2] < 10 * 2.5, (6, 6, 6)),
        (surface.points[:, 2] > 10 * 2.5, (27.5, 27.5, 13.5)),
    ):
        centre_lps = (matrix[:3, :3] @ centre_ijk) * [-1, -1, 1]
        np.testing.assert_allclose(surface.points[part].mean(axis=0), centre_lps, atol=0.1)


def read_with_slicer(path):
    """The mesh as Slicer's own storage node reads it: points in RAS, and the triangles."""
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (its wheels are for Python 3.11)")
    from vtk.util.numpy_support import vtk_to_numpy

    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLModelNode")
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetFileName(str(path))
    assert node.GetStorageNode().ReadData(node)
    mesh = node.GetPolyData()
    return vtk_to_numpy(mesh.GetPoints().GetData()), vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)


@GRIDS
@pytest.mark.parametrize("ending", [".stl", ".obj"])
def test_slicer_reads_the_surface_where_the_segment_is(tmp_path, matrix, ending):
    labelmap = np.zeros((30, 32, 34), np.uint8)
    labelmap[3:12, 5:15, 4:16] = 1
    labelmap[15:28, 18:30, 20:33] = 2
    segments = [replace(segment, value=value) for value, segment in enumerate(SEGMENTS[:2], start=1)]
    files.write_surfaces(tmp_path / f"s{ending}", labelmap, matrix, segments)
    theirs = surfaces.Surface(*read_with_slicer(tmp_path / f"s{ending}"))
    ours = [surfaces.closed_surface(labelmap == value, matrix) for value in (1, 2)]
    assert surfaces.volume_mm3(theirs) == pytest.approx(sum(map(surfaces.volume_mm3, ours)), rel=1e-3)
    everything = np.concatenate([surface.points for surface in ours]) * [-1, -1, 1]
    for end in (np.min, np.max):
        np.testing.assert_allclose(end(theirs.points, axis=0), end(everything, axis=0), atol=1e-3)


@GRIDS
def test_a_surface_is_smoothed_as_slicer_smooths_it(matrix):
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (its wheels are for Python 3.11)")
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    mask = ball(20.0, matrix, 40)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=True))
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(matrix))
    rule, mesh = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule(), vtk.vtkPolyData()
    segment = slicer.vtkSegment()
    segment.AddRepresentation("Binary labelmap", image)
    segment.AddRepresentation("Closed surface", mesh)
    assert rule.Convert(segment)
    theirs = vtk_to_numpy(mesh.GetPoints().GetData()) * [-1, -1, 1]
    ours = surfaces.closed_surface(mask, matrix).points
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(theirs, axis=0), atol=1e-3)


def test_a_segment_that_is_empty_has_a_surface_without_triangles(tmp_path):
    for name in ("s.stl", "s.obj"):
        files.write_surfaces(tmp_path / name, np.zeros((2, 3, 4), np.uint8), np.eye(4), SEGMENTS[:1])
    assert (tmp_path / "s.stl").stat().st_size == 84
    assert (tmp_path / "s.obj").read_text().splitlines()[1:] == [f"o {SEGMENTS[0].name}"]


def test_an_obj_has_an_object_for_each_segment_in_its_colour(tmp_path):
    files.write_surfaces(tmp_path / "s.obj", labels(), STRAIGHT, SEGMENTS)
    lines = (tmp_path / "s.obj").read_text(encoding="utf-8").splitlines()
    assert [line[2:] for line in lines if line.startswith("o ")] == [segment.name for segment in SEGMENTS]
    first = next(line for line in lines if line.startswith("v "))
    np.testing.assert_allclose([float(x) * 255 for x in first.split()[4:]], SEGMENTS[0].color, atol=0.1)


def test_without_vtk_surfaces_are_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vtk", None)
    with pytest.raises(FileError, match="pip install vtk"):
        files.write_surfaces(tmp_path / "s.stl", labels(), STRAIGHT, SEGMENTS)
