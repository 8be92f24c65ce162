"""The panel as its user meets it: the real .ui, the real worker process and real MRML, on a stand-in for Slicer's Qt."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.mrml_scene import (
    TURN,
    add_hand_made_segments,
    add_linear_transform,
    add_volume,
    all_about,
    nothing_changes,
    segments_of,
    slicer,
    take_messages,
)
from Testing.support.panel import LICENCE_ACCEPTED, MODULE_FILE, add_chest_ct, click_apply, qt, table_of, wait_for_end
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.slicer_qt.widgets import qMRMLNodeComboBox
from Testing.support.worker_logic import GRID, LONG, a_scan
from UNetPlusPlusSegmentLib.core.table import COLUMNS
from UNetPlusPlusSegmentLib.jobs.worker_client import Worker
from UNetPlusPlusSegmentLib.scene import mrml, pytorch_install


@pytest.fixture(scope="module")
def worker():
    """One real worker process for all panels: loading torch takes seconds."""

    class LastingWorker(Worker):
        def close(self) -> None:
            """Only what is under way ends; the process serves the next panel."""
            for job in self._under_way():
                self.cancel(job)
            while self.busy:
                self.poll()
                time.sleep(0.01)

    worker = LastingWorker()
    yield worker
    super(LastingWorker, worker).close()


@pytest.fixture
def panel(models, worker, monkeypatch, request):
    """The open panel, with a model that finds what is bright; the worker uses the processor."""
    monkeypatch.setattr("UNetPlusPlusSegmentLib.scene.logic.Worker", lambda: worker)
    panel = request.getfixturevalue("frame").self()
    panel.ui.deviceComboBox.setCurrentText("CPU")
    return panel


def start_long_run(panel) -> None:
    """A run of which some slices are done."""
    add_volume(a_scan(LONG), GRID, "Abdomen")
    panel.ui.speedComboBox.setCurrentText("Accurate")
    click_apply(panel.ui)
    wait_until(lambda: panel.ui.progressBar.value > 0)


SAVED_BY_0_1 = """<MRML version="slicer-core 4.0.0 0">
<ScriptedModule id="vtkMRMLScriptedModuleNodeUNetPlusPlusSegment" name="UNetPlusPlusSegment" hideFromEditors="true"
  singletonTag="UNetPlusPlusSegment" attributes="ModuleName:UNetPlusPlusSegment"
  references="inputVolume:vtkMRMLScalarVolumeNode2;outputSegmentation:vtkMRMLSegmentationNode1;points:vtkMRMLMarkupsFiducialNode1;roi:vtkMRMLMarkupsROINode1;"
  parameter0= "allFrames True" parameter1= "device CPU" parameter2= "force True" parameter3= "inputVolume "
  parameter4= "model bright-v1.0.0" parameter5= "outputSegmentation " parameter6= "points "
  parameter7= "probabilityMap True" parameter8= "roi " parameter9= "speed FAST" parameter10= "target LIVER"
  parameter11= "threshold 0.37" parameter12= "uncertaintyMap True"></ScriptedModule>
