"""The module's logic on a real scene: a result cut again at another threshold, and which segments a later result replaces."""

from __future__ import annotations

import shutil
import types

import numpy as np
import pytest

from Testing.support.bright import bright_nodule_bundle
from Testing.support.mrml_scene import (
    LIVER_TERMINOLOGY,
    add_volume,
    segments_of,
    slicer,
    take_messages,
)
from Testing.support.organs import organ, organs_bundle, organs_scan
from Testing.support.worker_logic import GRID, a_run, a_scan, expected, wait
from UNetPlusPlusSegmentLib.core.request import RequestError
from UNetPlusPlusSegmentLib.network.bundle import BundleError
from UNetPlusPlusSegmentLib.scene import mrml
from UNetPlusPlusSegmentLib.scene.runs import RunError
from UNetPlusPlusSegmentLib.scene.scene_runs import segments_of_target


def test_the_threshold_cuts_the_result_again_in_place(scene, logic, models):
    volumeNode = add_volume(a_scan(), GRID)
    run = a_run(logic, volumeNode)
    ((segmentID, segment),) = segments_of(run.segmentationNode).items()
    segment.SetName("my liver")
    segment.SetColor(0.2, 0.4, 0.6)
    for threshold in (0.3, 0.6, 0.97):  # the worker is at the first one while the others come
        run.set_threshold(threshold)
    wait(logic, lambda: not run.jobs)
    assert run.error is None
    assert run.result.threshold == 0.97
    mask = mrml.labelmap_of(run.segmentationNode, segmentID, volumeNode)
    np.testing.assert_array_equal(mask, expected(models, a_scan(), threshold=0.97) == 1)
    assert list(run.measurements) == ["my liver"]
    np.testing.assert_allclose(segment.GetColor(), (0.2, 0.4, 0.6), atol=1e-6)
    assert segments_of(run.segmentationNode).keys() == {segmentID}


def test_at_another_threshold_a_nodule_keeps_what_the_user_gave_it_and_numbers_go_by_size(scene, logic, models):
    bundle = bright_nodule_bundle(models / "spots-v1.0.0")
    k, j, i = np.ogrid[:30, :80, :80]
    chest = np.full((30, 80, 80), -850, np.int16)
    chest[(k - 12) ** 2 + (j - 40) ** 2 + (i - 30) ** 2 <= 36] = -290  # likely by 0.57, and its core by 1
    chest[(k - 12) ** 2 + (j - 40) ** 2 + (i - 30) ** 2 <= 9] = 40
    chest[(k - 20) ** 2 + (j - 20) ** 2 + (i - 60) ** 2 <= 16] = 40
    chest[(k - 20) ** 2 + (j - 60) ** 2 + (i - 60) ** 2 <= 9] = -290
    volumeNode = add_volume(chest, np.diag([-1.0, -1.0, 1.0, 1.0]))
    points = [[-30, -40, 12], [-60, -20, 20], [-60, -60, 20]]
    run = a_run(logic, volumeNode, target="nodule", points=points)
    assert list(run.measurements) == ["Nodule 1", "Nodule 2", "Nodule 3"]
    segmentation = run.segmentationNode.GetSegmentation()
    segmentation.GetSegment(run.segmentIDs[0]).SetName("Nodule 1, right upper lobe")
    segmentation.GetSegment(run.segmentIDs[1]).SetColor(0.2, 0.4, 0.6)
    segmentation.GetSegment(run.segmentIDs[1]).SetTerminology(LIVER_TERMINOLOGY)
    display = run.segmentationNode.GetDisplayNode()
    display.SetSegmentVisibility(run.segmentIDs[1], False)
    before = run.segmentIDs
    run.set_threshold(0.9)
    wait(logic, lambda: not run.jobs)
    shutil.rmtree(bundle.folder)
    assert run.error is None
    assert list(run.measurements) == ["Nodule 1", "Nodule 1, right upper lobe"]
    assert run.segmentIDs == [before[1], before[0]] == list(segmentation.GetSegmentIDs())
    np.testing.assert_allclose(segmentation.GetSegment(run.segmentIDs[0]).GetColor(), (0.2, 0.4, 0.6), atol=1e-2)
    assert segmentation.GetSegment(run.segmentIDs[0]).GetTerminology() == LIVER_TERMINOLOGY
    assert [bool(display.GetSegmentVisibility(each)) for each in run.segmentIDs] == [False, True]


def test_a_nodule_of_another_run_does_not_inherit_the_name_of_the_one_it_replaces(scene, logic, models):
    bundle = bright_nodule_bundle(models / "spots-v1.0.0")
    k, j, i = np.ogrid[:40, :80, :80]
    chest = np.full((40, 80, 80), -850, np.int16)
    chest[(k - 18) ** 2 + (j - 40) ** 2 + (i - 25) ** 2 <= 16**2] = 40
    chest[(k - 20) ** 2 + (j - 20) ** 2 + (i - 60) ** 2 <= 16] = 40
    volumeNode = add_volume(chest, np.diag([-1.0, -1.0, 1.0, 1.0]))
    run = a_run(logic, volumeNode, target="nodule", points=[[-25, -40, 18]])
    assert list(run.measurements) == ["Mass 1"]
    options = {"points": [[-60, -20, 20]], "existing": "replace"}
    run = a_run(logic, volumeNode, run.segmentationNode, target="nodule", **options)
    shutil.rmtree(bundle.folder)
    assert list(run.measurements) == ["Nodule 1"]
    assert [each.GetName() for each in segments_of(run.segmentationNode).values()] == ["Nodule 1"]


