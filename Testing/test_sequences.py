"""Sequences: every frame of a volume sequence is segmented into a sequence of segmentations, or one of them alone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from Testing.support.bright import bright_nodule_bundle
from Testing.support.mrml_scene import (
    TURN,
    add_linear_transform,
    add_roi,
    add_volume,
    all_about,
    at,
    nothing_changes,
    segments_of,
    slicer,
    take_messages,
    to_world,
)
from Testing.support.sequences import add_sequence, show_frame
from Testing.support.worker_logic import GRID, a_run, a_scan, expected, wait
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, crop
from UNetPlusPlusSegmentLib.scene import markups, mrml, placement, sequences, showing
from UNetPlusPlusSegmentLib.scene.runs import RunError

DOUBTFUL = ("doubtful_slices", "doubtful_slices_ras")


@pytest.fixture
def heart_beat(scene):
    """A volume sequence of three frames, the second of which shows less, under a transform; and what replays it."""
    arrays = [a_scan() for _ in range(3)]
    bright = arrays[1] == 90
    arrays[1][bright] -= 60 * (np.arange(bright.sum()) % 2 == 0).astype(np.int16)
    volumeNode, browser = add_sequence(arrays, GRID)
    volumeNode.SetAndObserveTransformNodeID(add_linear_transform(TURN).GetID())
    return volumeNode, browser


def test_every_frame_of_a_sequence_becomes_a_frame_of_a_sequence_of_segmentations(scene, logic, models, heart_beat):
    volumeNode, browser = heart_beat
    frames = logic.process(volumeNode, allFrames=True, device="cpu")
    assert [list(frame) for frame in frames] == [["Liver"]] * 3
    assert frames[1]["Liver"]["volume_ml"] < frames[0]["Liver"]["volume_ml"]
    (segmentationNode,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert browser.IsProxyNodeID(segmentationNode.GetID())
    assert segmentationNode.GetTransformNodeID() == volumeNode.GetTransformNodeID()
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert segmentationNode.GetNodeReference(role) is volumeNode
    for item in (0, 1, 2, 1):
        show_frame(browser, item)
        array = mrml.volume_from_node(volumeNode).array
        ((segmentID, segment),) = segments_of(segmentationNode).items()
        assert segment.GetName() == "Liver"
        mask = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
        np.testing.assert_array_equal(mask, expected(models, array, placement.world_ijk_to_ras(volumeNode)) == 1)


def test_a_run_over_frames_says_of_each_frame_what_it_is_at_found_and_noted(logic, heart_beat):
    volumeNode, _browser = heart_beat
    roi = add_roi(volumeNode, (0, 0, 0), (30, 39, 29), volumeNode.GetParentTransformNode())  # cuts the organ
    run = logic.start(volumeNode, allFrames=True, roi=roi, speed="accurate", device="cpu")
    frames = set()
    wait(logic, lambda: (run.progress and frames.add(run.progress.frame)) or not run.running)
    assert frames == {(1, 3), (2, 3), (3, 3)}
    assert [name for name, _ in run.rows] == [f"Liver (frame {n})" for n in (1, 2, 3)]
    numbered = dict.fromkeys(str(note).partition(": ")[0] for note in run.result.notes)
    assert [*numbered] == ["Frame 1", "Frame 2", "Frame 3"]
    assert run.result.slices == run.result.scan_slices == 3 * 40  # along J, which is nearest to the axis of the body


def test_the_result_of_all_frames_gets_a_name_of_its_own_beside_that_of_one(scene, logic, heart_beat):
    volumeNode, _browser = heart_beat
    logic.process(volumeNode, device="cpu")
    logic.process(volumeNode, allFrames=True, device="cpu")
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert len(names) == len(set(names)) == 2  # selectors do not tell two of one name apart


def test_the_volume_of_a_frame_is_let_go_once_its_segmentation_is_kept(heart_beat, monkeypatch):
    volumeNode, browser = heart_beat
    show, shown, gone = showing.show_segmentation, [], set()

    def watched(labelmap, segments, volumeNode):
        shown.append(volumeNode.GetAddressAsString(""))
        volumeNode.AddObserver("DeleteEvent", lambda *_, address=shown[-1]: gone.add(address))
        return show(labelmap, segments, volumeNode)

    monkeypatch.setattr(showing, "show_segmentation", watched)
    sequence = sequences.SegmentationSequence(volumeNode, browser)
    for item in range(2):
        labelmap = np.ones_like(mrml.volume_from_node(sequence.frame(item)).array, np.uint8)
        sequence.put(item, labelmap, [Segment(1, "Liver", "", (255, 0, 0), {})])
        assert gone == set(shown)


def test_a_sequence_that_is_cancelled_or_loses_its_volume_leaves_the_scene_as_it_was(scene, logic, heart_beat):
    volumeNode, _browser = heart_beat
    run = logic.start(volumeNode, allFrames=True, device="cpu")
    wait(logic, lambda: run._results)
    with nothing_changes(scene):
        run.cancel()
        wait(logic, lambda: not run.running)
    assert run.error.kind == "cancelled"
    run = logic.start(volumeNode, allFrames=True, device="cpu")
    wait(logic, lambda: run._results)
    scene.RemoveNode(volumeNode)
    wait(logic, lambda: not run.running)
    assert "was removed" in str(run.error)
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_nodules_of_every_frame_are_measured_where_the_views_show_them(scene, logic, models, heart_beat):
    volumeNode, browser = heart_beat
    chest = np.full((20, 50, 50), -850, np.int16) + np.random.default_rng(0).integers(-30, 30, (20, 50, 50), np.int16)
    chest[8:12, 20:26, 30:36] = 40
    sequence = browser.GetMasterSequenceNode()
    for item in range(sequence.GetNumberOfDataNodes()):
        slicer.util.updateVolumeFromArray(sequence.GetNthDataNode(item), chest)
        sequence.GetNthDataNode(item).SetSpacing(1.0, 1.0, 1.0)
    show_frame(browser, 0)
    roi = add_roi(volumeNode, (20, 10, 4), (45, 35, 16), volumeNode.GetParentTransformNode())
    bundle = bright_nodule_bundle(models / "spots-v1.0.0")
    frames = logic.process(volumeNode, target="nodule", allFrames=True, roi=roi, device="cpu")
    shutil.rmtree(bundle.folder)
    assert [list(frame) for frame in frames] == [["Nodule 1"]] * 3
    np.testing.assert_allclose(frames[0]["Nodule 1"]["centroid_ras"], to_world(volumeNode, (32.5, 22.5, 9.5)), atol=0.5)


def test_frames_that_lie_in_different_places_are_each_cut_and_measured_where_they_lie(scene, logic, models):
    aside = at(GRID, GRID[:3, 3] + [0, 0, 16])
    volumeNode, browser = add_sequence([a_scan(30), a_scan(20)], np.array([GRID, aside]))
    volumeNode.SetAndObserveTransformNodeID(add_linear_transform(TURN).GetID())
    roi = add_roi(volumeNode, (10, 5, 8), (45, 30, 22), volumeNode.GetParentTransformNode())
    run = a_run(logic, volumeNode, allFrames=True, roi=roi)
    assert run.error is None
    for item, frame in enumerate(run.frames):
        show_frame(browser, item)
        array = mrml.volume_from_node(volumeNode).array
        box = tuple(slice(*along) for along in markups.box_on_volume(roi, volumeNode))
        cropped = crop(Volume(array, placement.world_ijk_to_ras(volumeNode)), box)
        ((segmentID, _),) = segments_of(run.segmentationNode).items()
        mask = mrml.labelmap_of(run.segmentationNode, segmentID, volumeNode)
        found = np.zeros(array.shape, bool)
        found[box] = expected(models, cropped.array, cropped.ijk_to_ras) == 1
        np.testing.assert_array_equal(mask, found)
        points = {each["k"]: point for each, point in zip(*map(frame["Liver"].get, DOUBTFUL), strict=True)}
        for k, point in points.items():
            on_frame = markups.points_on_volume([point], volumeNode, mrml.volume_from_node(volumeNode))[0]
            index = np.linalg.solve(mrml.volume_from_node(volumeNode).ijk_to_ras, [*on_frame, 1])
            assert index[1] == pytest.approx(k, abs=1e-6)
    roi.SetCenterWorld([1000, 0, 0])
    with pytest.raises(VolumeError, match=r"^Frame 1: box contains no voxel of CT"):
        logic.start(volumeNode, allFrames=True, roi=roi)


def test_a_correction_of_a_frame_is_still_there_when_the_user_comes_back(scene, logic, models, heart_beat):
    volumeNode, _browser = heart_beat
    run = a_run(logic, volumeNode, allFrames=True)
    run.look_at(0)
    ((segmentID, _),) = segments_of(run.segmentationNode).items()
    corrected = mrml.labelmap_of(run.segmentationNode, segmentID, volumeNode)
    corrected[:3] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        corrected.astype(np.uint8), run.segmentationNode, segmentID, volumeNode
    )
    for item in (1, 0):
        run.look_at(item)
        assert list(segments_of(run.segmentationNode)) == [segmentID]  # what is shown of it, and how, goes by its ID
    np.testing.assert_array_equal(mrml.labelmap_of(run.segmentationNode, segmentID, volumeNode), corrected)
    take_messages()  # VTK's, about the colours of a label map


def test_a_volume_alone_is_no_sequence(scene, logic, heart_beat):
    with pytest.raises(VolumeError, match="is not part of a sequence"):
        logic.process(add_volume(a_scan(), GRID), allFrames=True)
    with pytest.raises(ValueError, match="allFrames creates a new sequence"):
        logic.process(heart_beat[0], allFrames=True, maps=["probability"])


def test_a_result_never_gets_into_another_frame_than_the_one_that_was_segmented(scene, logic, heart_beat):
    volumeNode, browser = heart_beat
    segmentationNode = a_run(logic, volumeNode, allFrames=True).segmentationNode
    show_frame(browser, 1)
    before = all_about(segmentationNode)
    show_frame(browser, 0)
    run = logic.start(volumeNode, segmentationNode, existing="replace", device="cpu")
    show_frame(browser, 1)  # while it runs
    wait(logic, lambda: not run.running)
    assert "no longer shows the image" in str(run.error)
    assert all_about(segmentationNode) == before


def test_the_threshold_of_one_frame_can_be_changed_while_that_frame_is_shown(scene, logic, heart_beat):
    volumeNode, browser = heart_beat
    run = a_run(logic, volumeNode)
    before = all_about(run.segmentationNode)
    show_frame(browser, 1)
    with pytest.raises(RunError, match="no longer shows the image"):
        run.set_threshold(0.9)
    assert all_about(run.segmentationNode) == before
    show_frame(browser, 0)
    run.set_threshold(0.9)
    wait(logic, lambda: not run.jobs)
    assert run.result.threshold == 0.9


@pytest.mark.parametrize("gone", ["browser", "sequence"])
def test_a_row_of_a_sequence_that_was_removed_leads_nowhere(scene, logic, heart_beat, gone):
    volumeNode, browser = heart_beat
    run = a_run(logic, volumeNode, allFrames=True)
    assert run.look_at(1) is not None
    scene.RemoveNode(browser if gone == "browser" else browser.GetSequenceNode(run.segmentationNode))
    assert run.look_at(1) is None