<Volume id="vtkMRMLScalarVolumeNode1" name="Chest"></Volume>
<Volume id="vtkMRMLScalarVolumeNode2" name="Abdomen"></Volume>
<MarkupsFiducial id="vtkMRMLMarkupsFiducialNode1" name="P"></MarkupsFiducial>
<MarkupsROI id="vtkMRMLMarkupsROINode1" name="R"></MarkupsROI>
<Segmentation id="vtkMRMLSegmentationNode1" name="Abdomen segmentation"></Segmentation>
</MRML>"""


def segmentation_of(scene):
    return scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")


# The story


def test_a_user_segments_a_ct_cancels_tries_again_and_comes_back_to_the_saved_scene(frame, scene, tmp_path):
    panel, ui = frame.self(), frame.self().ui
    assert (ui.applyButton.text, ui.applyButton.enabled) == ("Apply", False)
    assert "Load a CT" in ui.messageLabel.text
    ct = add_chest_ct()
    assert ui.inputSelector.currentNode() is ct
    ui.deviceComboBox.setCurrentText("CPU")
    ui.speedComboBox.setCurrentText("Accurate")

    click_apply(ui)
    assert (ui.applyButton.text, ui.inputsBox.enabled) == ("Cancel", False)
    wait_until(lambda: ui.progressBar.value > 0)
    assert ui.progressBar.format.startswith("Slices ")
    assert ui.messageLabel.text.startswith("Running on cpu")
    assert "GB of memory free" in ui.messageLabel.text
    with nothing_changes(scene):
        ui.applyButton.click()
        wait_for_end(panel)
    assert ui.messageLabel.text == "Cancelled."

    ui.speedComboBox.setCurrentText("Fast")
    click_apply(ui)
    wait_for_end(panel)
    assert ui.messageLabel.text.startswith("Done in ")
    segmentation = ui.outputSelector.currentNode()
    assert segmentation.GetName() == "CTChest segmentation"
    ((name, volume_ml, mean_hu, *_),) = table_of(ui)
    assert name == "Liver"
    assert 300 < float(volume_ml) < 3000
    assert 0 < float(mean_hu) < 120
    ui.resultsTable.cellClicked(0, 0)

    ui.thresholdSlider.value = 0.8
    wait_until(lambda: table_of(ui)[0][1] != volume_ml)
    assert float(table_of(ui)[0][1]) < float(volume_ml)
    ((key, segment),) = segments_of(segmentation).items()
    mask, terminology = mrml.labelmap_of(segmentation, key, ct), segment.GetTerminology()

    for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
        if node.GetClassName() in ("vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"):
            node.AddDefaultStorageNode()
            node.GetStorageNode().SetFileName(
                str(tmp_path / f"{node.GetID()}.{'seg.' * node.IsA('vtkMRMLSegmentationNode')}nrrd")
            )
            assert node.GetStorageNode().WriteData(node)
    saved = tmp_path / "scene.mrml"
    assert scene.Commit(str(saved))
    scene.Clear(False)
    assert (ui.resultsTable.rowCount, ui.applyButton.enabled) == (0, False)

    scene.SetURL(str(saved))
    assert scene.Import()
    take_messages()  # the wheel lacks what Slicer's colour nodes are read with
    assert ui.inputSelector.currentNode().GetName() == "CTChest"
    assert ui.outputSelector.currentNode().GetName() == "CTChest segmentation"
    assert ui.thresholdSlider.value == 0.8
    assert ui.deviceComboBox.currentText == "CPU"
    ((key, segment),) = segments_of(ui.outputSelector.currentNode()).items()
    assert (segment.GetName(), segment.GetTerminology()) == ("Liver", terminology)
    loaded = mrml.labelmap_of(ui.outputSelector.currentNode(), key, ui.inputSelector.currentNode())
    np.testing.assert_array_equal(loaded, mask)

    dialogs.answers.append("Replace")
    click_apply(ui)
    wait_for_end(panel)
    assert [row[0] for row in table_of(ui)] == ["Liver"]
    assert list(segments_of(ui.outputSelector.currentNode())) == [key]


def test_a_scene_that_0_1_saved_brings_its_settings(panel, scene, tmp_path):
    saved = tmp_path / "saved.mrml"
    saved.write_text(SAVED_BY_0_1)
    scene.SetURL(str(saved))
    assert scene.Import()
    take_messages()
    ui, parameters = panel.ui, panel._parameterNode
    chosen = {
        "inputVolume": "Abdomen", "outputSegmentation": "Abdomen segmentation", "points": "P", "roi": "R"
    }  # fmt: skip
    assert {name: getattr(parameters, name).GetName() for name in chosen} == chosen
    assert (parameters.target.casefold(), parameters.model) == ("liver", "bright-v1.0.0")
    assert ui.targetComboBox.currentText == "Liver"
    for box in (ui.allFramesCheckBox, ui.forceCheckBox, ui.probabilityCheckBox, ui.uncertaintyCheckBox):
        assert box.checked
    assert (ui.speedComboBox.currentText, ui.deviceComboBox.currentText) == ("Fast", "CPU")
    assert ui.thresholdSlider.value == 0.37


# What is asked


def test_a_segment_that_is_there_already_is_replaced_kept_or_left_as_the_user_says(panel, scene):
    ui = panel.ui
    add_volume(a_scan(), GRID, "Abdomen")
    add_hand_made_segments()
    ui.outputSelector.setCurrentNode(segmentation_of(scene))
    by_hand = all_about(segmentation_of(scene))
    for answer, names in (("", ["Liver"]), ("Add new", ["Liver", "Liver_1"]), ("Replace", ["Liver", "Liver_1"])):
        if answer:
            dialogs.answers.append(answer)
        click_apply(ui)
        wait_for_end(panel)
        now = all_about(segmentation_of(scene))
        assert {key: now[key] for key in by_hand} == by_hand
        assert [segment.GetName() for segment in segments_of(segmentation_of(scene)).values()][2:] == names
    dialogs.answers.append("Cancel")
    with nothing_changes(scene, segmentation_of(scene)):
        click_apply(ui)
        assert ui.applyButton.text == "Apply"
    assert "already contains Liver" in dialogs.seen[-1]


def test_the_licence_is_accepted_once_and_nothing_runs_before(panel, scene):
    add_volume(a_scan(), GRID)
    qt.QSettings().setValue(LICENCE_ACCEPTED, False)
    dialogs.answers.append("Cancel")
    with nothing_changes(scene):
        click_apply(panel.ui)
        assert panel.ui.applyButton.text == "Apply"
    dialogs.answers.append("OK")
    click_apply(panel.ui)
    wait_for_end(panel)
    assert "non-commercial research" in dialogs.seen[-1]
    seen = len(dialogs.seen)
    dialogs.answers.append("Replace")
    click_apply(panel.ui)
    wait_for_end(panel)
    assert len(dialogs.seen) == seen + 1


def test_a_chosen_node_that_is_removed_leaves_none_and_no_other_in_its_place(panel, scene):
    chosen = {
        "points": "vtkMRMLMarkupsFiducialNode",
        "roi": "vtkMRMLMarkupsROINode",
        "outputSegmentation": "vtkMRMLSegmentationNode",
    }
    for name, kind in chosen.items():
        node, _other = (scene.AddNewNodeByClass(kind) for _ in range(2))
        setattr(panel._parameterNode, name, node)
        scene.RemoveNode(node)
        assert getattr(panel._parameterNode, name) is None
    for selector in (panel.ui.pointsSelector, panel.ui.roiSelector, panel.ui.outputSelector):
        assert selector.currentNode() is None


def test_a_hidden_volume_is_not_chosen_for_the_user(panel, scene):
    hidden = add_volume(a_scan(), GRID, "hidden")
    panel._parameterNode.inputVolume = None
    hidden.SetHideFromEditors(True)
    panel.enter()
    assert panel._parameterNode.inputVolume is None


def test_a_panel_that_is_entered_again_stays_bound_as_it_is(panel):
    bound = panel._parameterNode
    panel.enter()
    assert panel._parameterNode is bound


def test_without_pytorch_the_panel_opens_explains_and_says_where_to_get_it(panel, scene, monkeypatch):
    monkeypatch.setattr(pytorch_install, "is_installed", lambda: False)
    panel.enter()
    add_volume(a_scan(), GRID)
    assert "PyTorch is not installed" in panel.ui.messageLabel.text
    dialogs.answers.append("OK")
    with nothing_changes(scene):
        click_apply(panel.ui)
    assert "Extensions Manager" in dialogs.seen[-1]
    assert panel.ui.applyButton.text == "Apply"


# What goes wrong


def test_a_volume_that_is_not_ct_is_refused_and_the_next_one_works(panel, scene):
    ui = panel.ui
    add_volume(a_scan() + 1024, GRID, "MR")
    dialogs.answers.append("OK")
    with nothing_changes(scene):
        click_apply(ui)
        wait_for_end(panel)
    assert "does not look like CT" in ui.messageLabel.text
    assert ui.messageLabel.text == dialogs.seen[-1]
    ui.inputSelector.setCurrentNode(add_volume(a_scan(), GRID, "CT"))
    assert ui.messageLabel.text == ""
    click_apply(ui)
    wait_for_end(panel)
    assert table_of(ui)[0][0] == "Liver"


def test_a_scene_that_is_closed_or_a_volume_that_goes_in_mid_run_ends_the_run(panel, scene):
    start_long_run(panel)
    scene.Clear(False)
    wait_until(lambda: not panel.logic.busy)
    assert (panel.ui.applyButton.text, panel.ui.applyButton.enabled) == ("Apply", False)
    assert scene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode") == 0
    start_long_run(panel)
    dialogs.answers.append("OK")
    scene.RemoveNode(panel.ui.inputSelector.currentNode())
    wait_for_end(panel)
    assert "was removed from the scene" in dialogs.seen[-1]
    assert segmentation_of(scene) is None


def test_a_scene_that_is_loaded_while_the_panel_is_closed_lets_the_run_end_well(panel, frame, scene, tmp_path):
    add_volume(a_scan(), GRID, "Abdomen")
    click_apply(panel.ui)
    frame.exit()
    empty = tmp_path / "empty.mrml"
    empty.write_text("<MRML version='1'></MRML>")
    scene.SetURL(str(empty))
    scene.Import()
    take_messages()
    wait_for_end(panel)
    assert [each.GetName() for each in segments_of(segmentation_of(scene)).values()] == ["Liver"]
    frame.enter()
    assert panel.ui.inputSelector.currentNode().GetName() == "Abdomen"


@pytest.mark.slow(reason="starts ten processes that load torch")
def test_a_worker_that_is_killed_at_any_moment_leaves_no_half_result_and_the_next_apply_works(panel, scene):
    moments = np.random.default_rng(0).uniform(0, 6, 10)
    add_volume(a_scan(LONG), GRID, "Abdomen")
    panel.ui.speedComboBox.setCurrentText("Accurate")
    panel.ui.probabilityCheckBox.checked = True
    for moment in moments:
        with nothing_changes(scene):
            click_apply(panel.ui)
            begun = time.monotonic()
            wait_until(lambda begun=begun, moment=moment: time.monotonic() - begun > moment)
            if panel.ui.applyButton.text == "Apply":  # done before
                pytest.fail("the run was over before the worker was killed: make it longer")
            dialogs.answers.append("OK")
            os.kill(panel.logic._worker.pid, signal.SIGKILL)
            wait_for_end(panel)
        assert "killed by the operating system" in panel.ui.messageLabel.text
    panel.ui.speedComboBox.setCurrentText("Balanced")
    click_apply(panel.ui)
    wait_for_end(panel)
    assert table_of(panel.ui)[0][0] == "Liver"


def test_a_run_that_ends_while_others_poll_is_shown_all_the_same(panel, scene):
    add_volume(a_scan(), GRID)
    click_apply(panel.ui)
    while panel.logic.busy:  # as the effect's timer does, or a script
        panel.logic.poll()
    wait_for_end(panel)
    assert panel.ui.messageLabel.text.startswith("Done in ")
    assert panel.ui.outputSelector.currentNode() is segmentation_of(scene)


# The main thread


def test_no_slot_waits_for_the_network(panel, scene):
    start_long_run(panel)
    seen = [panel.ui.progressBar.value]
    while len(seen) < 5:  # the window comes alive between two words of the worker, while the run goes on
        slicer.app.processEvents()
        assert panel.ui.applyButton.text == "Cancel"
        if panel.ui.progressBar.value > seen[-1]:
            seen.append(panel.ui.progressBar.value)
        time.sleep(0.002)
    panel.ui.applyButton.click()
    wait_for_end(panel)


# What is chosen


@pytest.mark.parametrize("late", [True, False], ids=["selector takes it", "selector does not"])
def test_a_volume_that_is_loaded_later_is_chosen(panel, scene, monkeypatch, late):
    monkeypatch.setattr(qMRMLNodeComboBox, "selects_late", late)
    volumeNode = add_volume(a_scan(), GRID)
    assert panel.ui.inputSelector.currentNode() is volumeNode
    assert panel.ui.applyButton.enabled


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
    sequences = slicer.modules.sequences.logic()
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "beat")
    for item in range(2):
        each = add_volume(a_scan(), GRID)
        sequence.SetDataNodeAtValue(each, str(item))
        scene.RemoveNode(each)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    sequences.UpdateProxyNodesFromSequences(browser)
    ui.inputSelector.setCurrentNode(browser.GetProxyNode(sequence))
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


# Results


def test_the_table_is_copied_and_saved_with_the_columns_of_the_command_line(panel, scene, tmp_path):
    add_volume(a_scan(), GRID, "Abdomen")
    click_apply(panel.ui)
    wait_for_end(panel)
    panel.ui.copyButton.click()
    lines = slicer.app.clipboard().text().splitlines()
    header, row = (line.split("\t") for line in lines)
    assert header[:3] == ["Segment", "Volume (ml)", "Mean HU"]
    assert row == table_of(panel.ui)[0]
    dialogs.answers.append(str(tmp_path / "table"))
    panel.ui.saveButton.click()
    with (tmp_path / "table.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert list(row) == list(COLUMNS)
    assert (row["case"], row["segment"], row["speed"]) == ("Abdomen", "Liver", "balanced")
    volume_ml = panel._run.measurements["Liver"]["volume_ml"]
    assert float(row["volume_ml"]) == pytest.approx(volume_ml, rel=1e-3)
    dialogs.answers.extend([str(tmp_path / "nowhere" / "table.csv"), "OK"])
    panel.ui.saveButton.click()
    assert "could not be written" in dialogs.seen[-1]


def test_nodules_get_columns_of_their_own(panel):
    class Run:
        running, result, error, volumeNode = False, None, None, None
        rows = (
            ("Nodule 1", {"volume_ml": 0.8421, "mean_hu": -12.4, "long_axis_mm": 14.26, "short_axis_mm": 9.1,
                          "mean_diameter_mm": 11.7, "kind": "part-solid"}),
            ("Nodule 2", {"volume_ml": 0.1, "mean_hu": 40.0, "long_axis_mm": 6.0, "short_axis_mm": 5.0,
                          "mean_diameter_mm": 5.5, "kind": "solid"}),
        )  # fmt: skip

    panel._results.show(Run())
    table = panel.ui.resultsTable
    header = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
    assert header == ["Segment", "Volume (ml)", "Mean HU", "Axes (mm)", "Diameter (mm)", "Kind"]
    assert table_of(panel.ui)[0] == ["Nodule 1", "0.84", "-12", "14.3 × 9.1", "11.7", "part-solid"]


def test_a_model_that_cannot_be_used_is_named_with_the_reason(panel, models):
    broken = models / "broken-v1.0.0"
    broken.mkdir()
    (broken / "model.json").write_text("{}")
    try:
        add_volume(a_scan(), GRID)
        panel.enter()
        assert "broken-v1.0.0" in panel.ui.messageLabel.text
        assert panel.ui.applyButton.enabled
    finally:
        shutil.rmtree(broken)


def test_the_models_folder_is_made_and_opened(panel, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "Ärzte und Modelle"))
    panel.ui.modelsFolderButton.click()
    (address,) = dialogs.opened
    assert address.startswith("file://")
    assert (tmp_path / "Ärzte und Modelle" / "UNetPlusPlusSegment" / "Models").is_dir()


# The module


def test_reload_ends_the_worker_and_opens_a_new_panel(models, frame, scene):
    panel = frame.self()
    add_volume(a_scan(), GRID)
    click_apply(panel.ui)
    wait_for_end(panel)
    process = panel.logic._worker._process
    panel.onReload()
    reloaded = slicer.modules.UNetPlusPlusSegmentWidget
    assert reloaded is not panel
    wait_until(lambda: process.has_ended)
    assert reloaded.ui.inputSelector.currentNode() is not None
    assert slicer.util.getModuleLogic("UNetPlusPlusSegment") is reloaded.logic


def test_sample_data_and_terms_are_registered_at_start_up(frame):
    (sample,) = slicer.modules.sampleDataSources["UNetPlusPlusSegment"]
    assert sample["checksums"].startswith("SHA256:")
    assert Path(sample["thumbnailFileName"]).is_file()
    terms = slicer.modules.terminologies.logic()
    context = "Segmentation category and type - UNet++ Segment"
    assert terms.IsTerminologyContextLoaded(context)
    for label, code in (("liver", "10200004"), ("lung nodule", "27925004")):
        entry = slicer.vtkSlicerTerminologyEntry()
        assert terms.FindTypeInTerminologyBy3dSlicerLabel(context, label, entry)
        assert entry.GetTypeObject().GetCodeValue() == code


def test_the_terms_are_those_of_the_models():
    path = MODULE_FILE.parent / "Resources/Terminologies/UNetPlusPlusSegment.term.json"
    categories = json.loads(path.read_text(encoding="utf-8"))["SegmentationCodes"]["Category"]
    codes = {f"SCT^{each['CodeValue']}^{each['CodeMeaning']}" for c in categories for each in c["Type"]}
    from UNetPlusPlusSegmentLib.network.bundle import find_bundles
    from UNetPlusPlusSegmentLib.nodule.segments import TERMINOLOGY

    used = [label.terminology for bundle in find_bundles()[0] for label in bundle.labels] + [TERMINOLOGY]
    assert {terminology.split("~")[2] for terminology in used} <= codes


def test_the_self_test_of_the_module_passes(panel, scene):
    slicer.modules.UNetPlusPlusSegmentInstance.runTest(msec=1)
