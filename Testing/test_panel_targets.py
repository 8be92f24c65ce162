"""The panel's lists of targets and models, on the real .ui, with a real worker: what the model folders have, and what comes into them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from Testing.support.bright import bright_bundle
from Testing.support.mrml_scene import add_volume, segments_of
from Testing.support.organs import models_of_three_targets, organ, organs_bundle, organs_scan
from Testing.support.panel import click_apply, table_of, wait_for_end
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from UNetPlusPlusSegmentLib.network.bundle import user_folder
from UNetPlusPlusSegmentLib.scene import mrml


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models_of_three_targets(folder)
    return folder


@pytest.fixture
def panel(models, monkeypatch, tmp_path, request):
    """The open panel, with these models and those of a user's folder, which is empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [user_folder(), models])
    panel = request.getfixturevalue("frame").self()
    panel.ui.deviceComboBox.setCurrentText("CPU")
    return panel


def rows_of(box) -> list[str]:
    return [box.itemText(row) for row in range(box.count)]


def test_targets_are_offered_by_the_names_of_the_labels_and_run_with_what_their_card_says(panel, scene):
    ui, scan = panel.ui, organs_scan()
    volumeNode = add_volume(scan.array, scan.ijk_to_ras, "Abdomen")
    assert rows_of(ui.targetComboBox) == [
        "Abdomen (all 3)", "Kidney (all 2)", "Left kidney", "Liver", "Right kidney", "Spleen",
    ]  # fmt: skip
    assert ui.targetComboBox.currentText == "Liver"
    assert "lung-ct-v1.0.0 needs a newer UNetPlusPlusSegment" in ui.messageLabel.text
    ui.targetComboBox.setCurrentText("Spleen")
    assert panel._parameterNode.model == "abdomen-ct-v1.0.0"
    ui.speedComboBox.setCurrentText("Fast")
    assert not ui.applyButton.enabled
    assert "abdomen-ct-v1.0.0 has no speed 'fast'; it has accurate, balanced" in ui.messageLabel.text
    ui.speedComboBox.setCurrentText("Accurate")
    click_apply(ui)
    wait_for_end(panel)
    assert "abdomen-ct-v1.0.0" in ui.messageLabel.text
    assert [row[0] for row in table_of(ui)] == ["Spleen"]
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    (spleen,) = segments_of(node)
    np.testing.assert_array_equal(mrml.labelmap_of(node, spleen, volumeNode), organ("Spleen"))
    ui.targetComboBox.setCurrentText("Abdomen (all 3)")
    ui.thresholdSlider.value = 0.6  # for the next run: what is shown is of another target
    assert not panel._run.jobs
    dialogs.answers.append("Replace")
    click_apply(ui)
    wait_for_end(panel)
    assert "already contains Spleen" in dialogs.seen[-1]
    assert [row[0] for row in table_of(ui)] == ["Spleen", "Right kidney", "Left kidney"]
    assert next(iter(segments_of(node))) == spleen


def test_both_kidneys_are_a_row_of_their_own_also_when_a_script_chooses_them(panel, scene):
    scan = organs_scan()
    volumeNode = add_volume(scan.array, scan.ijk_to_ras, "Abdomen")
    panel._parameterNode.target = "KIDNEY"
    assert panel.ui.targetComboBox.currentText == "Kidney (all 2)"
    panel.ui.speedComboBox.setCurrentText("Accurate")
    click_apply(panel.ui)
    wait_for_end(panel)
    assert [row[0] for row in table_of(panel.ui)] == ["Right kidney", "Left kidney"]
    assert "(24 slices). The model cannot estimate the expected Dice." in panel.ui.messageLabel.text
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    for segmentID, name in zip(segments_of(node), ("Right kidney", "Left kidney"), strict=True):
        np.testing.assert_array_equal(mrml.labelmap_of(node, segmentID, volumeNode), organ(name))