def test_only_nodules_with_a_name_that_a_run_gave_them_are_replaced(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    names = ("Nodule 1", "Nodule 2, biopsied", "Mass 3", "Nodule", "my Nodule 4", "Nodule 12")
    first, _, third, *_, last = (node.GetSegmentation().AddEmptySegment("", name) for name in names)
    assert segments_of_target(node, types.SimpleNamespace(finds_nodules=True), "nodule") == [first, third, last]


def test_of_several_labels_each_takes_the_place_of_its_own_whatever_their_order_in_the_scene(scene):
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode").GetSegmentation()
    first, _, liver, _ = (segmentation.AddEmptySegment("", name) for name in ("Tumour", "Other", "Liver", "Tumour"))
    labels = [types.SimpleNamespace(name=name) for name in ("Liver", "Tumour", "Spleen")]
    bundle = types.SimpleNamespace(finds_nodules=False, labels_of=lambda target: labels)
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert segments_of_target(node, bundle, "all") == [liver, first]


def test_any_target_of_a_network_with_several_labels_is_found_and_only_its_own_segments_are_replaced(
    scene, logic, models
):
    bundle = organs_bundle(models / "abdomen-ct-v1.0.0")
    try:
        volumeNode = add_volume(organs_scan().array, organs_scan().ijk_to_ras)
        measurements = logic.process(volumeNode, target="spleen", device="cpu", speed="accurate")
        assert list(measurements) == ["Spleen"]
        segmentationNode = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
        (spleen,) = segments_of(segmentationNode)
        np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, spleen, volumeNode), organ("Spleen"))
        options = {"device": "cpu", "speed": "accurate", "existing": "replace"}
        measurements = logic.process(volumeNode, segmentationNode, "abdomen", **options)
        assert list(measurements) == ["Spleen", "Right kidney", "Left kidney"]
        segments = segments_of(segmentationNode)
        assert [each.GetName() for each in segments.values()] == list(measurements)
        assert next(iter(segments)) == spleen, "it was there: it is the same segment, not a new one"
        left = list(segments)[2]
        segmentationNode.GetSegmentation().RemoveSegment(left)
        run = a_run(logic, volumeNode, segmentationNode, target="kidney", speed="accurate", existing="replace")
        assert list(run.measurements) == ["Right kidney", "Left kidney"]
        assert [each.GetName() for each in segments_of(segmentationNode).values()] == [
            "Spleen", "Right kidney", "Left kidney",
        ]  # fmt: skip
        for segmentID, name in zip(run.segmentIDs, run.measurements, strict=True):
            np.testing.assert_array_equal(mrml.labelmap_of(segmentationNode, segmentID, volumeNode), organ(name))
        run.set_threshold(0.9)
        wait(logic, lambda: not run.jobs)
        assert (run.error, list(run.measurements)) == (None, ["Right kidney", "Left kidney"])
        with pytest.raises(RequestError, match="Points can only be used for nodules"):
            logic.process(volumeNode, target="spleen", points=[(1, 2, 3)])
        with pytest.raises(BundleError, match=r"There are models for .*abdomen \(Spleen"):
            logic.process(volumeNode, target="heart")
    finally:
        shutil.rmtree(bundle.folder)


def test_surfaces_and_other_segments_do_not_stop_the_threshold(scene, logic):
    run = a_run(logic, add_volume(a_scan(), GRID))
    run.segmentationNode.CreateClosedSurfaceRepresentation()
    run.segmentationNode.GetSegmentation().AddEmptySegment()
    run.set_threshold(0.9)
    wait(logic, lambda: not run.jobs)
    assert (run.error, run.result.threshold) == (None, 0.9)


def test_a_segment_that_was_edited_is_left_alone(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    run = a_run(logic, volumeNode)
    (segmentID,) = run.segmentIDs
    edited = mrml.labelmap_of(run.segmentationNode, segmentID, volumeNode)
    edited[:3] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        edited.astype(np.uint8), run.segmentationNode, segmentID, volumeNode
    )
    with pytest.raises(RunError, match="kept: Liver"):
        run.set_threshold(0.9)
    np.testing.assert_array_equal(mrml.labelmap_of(run.segmentationNode, segmentID, volumeNode), edited)
    run.segmentationNode.GetSegmentation().RemoveSegment(segmentID)
    with pytest.raises(RunError, match="was removed"):
        run.set_threshold(0.8)
    take_messages()  # VTK's, about the segment that is asked for and not there
