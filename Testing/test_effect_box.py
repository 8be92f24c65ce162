"""The box of the Segment Editor effect: Apply and *Refine here* inside it, and how it is drawn, chosen and removed."""

from __future__ import annotations

import numpy as np

from Testing.support.bright import segmented
from Testing.support.mrml_scene import TURN, add_linear_transform, add_roi, rotation
from Testing.support.segment_editor import SCAN, blobs, choose_box, paint, painted, press, wait
from Testing.support.slicer_qt.pythonqt import dialogs
from Testing.support.worker_logic import GRID
from UNetPlusPlusSegmentLib.core.volume import Volume, crop
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.network.bundle import read_bundle
from UNetPlusPlusSegmentLib.scene import markups, placement


def test_apply_and_refine_change_the_segment_in_the_box_alone(opened, models):
    at = opened(SCAN, GRID, transform=add_linear_transform(TURN))
    drawn = blobs(5)[0]
    roi = add_roi(at.volume, (14, 4, 4), (43, 26, 9))
    roi.SetAndObserveTransformNodeID(add_linear_transform(TURN @ rotation(9, 2)).GetID())
    at.host.setNodeReference("ROI", roi)
    inside = markups.inside_roi(roi, at.volume)
    (box,) = [tuple(slice(*along) for along in markups.box_on_volume(roi, at.volume))]
    cropped = crop(Volume(SCAN, placement.world_ijk_to_ras(at.volume)), box)
    engine = SliceEngine(read_bundle(models / "bright-v1.0.0"), "cpu")
    for button, speed in (("apply", "balanced"), ("refine", "accurate")):
        paint(at, "selected", drawn)
        press(at, button)
        assert at.effect._edit.speed == speed
        wait(at)
        found = np.zeros(SCAN.shape, bool)
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
    assert "is not drawn yet: draw it in a slice view" in dialogs.seen[-1]
    assert at.effect._edit is None


def test_a_box_that_is_removed_leaves_none_and_no_other_in_its_place(opened, scene):
    at = opened(SCAN, GRID)
    roi, _other = (add_roi(at.volume, (1, 1, 1), (size, 5, 5)) for size in (5, 9))
    choose_box(at, roi)
    assert at.effect._options.refineButton.enabled
    scene.RemoveNode(roi)
    assert at.host.nodeReference("ROI") is None
    assert at.effect._options.roiSelector.currentNode() is None
    assert not at.effect._options.refineButton.enabled


def test_a_box_that_cuts_the_organ_is_reported_by_apply_but_not_by_refine_whose_box_is_a_part_by_design(opened):
    at = opened(SCAN, GRID)
    at.host.setNodeReference("ROI", add_roi(at.volume, (20, 4, 6), (30, 22, 7)))
    press(at, "apply")
    wait(at)
    assert "reaches the edge of the box" in at.effect._options.message.text
    press(at, "refine")
    wait(at)
    assert painted(at, "selected").any()
    assert at.effect._options.message.text.startswith("The slices are tilted")
    assert "box" not in at.effect._options.message.text