def test_another_target_takes_the_model_that_was_made_for_it(panel):
    ui, labels = panel.ui, [{"value": 1, "name": "Spleen", "terminology": "", "color": [1, 2, 3]}]
    bright_bundle(user_folder() / "spleen-v1.0.0", target="spleen", labels=labels, threshold=0.35)
    organs_bundle(user_folder() / "kidneys-v1.0.0", target="kidneys")
    panel.enter()
    ui.targetComboBox.setCurrentText("Left kidney")
    assert rows_of(ui.modelComboBox) == ["kidneys-v1.0.0", "abdomen-ct-v1.0.0"]
    ui.targetComboBox.setCurrentText("Spleen")
    assert rows_of(ui.modelComboBox) == ["spleen-v1.0.0", "kidneys-v1.0.0", "abdomen-ct-v1.0.0"]
    assert (panel._parameterNode.model, ui.thresholdSlider.value) == ("spleen-v1.0.0", 0.35)


def test_a_target_that_no_model_has_says_so_and_offers_no_run(panel):
    add_volume(organs_scan().array, organs_scan().ijk_to_ras)
    for target in ("nodule", "heart"):
        panel._parameterNode.target = target  # by a script, or in a scene of another computer
        assert not panel.ui.applyButton.enabled
        assert panel.ui.messageLabel.text.startswith("There is no model for this target.")
        assert "lung-ct-v1.0.0" in panel.ui.messageLabel.text
        assert panel.ui.targetComboBox.currentIndex == -1
    panel.ui.targetComboBox.setCurrentText("Left kidney")
    assert panel.ui.applyButton.enabled


def test_of_two_models_for_a_target_the_one_in_the_user_s_folder_comes_first_and_the_user_chooses(panel):
    ui = panel.ui
    bright_bundle(user_folder() / "liver-ct-v0.1.0", threshold=0.25)
    panel.enter()
    assert rows_of(ui.modelComboBox) == ["liver-ct-v0.1.0", "liver-ct-v99.0.0"]
    assert ui.modelComboBox.currentText == "liver-ct-v99.0.0"  # chosen before the other one came
    ui.modelComboBox.setCurrentText("liver-ct-v0.1.0")
    assert (panel._parameterNode.model, ui.thresholdSlider.value) == ("liver-ct-v0.1.0", 0.25)


def test_a_label_that_the_newest_version_has_dropped_is_not_listed(panel):
    label = {"value": 1, "name": "Spleen", "terminology": "", "color": [1, 2, 3]}
    bright_bundle(user_folder() / "abdomen-ct-v1.1.0", target="abdomen", labels=[label])
    panel.enter()
    assert rows_of(panel.ui.targetComboBox) == ["Liver", "Spleen"]
    panel.ui.targetComboBox.setCurrentText("Spleen")
    assert rows_of(panel.ui.modelComboBox) == ["abdomen-ct-v1.1.0", "abdomen-ct-v1.0.0"]


def test_a_model_that_is_dropped_into_the_opened_folder_is_offered_without_a_restart(panel, tmp_path):
    ui = panel.ui
    add_volume(organs_scan().array, organs_scan().ijk_to_ras)
    card = {"value": 1, "name": "Aorta", "terminology": "", "color": [1, 2, 3]}
    made = bright_bundle(tmp_path / "made" / "aorta-v1.0.0", target="aorta", labels=[card]).folder
    ui.modelsFolderButton.click()
    folder = user_folder() / made.name
    folder.mkdir()
    shutil.copy(made / "model.json", folder)
    wait_until(lambda: "has no weights.pt" in ui.messageLabel.text)  # not yet
    shutil.copy(made / "weights.pt", folder)
    wait_until(lambda: "Aorta" in rows_of(ui.targetComboBox))
    assert "weights.pt" not in ui.messageLabel.text
    ui.targetComboBox.setCurrentText("Aorta")
    assert panel._parameterNode.model == "aorta-v1.0.0"
    shutil.rmtree(folder)
    wait_until(lambda: "Aorta" not in rows_of(ui.targetComboBox))
    assert "There is no model for this target" in ui.messageLabel.text


def test_a_new_scene_starts_with_a_target_that_there_is_a_model_for(models, monkeypatch, tmp_path, request):
    only = organs_bundle(tmp_path / "models" / "abdomen-ct-v1.0.0").folder.parent
    monkeypatch.setattr("UNetPlusPlusSegmentLib.network.bundle.search_folders", lambda: [only])
    panel = request.getfixturevalue("frame").self()
    assert panel.ui.targetComboBox.currentText == "Abdomen (all 3)"
    assert panel._parameterNode.model == "abdomen-ct-v1.0.0"
