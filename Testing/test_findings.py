"""Findings of a nodule model in the scene and in the panel: from which probability on they are shown, and what they are sorted by."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from Testing.support.bright import bright_nodule_bundle
from Testing.support.mrml_scene import add_roi, add_volume, segments_of, slicer, take_messages
from Testing.support.nodule_scans import dice
from Testing.support.panel import click_apply, table_of, wait_for_end
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import start
from Testing.support.worker_logic import a_run, wait
from UNetPlusPlusSegmentLib.network.bundle import choose_bundle
from UNetPlusPlusSegmentLib.scene import mrml

qt = start()
SHAPE = (40, 80, 80)
BALLS = ((12, 40, 30, 7.0, 40), (25, 20, 60, 5.0, -100), (25, 60, 60, 3.0, 200))  # k, j, i, radius in mm, HU
DECISION = {"intercept": -5.0, "weights": {"size": 2.6}, "least": 0.5}  # the larger, the likelier


def ball(number: int) -> np.ndarray:
    k, j, i = np.ogrid[:40, :80, :80]
    ck, cj, ci, radius, _ = BALLS[number]
    return (k - ck) ** 2 + (j - cj) ** 2 + (i - ci) ** 2 <= radius**2


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    bright_nodule_bundle(folder / "spots-v1.0.0", decision=DECISION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [folder])
        yield folder


@pytest.fixture
def boxed(scene):
    """A volume with three nodules, and a box round it: what is searched is no lung."""
    chest = np.full(SHAPE, -850, np.int16)
    for number, (*_, hu) in enumerate(BALLS):
        chest[ball(number)] = hu
    volumeNode = add_volume(chest, np.diag([-1.0, -1.0, 1.0, 1.0]), "Chest")
    return volumeNode, add_roi(volumeNode, (0, 0, 0), (79, 79, 39))


@pytest.fixture
def run(logic, boxed):
    volumeNode, roi = boxed
    return a_run(logic, volumeNode, target="nodule", roi=roi, showFrom=0.0)


def chances(run) -> list[float]:
    return [found["probability"] for _, found in run.rows]


def show_from(logic, run, probability: float) -> None:
    run.set_show_from(probability)
    wait(logic, lambda: not run.jobs)
    assert run.error is None


def voxels(run, segmentID) -> np.ndarray:
    return mrml.labelmap_of(run.segmentationNode, segmentID, run.volumeNode)


def test_findings_come_and_go_with_the_probability_and_keep_their_segments(logic, run):
    likely, possible, unlikely = chances(run)
    assert likely > possible > unlikely
    everything = list(segments_of(run.segmentationNode))
    show_from(logic, run, (possible + unlikely) / 2)
    assert list(segments_of(run.segmentationNode)) == everything[:2] == run.segmentIDs
    assert chances(run) == [likely, possible]
    show_from(logic, run, 1.0)
    assert not segments_of(run.segmentationNode) and not run.rows
    show_from(logic, run, 0.0)
    assert chances(run) == [likely, possible, unlikely]
    for number, segmentID in enumerate(run.segmentIDs):
        np.testing.assert_array_equal(voxels(run, segmentID), run.result.labelmap == number + 1)
        assert dice(voxels(run, segmentID), ball(number)) > 0.95


def test_edited_nodules_are_neither_hidden_nor_changed_and_removed_ones_do_not_return(logic, run):
    likely, possible, unlikely = chances(run)
    first, second, third = run.segmentIDs
    edited = ball(2)
    edited[20:30, 60, 60] = True
    segmentation = run.segmentationNode.GetSegmentation()
    segmentation.SeparateSegmentLabelmap(third)
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        edited.astype(np.uint8), run.segmentationNode, third, run.volumeNode
    )
    segmentation.RemoveSegment(second)
    show_from(logic, run, (likely + possible) / 2)
    assert list(segments_of(run.segmentationNode)) == [first, third] == run.segmentIDs
    assert [name for name, _ in run.rows] == ["Nodule 1", "Nodule 3"]
    np.testing.assert_array_equal(voxels(run, third), edited)
    for probability in (1.0, 0.0, unlikely, 1.0, 0.0):
        show_from(logic, run, probability)
        assert (third in run.segmentIDs) and second not in segments_of(run.segmentationNode)
        np.testing.assert_array_equal(voxels(run, third), edited)
    assert [name for name, _ in run.rows] == ["Nodule 1", "Nodule 3"]
    assert sorted(chances(run)) == [unlikely, likely]
    with pytest.raises(ValueError, match=r"therefore kept|was removed"):
        run.set_threshold(0.9)
    take_messages()  # VTK's, about a table of colours that the wheel lacks


def test_a_segmentation_that_is_gone_is_said_to_be(logic, run, scene):
    scene.RemoveNode(run.segmentationNode)
    run.set_show_from(0.9)
    wait(logic, lambda: not run.jobs)
    assert "segmentation of the last run was removed" in str(run.error)


# The panel


@pytest.fixture
def panel(frame, boxed):
    """The open panel, after a run."""
    panel, (_, roi) = frame.self(), boxed
    panel.ui.deviceComboBox.setCurrentText("CPU")
    panel.ui.roiSelector.setCurrentNode(roi)
    panel._parameterNode.showFrom = 0.0
    click_apply(panel.ui)
    wait_for_end(panel)
    return panel


def titles(ui) -> list[str]:
    return [ui.resultsTable.horizontalHeaderItem(column).text() for column in range(ui.resultsTable.columnCount)]


def column(ui, title: str) -> list[str]:
    return [row[titles(ui).index(title)] for row in table_of(ui)]


def click_title(ui, title: str) -> None:
    ui.resultsTable.horizontalHeader().sectionClicked(titles(ui).index(title))


def test_rows_are_sorted_by_the_title_that_is_clicked_and_the_other_way_round_by_a_second_click(panel, scene):
    ui = panel.ui
    assert column(ui, "Segment") == ["Nodule 1", "Nodule 2", "Nodule 3"]
    click_title(ui, "Mean HU")
    assert column(ui, "Segment") == ["Nodule 3", "Nodule 1", "Nodule 2"]
    header = ui.resultsTable.horizontalHeader()
    assert header.isSortIndicatorShown() and header.sortIndicatorSection() == titles(ui).index("Mean HU")
    click_title(ui, "Mean HU")
    assert column(ui, "Segment") == ["Nodule 2", "Nodule 1", "Nodule 3"]
    view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    ui.resultsTable.cellClicked(0, 0)
    k, j, i, *_ = BALLS[1]
    place = [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
    np.testing.assert_allclose(place, [-i, -j, k], atol=1)
    click_title(ui, "Probability")
    assert column(ui, "Probability") == sorted(column(ui, "Probability"), reverse=True)
    click_title(ui, "Segment")
    assert column(ui, "Segment") == ["Nodule 1", "Nodule 2", "Nodule 3"]


def test_the_slider_shows_and_hides_nodules_and_starts_where_the_model_says(panel):
    ui, parameters = panel.ui, panel._parameterNode
    likely, possible, unlikely = map(float, column(ui, "Probability"))
    click_title(ui, "Volume (ml)")
    click_title(ui, "Volume (ml)")  # the smallest first
    ui.showFromSlider.value = (possible + unlikely) / 2
    wait_until(lambda: len(table_of(ui)) == 2)
    assert column(ui, "Probability") == [f"{possible:.2f}", f"{likely:.2f}"]
    ui.showFromSlider.value = 0.0
    wait_until(lambda: len(table_of(ui)) == 3)
    assert ui.showFromSlider.isVisibleTo(ui.settingsBox)
    parameters.model = ""
    panel._models.refresh()
    assert ui.showFromSlider.value == choose_bundle("nodule").decision.least == 0.5


def test_a_nodule_that_was_edited_refuses_another_threshold_but_not_another_probability(panel):
    ui, run = panel.ui, panel._run
    *_, unlikely = map(float, column(ui, "Probability"))
    edited = voxels(run, run.segmentIDs[0])
    edited[:3] = True
    run.segmentationNode.GetSegmentation().SeparateSegmentLabelmap(run.segmentIDs[0])
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        edited.astype(np.uint8), run.segmentationNode, run.segmentIDs[0], run.volumeNode
    )
    ui.thresholdSlider.value = 0.9
    assert "Edited after the last run, and therefore kept" in ui.messageLabel.text
    ui.showFromSlider.value = unlikely + 0.01
    wait_until(lambda: len(table_of(ui)) == 2)
    np.testing.assert_array_equal(voxels(run, run.segmentIDs[-1]), edited)
    take_messages()  # VTK's, about a table of colours that the wheel lacks


def test_a_model_without_a_decision_has_no_slider(frame, models, scene):
    panel = frame.self()
    assert panel.ui.showFromSlider.isVisibleTo(panel.ui.settingsBox)
    bright_nodule_bundle(models / "spots-v2.0.0")
    try:
        panel.enter()
        panel.ui.modelComboBox.setCurrentText("spots-v2.0.0")
        assert not panel.ui.showFromSlider.isVisibleTo(panel.ui.settingsBox)
    finally:
        shutil.rmtree(models / "spots-v2.0.0")
