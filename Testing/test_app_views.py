"""The views of the app: what they show lies where the scan lies; what is saved is what is shown. Rendered, without a browser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from unittest.mock import AsyncMock

import numpy as np
import pytest
import SimpleITK as sitk

from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume

pytest.importorskip(
    "trame_slicer.core", exc_type=ImportError, reason="trame-slicer is not installed: pip install '.[app]'"
)

from Testing.support.mrml_scene import GRIDS, LIVER_TERMINOLOGY, TURN, slicer, vtk
from Testing.support.sample_files import SERIES, write_slice
from UNetPlusPlusSegmentLib.app.access import Folders
from UNetPlusPlusSegmentLib.app.cases import Case
from UNetPlusPlusSegmentLib.app.corrections import AutoSave, write
from UNetPlusPlusSegmentLib.scene import mrml, showing
from UNetPlusPlusSegmentLib.scene.snapshots import Snapshot, snapshot

SIZE = (260, 200)
SHAPE = (30, 60, 80)  # K, J, I: no two alike
LIVER = Segment(1, "Liver", LIVER_TERMINOLOGY, (255, 0, 0), {})
NODULE = Segment(2, "Nodule 1", LIVER_TERMINOLOGY, (0, 255, 0), {})


def a_mask():
    """Of no symmetry, so that a flip or a swapped axis shows."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[8:22, 12:40, 10:50] = 1
    mask[8:15, 30:50, 40:70] = 1
    return mask


def shown(views, ijk_to_ras, transform=None, labelmap=None):
    """The scan and a segmentation in the views, centred on it."""
    hu = np.random.default_rng(0).integers(-60, 60, SHAPE).astype(np.int16)
    node = views.show(Volume(hu, ijk_to_ras), "CT")
    if transform is not None:
        above = views.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        above.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(transform))
        node.SetAndObserveTransformNodeID(above.GetID())
    for view in views.slices:
        view.update_size(*SIZE)
        view.interactor().InvokeEvent("WindowResizeEvent")
    views.app.display_manager.reset_views()
    labelmap = a_mask() if labelmap is None else labelmap
    segmentation = showing.show_segmentation(labelmap, [LIVER, NODULE][: labelmap.max()], node)
    views.centre(mrml.centre_of(segmentation, segmentation.GetSegmentation().GetNthSegmentID(0)))
    return node, segmentation


def rendered(view):
    """The pixels, (Y, X, RGB), the lowest row first."""
    view.render_window().Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.render_window())
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    return vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(SIZE[1], SIZE[0], -1)[..., :3]


def projected(view, mask, ijk_to_world):
    """True where the slice of a view cuts a mask: worked out here, pixel by pixel."""
    matrix = slicer.util.arrayFromVTKMatrix(view.get_view_node().GetXYToRAS())
    y, x = np.indices(SIZE[::-1])
    world = matrix @ np.stack([x, y, 0 * x, 0 * x + 1]).reshape(4, -1)
    ijk = np.rint(np.linalg.solve(ijk_to_world, world)[:3]).astype(int)
    inside = ((ijk.T >= 0) & (SHAPE[::-1] > ijk.T)).all(axis=1)
    i, j, k = np.where(inside, ijk, 0)
    return ((mask[k, j, i] != 0) & inside).reshape(SIZE[::-1])


@pytest.mark.parametrize(
    ("grid", "transform"), [("oblique", None), ("feet up, left-handed", None), ("sheared", None), ("oblique", TURN)],
    ids=["oblique", "flipped", "tilted", "transformed"],
)  # fmt: skip
def test_the_segmentation_is_drawn_where_the_organ_is(views, grid, transform):
    ijk_to_ras = GRIDS[grid]
    _, segmentation = shown(views, ijk_to_ras, transform)
    display = segmentation.GetDisplayNode()
    display.SetVisibility2DOutline(False)
    display.SetOpacity2DFill(1)
    display.SetAllSegmentsOpacity2DFill(1)
    ijk_to_world = (np.eye(4) if transform is None else transform) @ ijk_to_ras
    for view in views.slices:
        drawn = np.equal(rendered(view), LIVER.color).all(axis=-1)
        expected = projected(view, a_mask(), ijk_to_world)
        assert expected.sum() > 1000
        assert np.count_nonzero(drawn != expected) < 0.06 * expected.sum(), view.name  # the rim: half a pixel


def test_the_ct_is_drawn_in_its_window(views):
    shown(views, GRIDS["as DICOM lies in RAS"])
    view = views.slices[0]
    abdomen = rendered(view).mean()
    views.set_window("Lung")
    lung = rendered(view).mean()
    assert lung > abdomen + 30  # the tissue of -60 to 60 HU is bright in a lung's window


