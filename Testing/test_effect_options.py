"""The options of the Segment Editor effect: what is offered, kept in the scene, and translated."""

from __future__ import annotations

import ast
import gc
import shutil
import weakref
from pathlib import Path

import pytest

from Testing.support.bright import bright_bundle, bright_nodule_bundle
from Testing.support.mrml_scene import add_roi, segments_of, slicer
from Testing.support.organs import organ, organs_bundle, organs_scan
from Testing.support.segment_editor import SCAN, choose_box, painted, press, wait
from Testing.support.worker_logic import GRID
from UNetPlusPlusSegmentLib.scene import mrml


@pytest.fixture(scope="module")
def models(models):
    """A folder with a model for the liver and one for nodules, the only ones that are found."""
    bright_nodule_bundle(models / "bright-nodule-v9.0.0", threshold=0.4)
    return models


def test_options_are_kept_in_the_scene_and_shown_by_another_editor(opened, an_editor, scene):
    at = opened(SCAN, GRID)
    assert at.host.doubleParameter("LiverThreshold") == 0.5  # the model's
    roi = add_roi(at.volume, (1, 1, 1), (5, 5, 5))
    at.effect._options.speedBox.setCurrentIndex(2)
    at.effect._options.thresholdSlider.value = 0.37
    choose_box(at, roi)
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    for text in ("UNet++.Speed:fast", "UNet++.LiverThreshold:0.37", f"UNet++.ROI:{roi.GetID()}"):
        assert text in saved
    again = an_editor()
    node = scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
    node.UnRegister(None)
    node.Copy(at.node)
    scene.AddNode(node)
    again.setMRMLSegmentEditorNode(node)
    again.setActiveEffectByName("UNet++")
    effect = again.effectByName("UNet++").self()
    assert (effect._options.speedBox.currentData, effect._options.thresholdSlider.value) == ("fast", 0.37)
    assert effect._options.roiSelector.currentNode() is roi


def test_each_target_has_a_threshold_of_its_own_also_when_a_script_chooses_it(opened):
    at = opened(SCAN, GRID)
    at.effect._options.thresholdSlider.value = 0.37
    at.host.setParameter("Target", "nodule")
    assert at.effect._options.thresholdSlider.value == 0.4  # the model's
    at.effect._options.thresholdSlider.value = 0.2
    at.host.setParameter("Target", "liver")
    assert at.effect._options.thresholdSlider.value == 0.37
    assert at.host.doubleParameter("NoduleThreshold") == 0.2


def test_another_model_comes_with_its_own_threshold_and_the_same_one_keeps_the_users(opened, models):
    at = opened(SCAN, GRID)
    at.effect._options.thresholdSlider.value = 0.37
    at.effect.activate()
    assert at.effect._options.thresholdSlider.value == 0.37
    newer = bright_bundle(models / "bright-v2.0.0", threshold=0.3).folder
    try:
        at.effect.activate()
        assert at.effect._options.thresholdSlider.value == at.host.doubleParameter("LiverThreshold") == 0.3
    finally:
        shutil.rmtree(newer)


