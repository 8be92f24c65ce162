"""The Segment Editor effect on Slicer's real editor logic, with a real worker process: what the masks must do, voxel by voxel."""

from __future__ import annotations

import ast
import gc
import importlib
import itertools
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

from Testing.support.bright import bright_bundle, bright_nodule_bundle, segmented
from Testing.support.mrml_scene import (
    TURN,
    add_linear_transform,
    add_roi,
    add_volume,
    all_about,
    rotation,
    segments_of,
    slicer,
    vtk,
)
from Testing.support.nodule_scans import MATRIX, A, B, lung_with, ras
from Testing.support.organs import organ, organs_bundle, organs_scan
from Testing.support.segment_editor import choose_box, paint, painted, press, segment_ids, wait
from Testing.support.slicer_qt.application import wait_until
from Testing.support.slicer_qt.effects import qMRMLSliceWidget
from Testing.support.slicer_qt.pythonqt import dialogs, wrap
from Testing.support.worker_logic import GRID, LONG, a_scan, expected
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.volume import Volume, crop
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.network.bundle import read_bundle
from UNetPlusPlusSegmentLib.scene import markups, mrml

SCAN = a_scan(16)
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


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a model for each target, the only ones that are found."""
    folder = tmp_path_factory.mktemp("models")
    bright_bundle(folder / "bright-v1.0.0")  # the name that `expected` reads
    bright_nodule_bundle(folder / "bright-nodule-v9.0.0", threshold=0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETPP_MODELS", str(folder))
        yield folder


def blobs(seed: int) -> np.ndarray:
    """Three overlapping masks of large random cubes, and what is found."""
    chance = np.random.default_rng(seed)
    coarse = chance.random((4, 4, 5, 5)) < 0.5
    return coarse.repeat(4, 1).repeat(8, 2)[:, :, :40].repeat(10, 3)


# What the masks must do, whatever was found


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
    found = expected(models, SCAN, mrml.world_ijk_to_ras(at.volume)) == 1
    wanted = found[tuple(np.where(outside, 0, nearest))] & ~outside
    between = (np.abs(kji - np.floor(kji) - 0.5) < 1e-6).any(axis=0)  # two voxels are equally near
    at.segmentation.SetAndObserveTransformNodeID(None)
    drawn = mrml.labelmap_of(at.segmentation, "selected", other).ravel()
    assert wanted.sum() > 1000
    assert (drawn == wanted)[~between].all()


def test_what_is_not_found_empties_nothing(opened, scene):
    at = opened(np.minimum(SCAN, 50), GRID)
    paint(at, "selected", blobs(2)[0])
    before = all_about(at.segmentation)
    press(at, "apply")
    wait(at)
    assert all_about(at.segmentation) == before
    assert at.effect._options.message.text.endswith("No liver was found. The segment was not changed.")
    at.node.SetMaskMode(SEGMENTATION.EditAllowedInsideSingleSegment)  # nor what lies outside the editable area
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


# A box


def test_apply_and_refine_change_the_segment_in_the_box_alone(opened, models):
    at = opened(SCAN, GRID, transform=add_linear_transform(TURN))
    drawn = blobs(5)[0]
    roi = add_roi(at.volume, (14, 4, 4), (43, 26, 9))
    roi.SetAndObserveTransformNodeID(add_linear_transform(TURN @ rotation(9, 2)).GetID())
    at.host.setNodeReference("ROI", roi)
    inside = markups.inside_roi(roi, at.volume)
    (box,) = [tuple(slice(*along) for along in markups.box_on_volume(roi, at.volume))]
    cropped = crop(Volume(SCAN, mrml.world_ijk_to_ras(at.volume)), box)
    engine = SliceEngine(read_bundle(models / "bright-v1.0.0"), "cpu")
    for button, speed in (("apply", "balanced"), ("refine", "accurate")):
        paint(at, "selected", drawn)
        press(at, button)
        assert at.effect._edit.speed == speed
        wait(at)
        found = np.zeros(SHAPE, bool)
        found[box] = segmented(engine, cropped, speed=speed, force=True).labelmap == 1
        assert (found & inside).any()
        assert (painted(at, "selected") == np.where(inside, found, drawn)).all()
        at.editor.undo()
        assert (painted(at, "selected") == drawn).all()


def test_a_box_that_is_not_drawn_yet_is_asked_for_and_a_new_one_is_drawn_at_once(opened):
    at = opened(SCAN, GRID)
    assert not at.effect._options.refineButton.enabled
    at.effect._options.roiSelector.addNode()
    assert at.effect._options.placeWidget.placeModeEnabled
    assert at.effect._options.refineButton.enabled
    dialogs.answers.append("OK")
    press(at, "refine")
    assert "Draw the box in a slice view first" in dialogs.seen[-1]
    assert at.effect._edit is None


# Options


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
        rows = [
            "Abdomen (all 3)",
            "Aorta",
            "Kidney (all 2)",
            "Left kidney",
            "Liver",
            "Nodule",
            "Right kidney",
            "Spleen",
        ]  # only the shipped models have the aorta, the liver and the nodule
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


def test_a_box_that_is_removed_leaves_none_and_no_other_in_its_place(opened, scene):
    at = opened(SCAN, GRID)
    roi, _other = (add_roi(at.volume, (1, 1, 1), (size, 5, 5)) for size in (5, 9))
    choose_box(at, roi)
    assert at.effect._options.refineButton.enabled
    scene.RemoveNode(roi)
    assert at.host.nodeReference("ROI") is None
    assert at.effect._options.roiSelector.currentNode() is None
    assert not at.effect._options.refineButton.enabled


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


# Nodules


@pytest.fixture
def chest(opened):
    """The editor on a lung with two nodules, the target chosen."""
    at = opened(lung_with(A, B).array, MATRIX)
    at.effect._options.targetBox.setCurrentIndex(at.effect._options.targetBox.findData("Nodule"))
    assert at.host.parameter("Target") == "Nodule"
    return at


def a_slice_view(superior_mm: float):
    """A view of an axial slice, 0.5 mm a pixel."""
    node = slicer.vtkMRMLSliceNode()
    node.SetDimensions(400, 400, 1)
    node.SetFieldOfView(200, 200, 1)
    node.SetSliceToRASByNTP(0, 0, 1, -1, 0, 0, 0, -50, superior_mm, 0)
    return wrap(qMRMLSliceWidget(node))


def click(at, place_ras, event="LeftButtonPressEvent", **keys) -> bool:
    view = a_slice_view(place_ras[2])
    xyToRas = slicer.util.arrayFromVTKMatrix(view.mrmlSliceNode().GetXYToRAS())
    x, y, *_ = np.rint(np.linalg.solve(xyToRas, [*place_ras, 1])).astype(int)
    interactor = vtk.vtkGenericRenderWindowInteractor()
    interactor.SetEventPosition(x, y)
    for key, pressed in keys.items():
        getattr(interactor, f"Set{key}Key")(pressed)
    return at.effect.processInteractionEvents(interactor, vtk.vtkCommand.GetEventIdFromString(event), view)


def test_a_click_adds_the_nodule_under_it_and_undo_takes_one_click_back(chest, models):
    at = chest
    engine = load_engine(read_bundle(models / "bright-nodule-v9.0.0"), "cpu")
    drawn = np.zeros(A.shape, bool)
    drawn[2:4, 5:20, 5:20] = True
    paint(at, "selected", drawn)
    for index, nodule in (((10, 51, 41), A), ((20, 100, 110), B)):
        found = segmented(engine, lung_with(A, B), points=[ras(index)]).labelmap == 1
        assert (found == nodule).all()
        assert click(at, ras(index))
        wait(at)
        assert at.effect._options.message.text in ("Nodule 1: 12 mm.", "Nodule 1: 9 mm.")
        drawn = drawn | nodule
        assert (painted(at, "selected") == drawn).all()
    at.editor.undo()
    assert (painted(at, "selected") == drawn & ~B).all()


def test_each_nodule_becomes_a_segment_of_its_own_if_asked(chest):
    at = chest
    paint(at, "visible", B)
    at.effect._options.newSegmentBox.checked = True
    before = all_about(at.segmentation)
    for number, (index, nodule) in enumerate((((10, 51, 41), A), ((20, 100, 110), B)), start=1):
        click(at, ras(index))
        wait(at)
        segment = at.segmentation.GetSegmentation().GetSegment(segment_ids(at)[-1])
        assert segment.GetName() == f"Nodule {number}"
        assert "SCT^27925004^Nodule" in segment.GetTerminology()
        assert not segment.GetNameAutoGenerated()  # choosing a lobe for it must not rename it
        assert at.node.GetSelectedSegmentID() == segment_ids(at)[-1]
        assert at.editor.activeEffect() is at.host
        assert (painted(at, segment_ids(at)[-1]) == nodule).all()
    assert not painted(at, "visible").any()  # overwritten
    at.editor.undo()
    at.editor.undo()
    assert all_about(at.segmentation) == before


def test_apply_in_a_box_finds_its_nodules_as_one_step_to_undo(chest):
    at = chest
    roi = add_roi(at.volume, (10, 20, 2), (140, 130, 28))
    choose_box(at, roi)
    at.effect._options.newSegmentBox.checked = True
    before = all_about(at.segmentation)
    press(at, "apply")
    wait(at)
    found = [painted(at, each) for each in segment_ids(at)[3:]]
    assert (found[0] == A).all()
    assert (found[1] == B).all()
    at.editor.undo()
    assert all_about(at.segmentation) == before
    at.effect._options.newSegmentBox.checked = False
    at.editor.setCurrentSegmentID("selected")
    press(at, "apply")
    wait(at)
    assert (painted(at, "selected") == A | B).all()


def test_a_click_respects_the_masks(chest):
    at = chest
    half = np.zeros(A.shape, bool)
    half[:, :50] = True
    paint(at, "visible", half)
    at.node.SetMaskMode(SEGMENTATION.EditAllowedOutsideVisibleSegments)
    click(at, ras((10, 51, 41)))
    wait(at)
    assert (painted(at, "selected") == A & ~half).all()
    assert (painted(at, "visible") == half).all()
    before = all_about(at.segmentation)
    at.effect._options.newSegmentBox.checked = True
    at.node.SetMaskMode(SEGMENTATION.EditAllowedInsideSingleSegment)
    at.node.SetMaskSegmentID("hidden")
    click(at, ras((20, 100, 110)))
    wait(at)
    assert all_about(at.segmentation) == before
    assert "None of it is in the editable area" in at.effect._options.message.text


def test_a_click_on_nothing_says_so_and_changes_nothing(chest):
    at = chest
    before = all_about(at.segmentation)
    click(at, ras((3, 120, 30)))
    wait(at)
    assert all_about(at.segmentation) == before
    assert at.effect._options.message.text.endswith("The segment was not changed.")


def test_other_clicks_are_left_to_the_views(chest, scene):
    at, place = chest, ras((10, 51, 41))
    assert not click(at, place, Shift=1)
    assert not click(at, place, Control=1)
    assert not click(at, place, "MouseMoveEvent")
    roi = add_roi(at.volume, (10, 20, 2), (140, 130, 28))
    choose_box(at, roi)
    assert not click(at, place)  # it may be meant for the box
    choose_box(at, None)
    mode = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    mode.SetCurrentInteractionMode(mode.Place)
    assert not click(at, place)
    assert at.editor.activeEffect() is at.host  # drawing a box does not end the effect
    mode.SetCurrentInteractionMode(mode.ViewTransform)
    at.effect._options.targetBox.setCurrentIndex(at.effect._options.targetBox.findData("Liver"))
    assert not click(at, place)
    assert at.effect._edit is None
