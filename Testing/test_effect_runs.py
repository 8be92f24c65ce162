"""Runs of the Segment Editor effect, with a real worker process: Apply, Preview and Cancel, with undo."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.mrml_scene import add_volume, all_about, slicer
from Testing.support.segment_editor import SCAN, blobs, paint, painted, press, wait
from Testing.support.sequences import add_sequence, show_frame
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.pythonqt import dialogs, slot_errors
from Testing.support.worker_logic import GRID, LONG, a_scan, expected
from UNetPlusPlusSegmentLib.scene import mrml

# Apply


def test_apply_makes_the_segment_what_the_library_finds_as_one_step_to_undo(opened, models):
    at = opened(SCAN, GRID)
    drawn, others = blobs(0)[0], blobs(0)[1]
    paint(at, "selected", drawn)
    paint(at, "visible", others)
    found = expected(models, SCAN) == 1
    press(at, "apply")
    assert not at.effect._options.progressBar.isHidden()
    wait(at)
    volume_ml = found.sum() * abs(np.linalg.det(GRID[:3, :3])) / 1000
    assert at.effect._options.message.text.startswith(f"Liver: {round(volume_ml)} ml. The slices are tilted")
    assert (painted(at, "selected") == found).all()
    assert (painted(at, "visible") == (others & ~found)).all()
    at.editor.undo()
    assert (painted(at, "selected") == drawn).all()
    assert (painted(at, "visible") == others).all()
    at.editor.redo()
    assert (painted(at, "selected") == found).all()
    assert (painted(at, "visible") == (others & ~found)).all()


def test_a_run_that_ends_while_others_poll_is_written_all_the_same(opened, logic, models):
    at = opened(SCAN, GRID)
    press(at, "apply")
    while logic.busy:  # as the panel's timer does, or a script
        logic.poll()
    wait(at)
    assert (painted(at, "selected") == (expected(models, SCAN) == 1)).all()


def test_what_is_not_found_empties_nothing(opened, scene):
    at = opened(np.minimum(SCAN, 50), GRID)
    paint(at, "selected", blobs(2)[0])
    before = all_about(at.segmentation)
    press(at, "apply")
    wait(at)
    assert all_about(at.segmentation) == before
    assert at.effect._options.message.text.endswith("No liver was found. The segment was not changed.")
    at.node.SetMaskMode(
        slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
    )  # nor what lies outside the editable area
    at.node.SetMaskSegmentID("hidden")
    slicer.util.updateVolumeFromArray(at.volume, SCAN)
    press(at, "apply")
    wait(at)
    assert all_about(at.segmentation) == before


def test_a_hidden_segment_is_changed_only_when_the_user_says_so(opened):
    at = opened(SCAN, GRID)
    at.editor.setCurrentSegmentID("hidden")
    dialogs.answers.append("Cancel")
    press(at, "apply")
    assert at.effect._edit is None
    dialogs.answers.append("Yes")
    press(at, "apply")
    wait(at)
    assert painted(at, "hidden").any()
    assert at.segmentation.GetDisplayNode().GetSegmentVisibility("hidden")


# The preview


def test_a_preview_follows_the_threshold_and_changes_nothing_until_it_is_applied(opened, models, scene):
    at = opened(SCAN, GRID)
    drawn = blobs(3)[0]
    paint(at, "selected", drawn)
    before = all_about(at.segmentation)
    press(at, "preview")
    wait(at)
    preview = at.effect._edit._previewNode
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2
    assert preview.GetHideFromEditors()
    assert not preview.GetSaveWithScene()
    assert not preview.GetDisplayNode().GetSaveWithScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    exclude = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
    assert hierarchy.HasItemAttribute(hierarchy.GetItemByDataNode(preview), exclude)
    for threshold in (0.5, 0.3, 0.97):
        at.effect._options.thresholdSlider.value = threshold
        wait(at)
        (segment_id,) = preview.GetSegmentation().GetSegmentIDs()
        shown = mrml.labelmap_of(preview, segment_id, at.volume)
        assert (shown == expected(models, SCAN, threshold=threshold)).all()
    assert all_about(at.segmentation) == before
    press(at, "apply")
    assert (painted(at, "selected") == shown).all()
    assert not scene.IsNodePresent(preview)
    at.editor.undo()
    assert all_about(at.segmentation) == before


def test_apply_right_after_the_slider_was_moved_writes_the_threshold_that_it_shows(opened, models, scene):
    at = opened(SCAN, GRID)
    press(at, "preview")
    wait(at)
    at.effect._options.thresholdSlider.value = 0.97
    press(at, "apply")
    wait(at)
    assert (painted(at, "selected") == (expected(models, SCAN, threshold=0.97) == 1)).all()
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


@pytest.mark.parametrize("moved", [False, True], ids=["as shown", "slider moved"])
def test_a_preview_is_written_into_the_segment_that_is_selected_at_apply(opened, models, moved):
    at = opened(SCAN, GRID)
    drawn = blobs(0)[0]
    paint(at, "selected", drawn)
    press(at, "preview")
    wait(at)
    at.editor.setCurrentSegmentID("hidden")
    at.node.SetOverwriteMode(at.node.OverwriteNone)
    if moved:
        at.effect._options.thresholdSlider.value = 0.97
    dialogs.answers.append("Cancel")  # Slicer asks about the segment that would be changed, as it is hidden
    press(at, "apply")
    assert at.effect._edit.isShown
    dialogs.answers.append("Yes")
    press(at, "apply")
    wait(at)
    found = expected(models, SCAN, threshold=0.97) if moved else expected(models, SCAN)
    assert (painted(at, "hidden") == (found == 1)).all()
    assert (painted(at, "selected") == drawn).all()


@pytest.mark.parametrize("how", ["cancel", "other speed", "other effect", "other volume"])
def test_a_preview_goes_when_it_is_no_longer_what_the_options_say(opened, scene, how):
    at = opened(SCAN, GRID)
    before = all_about(at.segmentation)
    press(at, "preview")
    wait(at)
    assert at.effect._edit.isShown
    if how == "cancel":
        press(at, "cancel")
    elif how == "other speed":
        at.host.setParameter("Speed", "fast")
    elif how == "other effect":
        at.editor.setActiveEffectByName("")
    else:
        at.editor.setSourceVolumeNode(add_volume(SCAN))
    assert at.effect._edit is None
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    assert all_about(at.segmentation) == before


def test_a_preview_that_another_run_has_made_old_says_so(opened, logic, scene):
    at = opened(SCAN, GRID)
    press(at, "preview")
    wait(at)
    logic.process(at.volume, device="cpu")  # as the panel does
    dialogs.answers.append("OK")
    at.effect._options.thresholdSlider.value = 0.9
    assert "run the segmentation again" in dialogs.seen[-1]
    assert at.effect._edit is None


# Cancel


@pytest.mark.parametrize("how", ["cancel", "other effect", "other volume", "other segmentation"])
def test_a_run_that_is_given_up_leaves_everything_as_it_was(opened, logic, scene, how):
    at = opened(a_scan(LONG), GRID)
    at.host.setParameter("Speed", "accurate")
    other = add_volume(SCAN), scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    press(at, "apply")
    run = at.effect._edit.run
    wait_until(lambda: run.progress is not None)
    slicer.app.processEvents()
    assert not at.effect._options.progressBar.isHidden()
    assert at.effect._options.progressBar.maximum == LONG
    assert f"Slices {at.effect._options.progressBar.value} of {LONG}" in at.effect._options.progressBar.format
    assert not at.effect._options.applyButton.enabled
    before = all_about(at.segmentation)
    if how == "cancel":
        press(at, "cancel")
    elif how == "other effect":
        at.editor.setActiveEffectByName("")
    elif how == "other volume":
        at.editor.setSourceVolumeNode(other[0])
    else:
        at.editor.setSegmentationNode(other[1])
    assert logic.busy  # nobody has waited for the worker
    assert at.effect._options.progressBar.isHidden()
    wait_until(lambda: not logic.busy)  # the effect polls until the worker has stopped
    assert all_about(at.segmentation) == before


def test_a_segment_that_is_removed_meanwhile_stops_nothing_but_the_writing(opened):
    at = opened(SCAN, GRID)
    paint(at, "visible", blobs(4)[0])
    press(at, "apply")
    at.segmentation.GetSegmentation().RemoveSegment("selected")
    before = all_about(at.segmentation)
    dialogs.answers.append("OK")
    wait(at)
    assert "was removed during the run" in dialogs.seen[-1]
    assert all_about(at.segmentation) == before


def test_a_segment_that_is_selected_meanwhile_is_left_alone_and_stays_selected(opened, models):
    at = opened(SCAN, GRID)
    press(at, "apply")
    at.editor.setCurrentSegmentID("visible")
    wait(at)
    assert (painted(at, "selected") == (expected(models, SCAN) == 1)).all()
    assert not painted(at, "visible").any()
    assert at.node.GetSelectedSegmentID() == "visible"


@pytest.mark.parametrize("button", ["apply", "preview"])
def test_a_result_for_another_frame_than_the_one_that_is_shown_is_not_written(opened, button):
    at = opened(SCAN, GRID)
    frames, browser = add_sequence([SCAN, np.roll(SCAN, 4, axis=0)], GRID)
    at.editor.setSourceVolumeNode(frames)
    before = all_about(at.segmentation)
    press(at, button)
    if button == "preview":
        wait(at)
    show_frame(browser, 1)
    dialogs.answers.append("OK")
    if button == "preview":
        press(at, "apply")
    wait(at)
    assert "no longer shows the image" in dialogs.seen[-1]
    assert at.effect._edit is None
    assert all_about(at.segmentation) == before


def test_a_result_that_cannot_be_written_for_an_unforeseen_reason_leaves_the_effect_usable(opened, monkeypatch):
    at = opened(SCAN, GRID)
    press(at, "apply")
    monkeypatch.setattr(at.effect._edit, "write", lambda *_: [0][1])
    wait_until(lambda: slot_errors)
    assert isinstance(slot_errors.pop()[1], IndexError)
    assert at.effect._options.applyButton.enabled
    assert at.effect._options.progressBar.isHidden()