def test_a_click_gives_the_point_under_the_pointer(views):
    shown(views, GRIDS["oblique"])
    points = []
    views.when_clicked(points.append)
    view = views.slices[0]
    view.interactor().SetEventInformation(70, 120, 0, 0, "\0", 0, None)
    view.interactor().InvokeEvent("LeftButtonPressEvent")
    matrix = slicer.util.arrayFromVTKMatrix(view.get_view_node().GetXYToRAS())
    np.testing.assert_allclose(points[0], (matrix @ [70, 120, 0, 1])[:3])


def test_the_probability_lies_over_the_ct(views):
    node, _ = shown(views, GRIDS["oblique"])
    view = views.slices[0]
    before = rendered(view).astype(int)
    views.overlay(showing.show_scalar_volume(a_mask().astype(np.float32), node, "probability"))
    colored = (np.ptp(rendered(view).astype(int), axis=-1) > 60) & (np.abs(rendered(view) - before).sum(axis=-1) > 20)
    assert colored.sum() > 1000
    views.overlay(None)
    np.testing.assert_array_equal(rendered(view), before)


@pytest.mark.parametrize("grid", ["oblique", "feet up, left-handed", "sheared"])
@pytest.mark.parametrize("transform", [None, TURN], ids=["", "transformed"])
def test_a_snapshot_is_the_segmentation_voxel_for_voxel(views, grid, transform):
    labelmap = a_mask()
    labelmap[25:28, 2:5, 70:75] = 2
    node, segmentation = shown(views, GRIDS[grid], transform, labelmap)
    taken = snapshot(segmentation, node)
    np.testing.assert_array_equal(taken.labelmap, labelmap)
    np.testing.assert_allclose(taken.ijk_to_ras, GRIDS[grid], atol=1e-9)
    assert [(each.name, each.color, each.terminology) for each in taken.segments] == [
        (each.name, each.color, each.terminology) for each in (LIVER, NODULE)
    ]


@pytest.mark.parametrize(
    ("step", "shape"),
    [(0.5, (60, 120, 160)), (3.0, (10, 20, 27)), (1.0, (10, 20, 30))],
    ids=["finer", "coarser", "smaller"],
)
def test_a_snapshot_lies_on_the_scan_whatever_the_grid_of_the_segmentation(views, step, shape):
    node, segmentation = shown(views, GRIDS["oblique"], TURN)
    other = views.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    slicer.util.updateVolumeFromArray(other, np.zeros(shape, np.int16))
    other.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(GRIDS["oblique"] @ np.diag([step, step, step, 1])))
    other.SetAndObserveTransformNodeID(node.GetTransformNodeID())
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(other)
    np.testing.assert_array_equal(snapshot(segmentation, node).labelmap, a_mask())


def test_a_tilted_scan_keeps_its_grid_when_its_segmentation_is_saved_and_opened_again(views, tmp_path):
    node, segmentation = shown(views, GRIDS["sheared"])
    taken = snapshot(segmentation, node)
    again = views.load_segmentation(write(taken, Case("a", tmp_path, Folders([tmp_path])), "seg.nrrd", tmp_path))
    found = snapshot(again, node)
    assert found.same_as(taken)
    np.testing.assert_allclose(found.ijk_to_ras, GRIDS["sheared"], atol=1e-9)


def test_what_is_downloaded_is_what_was_shown(views, tmp_path):
    labelmap = a_mask()
    labelmap[25:28, 2:5, 70:75] = 2
    node, segmentation = shown(views, GRIDS["oblique"], labelmap=labelmap)
    taken, case = snapshot(segmentation, node), Case("a/b c", tmp_path, Folders([tmp_path]))
    for kind in ("seg.nrrd", "nifti"):
        path = write(taken, case, kind, tmp_path)
        assert path.name.startswith("a_b_c.")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), labelmap)
    again = views.load_segmentation(write(taken, case, "seg.nrrd", tmp_path))
    assert snapshot(again, node).same_as(taken)
    liver = replace(taken, labelmap=(labelmap == 1).astype(np.uint8), segments=taken.segments[:1])
    reader = vtk.vtkSTLReader()
    reader.SetFileName(str(write(liver, case, "stl", tmp_path)))
    reader.Update()
    inside = np.argwhere(labelmap == 1)[:, ::-1]
    ras = inside @ GRIDS["oblique"][:3, :3].T + GRIDS["oblique"][:3, 3]
    centre = vtk.util.numpy_support.vtk_to_numpy(reader.GetOutput().GetPoints().GetData()).mean(axis=0)
    np.testing.assert_allclose(centre * [-1, -1, 1], ras.mean(axis=0), atol=6)  # STL in LPS, as Slicer writes it


