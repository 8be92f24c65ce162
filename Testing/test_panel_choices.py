"""What the panel offers and what is chosen in it: volumes, boxes, frames, rows of the table, and points for nodules."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.mrml_scene import (
    TURN,
    add_linear_transform,
    add_volume,
    segments_of,
    slicer,
)
from Testing.support.panel import (
    click_apply,
    segmentation_of,
    table_of,
    wait_for_end,
)
from Testing.support.sequences import add_sequence
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.slicer_qt.widgets import qMRMLNodeComboBox
from Testing.support.worker_logic import GRID, a_scan


@pytest.mark.parametrize("late", [True, False], ids=["selector takes it", "selector does not"])
def test_a_volume_that_is_loaded_later_is_chosen(panel, scene, monkeypatch, late):
    monkeypatch.setattr(qMRMLNodeComboBox, "selects_late", late)
    volumeNode = add_volume(a_scan(), GRID)
    assert panel.ui.inputSelector.currentNode() is volumeNode
    assert panel.ui.applyButton.enabled


def test_what_is_chosen_is_what_a_run_and_a_cohort_are_asked_for(panel, scene):
    volumeNode = add_volume(a_scan(), GRID)
    asked = [(panel._choices.request("new"), panel._choices.cohortRequest())]
    panel.ui.forceCheckBox.checked = True
    panel.ui.speedComboBox.setCurrentText("Fast")
    panel.ui.thresholdSlider.value = 0.3
    asked.append((panel._choices.request("replace"), panel._choices.cohortRequest()))
    keys = ("speed", "threshold", "force", "device")
    for (one, cohort), chosen in zip(asked, [("balanced", 0.5, False, "cpu"), ("fast", 0.3, True, "cpu")], strict=True):
        assert one["volumeNode"] is volumeNode
        assert one["target"].lower() == cohort.target.lower() == "liver"
        assert tuple(one[key] for key in keys) == tuple(getattr(cohort, key) for key in keys) == chosen
    assert [one["existing"] for one, _ in asked] == ["new", "replace"]


def test_the_time_left_is_told_in_seconds_or_minutes(panel):
    from UNetPlusPlusSegmentUILib.messages import timeLeft

    assert [timeLeft(s) for s in (0.2, 59, 60, 200)] == ["1 s left", "59 s left", "1 min left", "3 min left"]


def test_another_volume_gets_a_segmentation_of_its_own(panel, scene):
    ui = panel.ui
    add_volume(a_scan(), GRID, "first")
    click_apply(ui)
    wait_for_end(panel)
    ui.inputSelector.setCurrentNode(add_volume(a_scan(), GRID, "second", add_linear_transform(TURN)))
    assert ui.outputSelector.currentNode() is None
    click_apply(ui)
    wait_for_end(panel)
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert names == ["first segmentation", "second segmentation"]
    assert ui.resultsBox.text == "Results for second (before edits)"


def test_after_a_volume_is_removed_the_next_one_gets_a_segmentation_of_its_own(panel, scene):
    ui = panel.ui
    first = add_volume(a_scan(), GRID, "first")
    click_apply(ui)
    wait_for_end(panel)
    scene.RemoveNode(first)
    second = add_volume(a_scan(), GRID, "second")
    assert ui.inputSelector.currentNode() is second
    assert ui.outputSelector.currentNode() is None


def test_a_new_box_spans_the_volume_and_bounds_the_run(panel, scene):
    ui = panel.ui
    volumeNode = add_volume(a_scan(), GRID, transform=add_linear_transform(TURN))
    roi = ui.roiSelector.addNode()
    bounds, inside = [0.0] * 6, [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    roi.GetRASBounds(inside)
    np.testing.assert_allclose(inside, bounds, atol=1e-3)
    click_apply(ui)
    wait_for_end(panel)
    whole = float(table_of(ui)[0][1])
    (segmentID,) = panel._run.segmentIDs
    center = segmentation_of(scene).GetSegmentCenterRAS(segmentID)
    roi.SetCenterWorld(center)
    roi.SetSizeWorld([30.0] * 3)
    dialogs.answers.append("Replace")
    click_apply(ui)
    wait_for_end(panel)
    assert 0 < float(table_of(ui)[0][1]) < whole


def test_frames_of_a_sequence_are_offered_where_there_are_any_and_segmented_all(panel, scene, tmp_path):
    ui = panel.ui
    add_volume(a_scan(), GRID, "alone")
    assert not ui.allFramesCheckBox.isVisibleTo(ui.inputsBox)
    volumeNode, browser = add_sequence([a_scan(), a_scan()], GRID)
    ui.inputSelector.setCurrentNode(volumeNode)
    assert ui.allFramesCheckBox.isVisibleTo(ui.inputsBox)
    ui.allFramesCheckBox.checked = True
    assert not ui.outputsBox.enabled
    click_apply(ui)
    wait_for_end(panel)
    assert [row[0] for row in table_of(ui)] == ["Liver (frame 1)", "Liver (frame 2)"]
    ui.resultsTable.cellClicked(1, 0)
    assert browser.GetSelectedItemNumber() == 1
    dialogs.answers.append(str(tmp_path / "frames.csv"))
    ui.saveButton.click()
    with (tmp_path / "frames.csv").open(encoding="utf-8") as stream:
        saved = [(row["segment"], row["speed"], row["model"]) for row in csv.DictReader(stream)]
    assert saved == [(f"Liver (frame {n})", "balanced", "bright-v1.0.0") for n in (1, 2)]
    ui.thresholdSlider.value = 0.7
    assert "applies to the next run" in ui.messageLabel.text


def test_a_click_on_a_row_centres_the_slice_views_on_the_segment(panel, scene):
    views = [scene.AddNewNodeByClass("vtkMRMLSliceNode") for _ in range(2)]
    add_volume(a_scan(), GRID, transform=add_linear_transform(TURN))
    click_apply(panel.ui)
    wait_for_end(panel)
    panel.ui.resultsTable.cellClicked(0, 0)
    center = segmentation_of(scene).GetSegmentCenterRAS(panel._run.segmentIDs[0])
    for view in views:
        toRAS = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
        np.testing.assert_allclose(toRAS[:3, 3], center, atol=1e-6)


def test_the_table_says_how_far_to_trust_a_segment_and_a_click_goes_to_a_doubtful_slice(panel, scene, models):
    fitted = {"intercept": 0.0, "weights": {"doubtful": 1.0}, "low": -0.5, "high": 0.5}
    card = json.loads((models / "bright-v1.0.0" / "model.json").read_text())
    label = {**card["labels"][0], "expected_dice": {"balanced": fitted}}
    bundle = bright_bundle(models / "bright-v2.0.0", labels=[label])
    try:
        panel.enter()
        panel.ui.modelComboBox.setCurrentText("bright-v2.0.0")
        view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
        scan = a_scan()
        scan[12, 8:25, 15:40] = 62  # the bright network is not sure of it
        scan[10:15, 8:25, :15] = 90
        add_volume(scan, GRID)
        click_apply(panel.ui)
        wait_for_end(panel)
        table, (row,) = panel.ui.resultsTable, table_of(panel.ui)
        header = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
        shown = dict(zip(header, row, strict=True))
        ((_, found),) = panel._run.rows
        assert shown["Expected Dice"].startswith(f"{found['expected_dice']:.2f} (")
        assert float(shown["Doubtful (%)"]) == pytest.approx(100 * found["doubtful_share"], abs=0.5)
        assert shown["Cut by the scan"] == "left"  # by this grid
        point = found["doubtful_slices_ras"][0]
        assert shown["Check 1 (mm)"] == f"S {point[2]:.0f}"
        table.cellClicked(0, header.index("Check 1 (mm)"))
        np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3], point, atol=1e-6)
        assert np.linalg.solve(GRID, [*point, 1])[2] == pytest.approx(12, abs=1e-3)
        assert found["doubtful_slices"][0]["k"] == 12
    finally:
        shutil.rmtree(bundle.folder)


def test_points_are_offered_for_nodules_alone(panel, models):
    ui = panel.ui
    assert not ui.targetComboBox.isVisibleTo(ui.inputsBox)
    nodules = bright_nodule_bundle(models / "spots-v1.0.0")
    try:
        panel.enter()
        assert ui.targetComboBox.isVisibleTo(ui.inputsBox)
        assert not ui.pointsSelector.isVisibleTo(ui.inputsBox)
        ui.targetComboBox.setCurrentText("Nodule")
        assert ui.pointsSelector.isVisibleTo(ui.inputsBox)
        points = ui.pointsSelector.addNode()
        assert ui.pointsPlaceWidget.currentNode() is points
        assert points.GetDisplayNode() is not None
    finally:
        shutil.rmtree(nodules.folder)


def test_a_point_in_a_nodule_gives_it_a_segment_and_a_row_with_its_axes(panel, scene, models):
    ui = panel.ui
    bundle = bright_nodule_bundle(models / "spots-v1.0.0")
    try:
        panel.enter()
        ui.targetComboBox.setCurrentText("Nodule")
        chest = np.full((30, 80, 80), -850, np.int16) + np.random.default_rng(0).integers(
            -30, 30, (30, 80, 80), np.int16
        )
        k, j, i = np.ogrid[:30, :80, :80]
        for center, radius in (((12, 40, 30), 6), ((20, 20, 60), 4)):
            inside = sum((axis - at) ** 2 for axis, at in zip((k, j, i), center, strict=True)) <= radius**2
            chest[inside] = 40
        volumeNode = add_volume(chest, np.diag([-1.0, -1.0, 1.0, 1.0]), "Chest", add_linear_transform(TURN))
        points = ui.pointsSelector.addNode()
        for ijk in ((30, 40, 12), (60, 20, 20)):
            world = [0.0, 0.0, 0.0]
            volumeNode.TransformPointToWorld([-ijk[0], -ijk[1], ijk[2]], world)
            points.AddControlPointWorld(*world)
        click_apply(ui)
        wait_for_end(panel)
        rows = table_of(ui)
        assert [row[0] for row in rows] == ["Nodule 1", "Nodule 2"]
        assert float(rows[0][1]) == pytest.approx(4 / 3 * np.pi * 6**3 / 1000, rel=0.15)
        assert float(rows[0][4]) == pytest.approx(12, abs=1.5)
        assert rows[0][5] == "solid"
        assert ui.resultsBox.text == "Results for Chest (before edits)"
        assert not ui.roiSelector.enabled  # the points say where to look
        first = panel._run.measurements["Nodule 1"]["centroid_ras"]
        expected = [0.0, 0.0, 0.0]
        points.GetNthControlPointPositionWorld(0, expected)
        np.testing.assert_allclose(first, expected, atol=0.5)
        dialogs.answers.append(str(models / "table.csv"))
        ui.saveButton.click()
        with (models / "table.csv").open(encoding="utf-8") as stream:
            assert {"centroid_r_mm", "centroid_a_mm", "centroid_s_mm"} < set(next(csv.reader(stream)))
        segmentation_of(scene).GetSegmentation().RemoveSegment(panel._run.segmentIDs[0])  # it was none
        ui.resultsTable.cellClicked(0, 0)
        assert table_of(ui) == rows[1:]
        ui.resultsTable.cellClicked(0, 0)
        dialogs.answers.append("Replace")
        points.RemoveNthControlPoint(0)
        click_apply(ui)
        wait_for_end(panel)
        assert "Nodule 2" in dialogs.seen[-1]
        assert [each.GetName() for each in segments_of(segmentation_of(scene)).values()] == ["Nodule 1"]
    finally:
        shutil.rmtree(bundle.folder)
