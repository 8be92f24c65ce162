"""The panel when something goes wrong: refused volumes, scenes that change mid-run, a worker that is killed."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from Testing.support.mrml_scene import (
    add_volume,
    nothing_changes,
    segments_of,
    slicer,
    take_messages,
)
from Testing.support.panel import (
    click_apply,
    segmentation_of,
    start_long_run,
    table_of,
    wait_for_end,
)
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.worker_logic import GRID, LONG, a_scan


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


def test_a_scene_that_is_loaded_in_mid_run_keeps_its_own_choice_of_a_segmentation(panel, scene, tmp_path):
    saved = tmp_path / "saved.mrml"
    saved.write_text(
        '<MRML version="1"><ScriptedModule id="vtkMRMLScriptedModuleNodeUNetPlusPlusSegment" name="UNetPlusPlusSegment"'
        ' hideFromEditors="true" singletonTag="UNetPlusPlusSegment" attributes="ModuleName:UNetPlusPlusSegment"'
        ' references="inputVolume:vtkMRMLScalarVolumeNode1;" parameter0= "inputVolume "></ScriptedModule>'
        '<Volume id="vtkMRMLScalarVolumeNode1" name="Chest"></Volume></MRML>'
    )
    add_volume(a_scan(), GRID, "Abdomen")
    click_apply(panel.ui)
    scene.SetURL(str(saved))
    assert scene.Import()
    take_messages()
    assert panel.ui.inputSelector.currentNode().GetName() == "Chest"
    wait_for_end(panel)
    assert segmentation_of(scene).GetName() == "Abdomen segmentation"
    assert panel.ui.outputSelector.currentNode() is None
    assert panel.ui.resultsBox.text == "Results for Abdomen (before edits)"


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