def test_a_dicom_seg_refers_to_the_series(views, tmp_path):
    pytest.importorskip("highdicom")
    who = {
        "PatientName": "A",
        "PatientID": "1",
        "PatientBirthDate": "",
        "PatientSex": "",
        "FrameOfReferenceUID": "1.2.3",
    }
    for k in range(4):
        write_slice(tmp_path / "ct" / f"{k}.dcm", (0, 0, 2.5 * k), InstanceNumber=k, **who)
    for k in range(6):  # the larger series, which is read if none is named
        write_slice(
            tmp_path / "ct" / f"other-{k}.dcm", (0, 0, 2.5 * k), SeriesInstanceUID="1.2.4", InstanceNumber=k, **who
        )
    case = Case("a", tmp_path / "ct", Folders([tmp_path]), SERIES)
    volume, _ = files.read_volume(case.scan, case.series)
    node = views.show(volume, "CT")
    labelmap = np.zeros(volume.array.shape, np.uint8)
    labelmap[1:3, 2:5, 1:6] = 1
    taken = snapshot(showing.show_segmentation(labelmap, [LIVER], node), node)
    import pydicom

    seg = pydicom.dcmread(write(taken, case, "dicom", tmp_path))
    assert seg.Modality == "SEG"
    assert [each.SeriesInstanceUID for each in seg.ReferencedSeriesSequence] == [SERIES]
    assert seg.pixel_array.sum() == labelmap.sum()


def test_a_new_scan_takes_the_place_of_all_that_was_shown(views):
    shown(views, GRIDS["oblique"])
    shown(views, GRIDS["identity"])
    classes = [views.scene.GetNthNode(n).GetClassName() for n in range(views.scene.GetNumberOfNodes())]
    assert classes.count("vtkMRMLScalarVolumeNode") == classes.count("vtkMRMLSegmentationNode") == 1


def test_each_change_is_saved_and_one_that_cannot_be_is_said(tmp_path):
    first = Snapshot(np.zeros((2, 3, 4), np.uint8), (LIVER,), np.eye(4))
    second = replace(first, labelmap=np.ones((2, 3, 4), np.uint8))
    said, now, taken = [], [first], AsyncMock()

    async def changes():
        saving = AutoSave(said.append, taken)
        saving.follow(tmp_path / "a.seg.nrrd", lambda: now[0], first, None)
        saving.changed()
        await saving.finish()
        assert said == []  # nothing had changed
        now[0] = second
        saving.changed()
        await saving.finish()
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.seg.nrrd"))), second.labelmap
        )
        saving.follow(tmp_path / "gone" / "a.seg.nrrd", lambda: first, second, None)
        saving.changed()
        await saving.finish()

    asyncio.run(changes())
    assert said[0] == "Saved: a.seg.nrrd"
    assert "Not saved" in said[1]
    assert len(said) == 2
    assert [each.args[0] for each in taken.await_args_list] == [second, first]


def test_segments_that_overlap_are_neither_saved_nor_downloaded_until_one_is_subtracted(views, tmp_path):
    node, segmentation = shown(views, GRIDS["oblique"])
    below = np.zeros(SHAPE, np.uint8)
    below[8:12, 12:20, 10:30] = 1
    showing.show_segmentation(below, [replace(NODULE, value=1)], node, segmentation)
    editor, said, path = segmentation.GetSegmentation(), [], tmp_path / "a.seg.nrrd"
    case = Case("a", tmp_path, Folders([tmp_path]))

    async def changes():
        saving = AutoSave(said.append, AsyncMock())
        saving.follow(path, lambda: snapshot(segmentation, node), None, None)
        for subtracted in (False, True):
            if subtracted:
                showing.show_segmentation(
                    a_mask() & (1 - below), [LIVER], node, segmentation, inPlaceOf={1: editor.GetNthSegmentID(0)}
                )
            saving.changed()
            await saving.finish()
            assert path.exists() == subtracted

    with pytest.raises(mrml.SegmentationError, match="Liver and Nodule 1 overlap"):
        write(snapshot(segmentation, node), case, "nifti", tmp_path)
    asyncio.run(changes())
    assert said[0].startswith("Not saved: Liver and Nodule 1 overlap")
    assert said[1:] == ["Saved: a.seg.nrrd"]
    assert write(snapshot(segmentation, node), case, "nifti", tmp_path).exists()


def test_what_another_session_saved_is_not_overwritten(tmp_path):
    mine = Snapshot(np.zeros((2, 3, 4), np.uint8), (LIVER,), np.eye(4))
    said, path = [], tmp_path / "a.seg.nrrd"

    async def changes():
        saving = AutoSave(said.append, AsyncMock())
        saving.follow(path, lambda: mine, None, None)
        path.write_text("of another session")
        saving.changed()
        await saving.finish()

    asyncio.run(changes())
    assert path.read_text() == "of another session"
    assert "another session has changed a.seg.nrrd" in said[0]


def test_without_a_screen_vtk_looks_for_none(monkeypatch):
    import os
    import sys

    from UNetPlusPlusSegmentLib.app.views import render_without_a_screen

    monkeypatch.setattr(os, "environ", environment := {"DISPLAY": ":0"})
    render_without_a_screen()
    assert environment == {"DISPLAY": ":0"}
    environment.clear()
    monkeypatch.setattr(sys, "platform", "darwin")  # where there is no X11, and no EGL
    render_without_a_screen()
    assert environment == {}
