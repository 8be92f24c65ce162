"""The module's logic on a real scene with the real worker: what lies where after a run, and what stays as it was."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import sys
import types
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from Testing.support.bright import bright_nodule_bundle
from Testing.support.mrml_scene import (
    LIVER,
    NODULE,
    PLACES,
    TURN,
    add_bspline_transform,
    add_hand_made_segments,
    add_linear_transform,
    add_volume,
    all_about,
    nothing_changes,
    rotation,
    segments_of,
    slicer,
    take_messages,
)
from Testing.support.worker_logic import GRID, LONG, a_run, a_scan, expected, started, wait
from UNetPlusPlusSegmentLib.core.volume import VolumeError
from UNetPlusPlusSegmentLib.jobs.protocol import JobError
from UNetPlusPlusSegmentLib.scene import mrml, placement, pytorch_install, showing
from UNetPlusPlusSegmentLib.scene.runs import RunError
from UNetPlusPlusSegmentLib.scene.scene_runs import SceneRun

MODULE = Path(mrml.__file__).parents[2]
PANEL = MODULE / "UNetPlusPlusSegment.py"


# A run


def test_a_volume_becomes_a_segmentation_and_its_measurements(scene, logic, models):
    volumeNode = add_volume(a_scan(), GRID, "Abdomen")
    measurements = logic.process(volumeNode, device="cpu")
    segmentationNode = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert segmentationNode.GetName() == "Abdomen segmentation"
    ((segmentID, segment),) = segments_of(segmentationNode).items()
    assert segment.GetName() == "Liver"
    mask = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
    np.testing.assert_array_equal(mask, expected(models, a_scan()) == 1)
    volume_ml = mask.sum() * abs(np.linalg.det(GRID[:3, :3])) / 1000
    assert measurements["Liver"]["volume_ml"] == pytest.approx(volume_ml)
    assert 80 < measurements["Liver"]["mean_hu"] <= 90


@pytest.mark.parametrize(
    "place",
    [
        lambda: add_linear_transform(TURN),
        lambda: add_linear_transform(rotation(90, 0)),
        lambda: add_linear_transform(rotation(90, 1)),
        PLACES["grid under linear transform"],
        PLACES["B-spline transform"],
    ],
    ids=["turned over", "on end", "on side", "acquisition transform under a linear one", "deformed"],
)
def test_slices_are_cut_as_the_patient_lies_in_the_world(scene, logic, models, place):
    transformNode = place()
    volumeNode = add_volume(a_scan(), GRID, transform=transformNode)
    run = a_run(logic, volumeNode)
    assert run.error is None
    assert run.segmentationNode.GetTransformNodeID() == transformNode.GetID()
    mask = mrml.labelmap_of(run.segmentationNode, run.segmentIDs[0], volumeNode)
    np.testing.assert_array_equal(mask, expected(models, a_scan(), placement.world_ijk_to_ras(volumeNode)) == 1)


def test_a_note_and_the_doubtful_slices_name_places_that_the_views_show_though_a_transform_scales(scene, logic, models):
    volumeNode = add_volume(a_scan(), GRID, transform=add_linear_transform(np.diag([1.2, 1.2, 1.2, 1.0])))
    found = logic.process(volumeNode, device="cpu")["Liver"]
    assert [each["s_mm"] for each in found["doubtful_slices"]] == [s for _, _, s in found["doubtful_slices_ras"]]
    bundle = bright_nodule_bundle(models / "spots-v1.0.0")
    chest = add_volume(np.full((20, 50, 50), -850, np.int16), transform=volumeNode.GetParentTransformNode())
    run = a_run(logic, chest, target="nodule", points=[[30.0, 20.0, 10.0]])
    shutil.rmtree(bundle.folder)
    (note,) = (str(each) for each in run.result.notes if each.kind == "nothing-at-point")
    assert note.startswith("No nodule of 3 mm or more was found at (30, 20, 10) or within 10 mm of it.")


def test_maps_that_are_asked_for_lie_on_the_volume(scene, logic):
    volumeNode = add_volume(a_scan(), GRID, "Abdomen", add_linear_transform(TURN))
    run = a_run(logic, volumeNode, maps=("probability", "uncertainty"))
    assert [node.GetName() for node in run.mapNodes] == ["Abdomen liver probability", "Abdomen liver uncertainty"]
    probability = mrml.volume_from_node(run.mapNodes[0])
    np.testing.assert_allclose(probability.ijk_to_ras, GRID, atol=1e-9)
    assert run.mapNodes[0].GetTransformNodeID() == volumeNode.GetTransformNodeID()
    mask = mrml.labelmap_of(run.segmentationNode, run.segmentIDs[0], volumeNode)
    assert probability.array[mask].min() >= 0.5


def test_maps_of_a_result_that_replaces_another_take_the_place_of_its_maps(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    first = a_run(logic, volumeNode, maps=("probability",))
    again = a_run(logic, volumeNode, first.segmentationNode, existing="replace", maps=("probability", "uncertainty"))
    assert again.mapNodes[0] is first.mapNodes[0]
    a_run(logic, volumeNode, first.segmentationNode, existing="new", maps=("probability",))
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 4


def test_a_map_takes_the_place_of_none_of_another_volume_target_or_kind(scene):
    segmentationNode = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    volumes = [add_volume(a_scan(), GRID, name) for name in ("arterial", "venous")]

    def maps() -> list:
        return [
            SceneRun._show_map(
                types.SimpleNamespace(
                    target=target, volumeNode=volumeNode, segmentationNode=segmentationNode, _replaces=True
                ),
                name,
                np.zeros(a_scan().shape, np.float32),
            )
            for volumeNode in volumes
            for target in ("liver", "spleen")
            for name in ("probability", "uncertainty")
        ]

    first = maps()
    assert len({node.GetName() for node in first}) == len(first) == 8
    assert maps() == first


def test_a_run_tells_slices_device_and_free_memory_on_its_way(scene, logic):
    run = started(logic, add_volume(a_scan(LONG), GRID))
    assert run.progress.total == LONG
    assert run.device.device.startswith("cpu")
    assert run.device.free_memory_bytes > 1e8
    run.cancel()
    wait(logic, lambda: not run.running)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": ["prob"]}, r"maps must be a list with probability, uncertainty or both; got \['prob'\]"),
        ({"maps": "probability"}, "maps must be a list"),
        ({"target": "nodule", "points": [52.1, -80.4, 1210.0]}, "52.1 is not a point: give three numbers"),
        ({"target": "nodule", "points": [(52.1, -80.4)]}, "is not a point: give three numbers"),
    ],
)
def test_maps_and_points_that_are_none_are_refused_and_the_scene_is_unchanged(scene, logic, models, options, message):
    bundle = bright_nodule_bundle(models / "spots-v1.0.0")
    volumeNode = add_volume(a_scan(), GRID)
    with nothing_changes(scene), pytest.raises(ValueError, match=message):
        logic.process(volumeNode, device="cpu", **options)
    shutil.rmtree(bundle.folder)


def test_find_leaves_the_scene_unchanged_at_another_threshold_too(scene, logic, models):
    volumeNode = add_volume(a_scan(), GRID)
    with nothing_changes(scene):
        run = logic.find(volumeNode, device="cpu")
        wait(logic, lambda: not run.running)
        np.testing.assert_array_equal(run.result.labelmap, expected(models, a_scan()))
        run.set_threshold(0.97)
        wait(logic, lambda: not run.jobs)
        np.testing.assert_array_equal(run.result.labelmap, expected(models, a_scan(), threshold=0.97))
    assert run.error is None


# What stays as it was


def test_a_new_result_beside_others_touches_none_and_a_replacement_only_its_own(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    add_hand_made_segments()
    segmentationNode = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    by_hand = all_about(segmentationNode)
    for existing, names in (("new", ["Liver"]), ("new", ["Liver", "Liver_1"]), ("replace", ["Liver", "Liver_1"])):
        run = a_run(logic, volumeNode, segmentationNode, existing=existing, threshold=0.9)
        assert run.error is None
        now = all_about(segmentationNode)
        assert {key: now[key] for key in by_hand} == by_hand
        assert [segment.GetName() for segment in segments_of(segmentationNode).values()][2:] == names
    assert segments_of(segmentationNode)[run.segmentIDs[0]].GetName() == "Liver"


def test_a_cancelled_run_changes_nothing(scene, logic):
    run = started(logic, add_volume(a_scan(LONG), GRID))
    with nothing_changes(scene):
        run.cancel()
        wait(logic, lambda: not run.running)
    assert run.error.kind == "cancelled"
    assert run.result is None


def test_what_is_no_ct_is_refused_and_changes_nothing_unless_forced(scene, logic):
    volumeNode = add_volume(a_scan() + 1024, GRID)
    with nothing_changes(scene), pytest.raises(JobError, match="does not look like CT"):
        logic.process(volumeNode)
    assert a_run(logic, volumeNode, force=True).result.notes[0].kind == "forced"
    with nothing_changes(scene), pytest.raises(VolumeError, match="No volume was given"):
        logic.process(None)


def test_a_volume_that_leaves_in_mid_run_stops_it(scene, logic):
    volumeNode = add_volume(a_scan(LONG), GRID)
    run = started(logic, volumeNode)
    scene.RemoveNode(volumeNode)
    logic.poll()
    assert not run.running
    assert isinstance(run.error, RunError)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert logic.process(add_volume(a_scan(), GRID))["Liver"]["volume_ml"] > 0


def test_a_volume_that_is_moved_or_resized_in_mid_run_gets_no_result_of_its_earlier_place(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    for change in (volumeNode.SetSpacing, volumeNode.SetOrigin):
        run = logic.start(volumeNode, device="cpu")
        change(0.5, 0.5, 0.5)
        with nothing_changes(scene):
            wait(logic, lambda run=run: not run.running)
        assert "was moved, or its voxels got another size" in str(run.error)


def test_a_scene_that_is_closed_in_mid_run_stays_empty(scene, logic):
    run = started(logic, add_volume(a_scan(LONG), GRID))
    scene.Clear(False)
    wait(logic, lambda: not logic.busy)
    assert not run.running
    assert scene.GetNumberOfNodesByClass("vtkMRMLDisplayableNode") == 0


def a_liver_before(volumeNode):
    """A segmentation with a liver in the lower half of the volume, and its ID."""
    drawn = np.zeros(mrml.volume_from_node(volumeNode).array.shape, np.uint8)
    drawn[: len(drawn) // 2] = 1
    segmentationNode = showing.show_segmentation(drawn, [replace(LIVER, name="Liver")], volumeNode)
    return segmentationNode, segmentationNode.GetSegmentation().GetNthSegmentID(0)


def test_a_segment_that_is_edited_in_mid_run_is_not_replaced(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    segmentationNode, segmentID = a_liver_before(volumeNode)
    run = logic.start(volumeNode, segmentationNode, device="cpu", existing="replace")
    edited = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
    edited[-1] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited.astype(np.uint8), segmentationNode, segmentID, volumeNode)
    take_messages()  # Slicer's, about colours
    with nothing_changes(scene):
        wait(logic, lambda: not run.running)
    assert str(run.error).startswith("Edited during the run, and therefore kept: Liver.")


def test_a_segment_that_slicer_only_moves_to_another_layer_in_mid_run_is_replaced(scene, logic):
    volumeNode = add_volume(a_scan(), GRID)
    segmentationNode, segmentID = a_liver_before(volumeNode)
    apart = ~mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
    showing.show_segmentation(apart * np.uint8(2), [NODULE], volumeNode, segmentationNode)
    run = logic.start(volumeNode, segmentationNode, device="cpu", existing="replace")
    segmentation = segmentationNode.GetSegmentation()
    assert segmentation.GetNumberOfLayers() == 2
    segmentation.CollapseBinaryLabelmaps(False)  # as when a scene is saved
    assert segmentation.GetNumberOfLayers() == 1
    wait(logic, lambda: not run.running)
    assert (run.error, run.segmentIDs) == (None, [segmentID])


def test_a_segmentation_that_leaves_in_mid_run_is_made_anew(scene, logic):
    volumeNode, segmentationNode = add_volume(a_scan(), GRID), scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    run = logic.start(volumeNode, segmentationNode, device="cpu")
    scene.RemoveNode(segmentationNode)
    wait(logic, lambda: not run.running)
    assert run.error is None
    assert run.segmentationNode is not segmentationNode
    assert scene.IsNodePresent(run.segmentationNode)


def test_a_segmentation_that_cannot_take_the_result_is_refused_before_the_run(scene, logic):
    volumeNode, surfaces = add_volume(a_scan(), GRID), add_hand_made_segments()
    warped = add_hand_made_segments(add_bspline_transform())
    surfaces.CreateClosedSurfaceRepresentation()
    surfaces.SetSourceRepresentationToClosedSurface()
    for segmentationNode, message in ((surfaces, "stores its segments as Closed surface"), (warped, "non-linear")):
        with nothing_changes(scene), pytest.raises(mrml.SegmentationError, match=message):
            logic.start(volumeNode, segmentationNode, device="cpu")
        assert not logic.busy


def test_a_killed_worker_leaves_no_half_result_and_the_next_run_works(scene, logic):
    volumeNode = add_volume(a_scan(LONG), GRID)
    run = started(logic, volumeNode)
    with nothing_changes(scene):
        os.kill(logic._worker.pid, signal.SIGKILL)
        wait(logic, lambda: not run.running)
    assert "killed by the operating system" in str(run.error)
    assert logic.process(add_volume(a_scan(), GRID))["Liver"]["volume_ml"] > 0


def test_without_pytorch_the_way_to_it_is_said(scene, logic, monkeypatch):
    volumeNode = add_volume(a_scan(), GRID)
    monkeypatch.setattr(pytorch_install, "is_installed", lambda: False)
    with nothing_changes(scene), pytest.raises(pytorch_install.PyTorchError, match="install the PyTorch extension"):
        logic.process(volumeNode)
    with pytest.raises(pytorch_install.PyTorchError, match="Extensions Manager"):
        pytorch_install.install()  # there is no such extension here


def test_an_installation_of_pytorch_that_fails_says_so_and_a_second_one_meanwhile_is_refused(monkeypatch):
    class Logic:
        def installTorch(self, **options):
            assert not pytorch_install.is_installed()  # what is half there is not there
            with pytest.raises(pytorch_install.PyTorchError, match="is being installed"):
                pytorch_install.install()
            raise OSError("no space left on device")

    monkeypatch.setitem(sys.modules, "PyTorchUtils", types.SimpleNamespace(PyTorchUtilsLogic=Logic))
    with pytest.raises(pytorch_install.PyTorchError, match=r"could not be installed \(no space left on device\)"):
        pytorch_install.install()
    assert pytorch_install.is_installed()


def test_where_there_is_no_pytorch_for_this_build_of_slicer_nothing_is_downloaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    monkeypatch.setattr(pytorch_install.sys, "platform", "darwin")
    monkeypatch.setattr(pytorch_install.platform, "machine", lambda: "x86_64")
    with pytest.raises(pytorch_install.PyTorchError, match="Apple silicon"):
        pytorch_install.install()
    monkeypatch.setattr(pytorch_install.platform, "machine", lambda: "arm64")
    with pytest.raises(pytorch_install.PyTorchError, match="Extensions Manager"):
        pytorch_install.install()


def test_an_old_pytorch_and_the_rest_of_a_broken_installation_count_as_none(monkeypatch):
    for version, there in (("2.6.0+cpu", False), ("2.7.1", True), ("3.0", True)):
        monkeypatch.setattr(pytorch_install.metadata, "version", lambda name, version=version: version)
        assert pytorch_install.is_installed() is there

    def nothing(name):
        raise pytorch_install.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(pytorch_install.metadata, "version", nothing)
    assert not pytorch_install.is_installed()


# What the form of the panel is bound to


def test_every_choice_in_the_panel_is_bound_to_a_field_and_every_field_but_target_and_model_to_a_choice():
    form = ElementTree.parse(MODULE / "Resources/UI/UNetPlusPlusSegment.ui")
    bound = [each.findtext("string") for each in form.iter("property") if each.get("name") == "SlicerParameterName"]
    tree = ast.parse(PANEL.read_text(encoding="utf-8"))
    (fields,) = (
        {line.target.id for line in each.body if isinstance(line, ast.AnnAssign)}
        for each in ast.walk(tree)
        if isinstance(each, ast.ClassDef) and each.name == "UNetPlusPlusSegmentParameterNode"
    )
    assert len(bound) == len(set(bound))
    assert set(bound) == fields - {"model", "target"}


def test_what_is_translated_is_written_out():
    sources = [PANEL, *(MODULE / "UNetPlusPlusSegmentUILib").glob("*.py")]
    trees = [ast.parse(source.read_text(encoding="utf-8")) for source in sources]
    calls = [each for tree in trees for each in ast.walk(tree) if isinstance(each, ast.Call)]
    texts = [each for each in calls if isinstance(each.func, ast.Name) and each.func.id == "_"]
    assert len(texts) > 30
    for each in texts:
        assert [type(argument) for argument in each.args] == [ast.Constant], (
            f"line {each.lineno}: lupdate finds nothing"
        )
