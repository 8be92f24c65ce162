"""The Segment Editor effect within the editor's masks and grids, on Slicer's real editor logic: what must change, voxel by voxel."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from Testing.support.mrml_scene import TURN, add_linear_transform, add_volume, rotation, slicer
from Testing.support.segment_editor import SCAN, blobs, paint, painted, press, wait
from Testing.support.worker_logic import GRID, expected
from UNetPlusPlusSegmentLib.scene import mrml, placement

SHAPE = SCAN.shape
EDITOR, SEGMENTATION = slicer.vtkMRMLSegmentEditorNode, slicer.vtkMRMLSegmentationNode
MASKS = {
    "everywhere": SEGMENTATION.EditAllowedEverywhere,
    "inside all": SEGMENTATION.EditAllowedInsideAllSegments,
    "inside visible": SEGMENTATION.EditAllowedInsideVisibleSegments,
    "outside all": SEGMENTATION.EditAllowedOutsideAllSegments,
    "outside visible": SEGMENTATION.EditAllowedOutsideVisibleSegments,
    "inside another": SEGMENTATION.EditAllowedInsideSingleSegment,
    "inside itself": SEGMENTATION.EditAllowedInsideSingleSegment,
}
OVERWRITING = {
    "all": EDITOR.OverwriteAllSegments,
    "visible": EDITOR.OverwriteVisibleSegments,
    "none": EDITOR.OverwriteNone,
}


@pytest.mark.parametrize("region", ["none", "all", "box"])
def test_only_what_may_be_edited_changes_and_all_of_it(opened, region):
    at = opened(SCAN, GRID)
    masked_writing = importlib.import_module("SegmentEditorUNetPlusPlusLib.masked_writing")
    hu = slicer.util.arrayFromVolume(at.volume)
    box = np.zeros(SHAPE, bool)
    box[3:11, 5:30, 12:41] = True
    ids = ("selected", "visible", "hidden")
    for number, (mask, overwriting, in_range) in enumerate(itertools.product(MASKS, OVERWRITING, (False, True))):
        *before, found = blobs(number)
        for segment_id, drawn in zip(ids, before, strict=True):
            paint(at, segment_id, drawn)
        at.node.SetMaskMode(MASKS[mask])
        at.node.SetMaskSegmentID("selected" if mask == "inside itself" else "hidden")
        at.node.SetOverwriteMode(OVERWRITING[overwriting])
        at.node.SetSourceVolumeIntensityMask(in_range)
        at.node.SetSourceVolumeIntensityMaskRange(-500, 20)

        selected, visible, hidden = before
        editable = {
            "everywhere": np.ones(SHAPE, bool),
            "inside all": selected | visible | hidden,
            "inside visible": selected | visible,
            "outside all": ~(visible | hidden),
            "outside visible": ~visible,
            "inside another": hidden,
            "inside itself": selected,
        }[mask]
        if in_range:
            editable = editable & (hu >= -500) & (hu <= 20)
        where = {"none": None, "all": True, "box": box}[region]
        emptied = editable & ({"none": False, "all": True, "box": box}[region])
        gained = found & editable & (box if region == "box" else True)
        overwritten = {"all": (visible, hidden), "visible": (visible,), "none": ()}[overwriting]
        others = [
            drawn & ~gained if any(drawn is each for each in overwritten) else drawn for drawn in (visible, hidden)
        ]

        found_there = found & box if region == "box" else found
        masked_writing.write(at.host, masked_writing.changes(at.host, at.volume, found_there, where))
        for segment_id, drawn in zip(ids, (selected & ~emptied | gained, *others), strict=True):
            assert (painted(at, segment_id) == drawn).all(), (mask, overwriting, in_range, segment_id)


def test_apply_inside_another_segment_without_overwriting(opened, models):
    at = opened(SCAN, GRID)
    selected, visible, _hidden, _found = blobs(1)
    paint(at, "selected", selected)
    paint(at, "visible", visible)
    at.node.SetMaskMode(SEGMENTATION.EditAllowedInsideSingleSegment)
    at.node.SetMaskSegmentID("visible")
    at.node.SetOverwriteMode(EDITOR.OverwriteNone)
    press(at, "apply")
    wait(at)
    found = expected(models, SCAN) == 1
    assert (painted(at, "selected") == np.where(visible, found, selected)).all()
    assert (painted(at, "visible") == visible).all()


@pytest.mark.parametrize("limit", ["geometry", "editable area"])
def test_the_message_says_how_much_of_the_finding_could_be_written(opened, models, limit):
    at = opened(SCAN, GRID)
    found = expected(models, SCAN) == 1
    there = np.ones(SHAPE, bool)
    there[6:] = False
    if limit == "geometry":
        at.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(add_volume(SCAN[:6], GRID))
    else:
        paint(at, "visible", there)
        at.node.SetMaskMode(SEGMENTATION.EditAllowedInsideSingleSegment)
        at.node.SetMaskSegmentID("visible")
    press(at, "apply")
    wait(at)
    assert painted(at, "selected").sum() == (found & there).sum()
    share = round(100 * (found & there).sum() / found.sum())
    assert 0 < share < 100 and f"Only {share} % of it is in the editable area" in at.effect._options.message.text


def test_a_segmentation_on_another_grid_gets_the_nearest_voxels(opened, models):
    at = opened(SCAN, GRID, transform=add_linear_transform(TURN))
    finer, turn = GRID @ rotation(11, 0) @ np.diag([0.6, 0.7, 0.5, 1.0]), TURN @ rotation(6, 2)
    finer[:3, 3] += [3.7, 5.3, -2.9]
    shape = (40, 60, 70)
    other = add_volume(np.zeros(shape, np.int16), finer)
    at.segmentation.SetAndObserveTransformNodeID(None)
    at.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(other)
    at.segmentation.SetAndObserveTransformNodeID(add_linear_transform(turn).GetID())
    press(at, "apply")
    wait(at)
    ijk = np.indices(shape).reshape(3, -1)[::-1]
    kji = np.linalg.solve(TURN @ GRID, turn @ finer @ np.vstack([ijk, np.ones_like(ijk[:1])]))[2::-1]
    nearest = np.rint(kji).astype(int)
    outside = (nearest < 0).any(axis=0) | (nearest >= np.array(SHAPE)[:, None]).any(axis=0)
    found = expected(models, SCAN, placement.world_ijk_to_ras(at.volume)) == 1
    wanted = found[tuple(np.where(outside, 0, nearest))] & ~outside
    between = (np.abs(kji - np.floor(kji) - 0.5) < 1e-6).any(axis=0)  # two voxels are equally near
    at.segmentation.SetAndObserveTransformNodeID(None)
    drawn = mrml.labelmap_of(at.segmentation, "selected", other).ravel()
    assert wanted.sum() > 1000
    assert (drawn == wanted)[~between].all()