def test_what_there_are_models_for_is_offered_by_the_names_of_its_labels(opened, models):
    folder = organs_bundle(models / "abdomen-ct-v1.0.0", threshold=0.3).folder
    (models / "broken-v1.0.0").mkdir()
    (models / "broken-v1.0.0" / "model.json").write_text("{}")
    try:
        at = opened(organs_scan().array, organs_scan().ijk_to_ras)
        box = at.effect._options.targetBox
        rows = ["Abdomen (all 3)", "Kidney (all 2)", "Left kidney", "Liver", "Nodule", "Right kidney", "Spleen"]
        assert ([box.itemText(row) for row in range(box.count)], box.currentText) == (rows, "Liver")
        box.setCurrentIndex(rows.index("Right kidney"))
        assert at.effect._options.thresholdSlider.value == 0.3
        at.effect._options.speedBox.setCurrentIndex(2)
        assert "has no speed 'fast'; it has accurate, balanced" in at.effect._options.message.text
        assert not at.effect._options.applyButton.enabled
        at.effect._options.speedBox.setCurrentIndex(1)
        press(at, "apply")
        wait(at)
        assert (painted(at, "selected") == organ("Right kidney")).all()
        at.host.setParameter("Target", "kidney")  # by a script: both, into the selected segment
        assert box.currentText == "Kidney (all 2)"
        press(at, "apply")
        wait(at)
        assert (painted(at, "selected") == organ("Right kidney", "Left kidney")).all()
        at.effect._options.newSegmentBox.checked = True
        box.setCurrentIndex(rows.index("Abdomen (all 3)"))
        before = set(segments_of(at.segmentation))
        press(at, "apply")
        wait(at)
        new = {name.GetName(): each for each, name in segments_of(at.segmentation).items() if each not in before}
        assert list(new) == ["Spleen", "Right kidney", "Left kidney"]
        assert "Spleen: " in at.effect._options.message.text
        box.setCurrentIndex(rows.index("Spleen"))
        assert at.effect._options.newSegmentBox.isHidden()
        at.host.setParameter("Target", "heart")
        assert "There is no model for this target." in at.effect._options.message.text
        assert "broken-v1.0.0" in at.effect._options.message.text
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(models / "broken-v1.0.0")


@pytest.mark.parametrize("active", [True, False])
def test_the_options_survive_the_import_of_a_scene(opened, scene, active):
    at = opened(SCAN, GRID)
    roi = add_roi(at.volume, (1, 1, 1), (5, 5, 5))
    choose_box(at, roi)
    if not active:
        at.editor.setActiveEffectByName("")
        at.node.SetAttribute("UNet++.LiverThreshold", "0.21")  # as another editor may
    scene.StartState(scene.ImportState)
    scene.EndState(scene.ImportState)
    assert at.host.nodeReference("ROI") is roi
    assert at.effect._options.roiSelector.currentNode() is roi
    assert at.host.doubleParameter("LiverThreshold") == (0.5 if active else 0.21)


def test_a_scene_with_many_nodes_is_closed_without_showing_the_options_for_each(opened, scene, monkeypatch):
    at = opened(SCAN, GRID)
    for _ in range(20):
        scene.AddNewNodeByClass("vtkMRMLModelNode")
    at.node.SetSingletonTag("SegmentEditor")  # as that of the module, which stays
    shown = []
    monkeypatch.setattr(at.effect, "updateGUIFromMRML", lambda: shown.append(scene.IsClosing()))
    scene.Clear(False)
    assert shown == [False]


def test_a_note_that_looks_like_html_is_shown_as_it_is(opened):
    import qt

    assert opened(SCAN, GRID).effect._options.message.textFormat == qt.Qt.PlainText


def test_without_a_volume_there_is_nothing_to_press_and_a_reason(opened):
    at = opened(SCAN, GRID)
    at.editor.setSourceVolumeNode(None)
    at.editor.setActiveEffectByName("UNet++")
    for button in ("apply", "preview", "refine", "cancel"):
        assert not getattr(at.effect._options, f"{button}Button").enabled
    assert at.effect._options.message.text == "Load a CT and select it as the source volume."


@pytest.mark.parametrize("package", ["SegmentEditorUNetPlusPlusLib", "SegmentStatisticsUNetPlusPlusLib"])
def test_what_is_translated_is_written_out(package):
    files = [*(Path(mrml.__file__).parents[2] / package).glob("*.py")]
    calls = [
        each for file in files for each in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(each, ast.Call)
    ]
    texts = [each for each in calls if isinstance(each.func, ast.Name) and each.func.id == "_"]
    assert len(texts) > 5
    for each in texts:
        assert [type(argument) for argument in each.args] == [ast.Constant], f"{each.lineno}: lupdate finds nothing"


def test_nothing_keeps_a_cleaned_up_effect_alive(opened):
    at = opened(SCAN, GRID)
    press(at, "preview")
    wait(at)
    gone = weakref.ref(at.effect)
    at.editor.setActiveEffectByName("")
    at.effect.cleanup()
    at.host._native._python = None
    delattr(slicer, "SegmentEditorUNetPlusPlusLib")  # Slicer keeps the last instance there
    at.effect = None
    gc.collect()
    assert gone() is None
