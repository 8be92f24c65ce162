"""A case of a cohort in the scene: what counts as a change of its segmentation, and what is saved of it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from pydicom.uid import generate_uid

from Testing.support.mrml_scene import LIVER, NODULE, nothing_changes
from Testing.support.sample_files import write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.jobs.manifest import TABLE, read_manifest
from UNetPlusPlusSegmentLib.scene import mrml, showing
from UNetPlusPlusSegmentLib.scene.mrml import SegmentationError
from UNetPlusPlusSegmentLib.scene.shown_case import ShownCase

MATRIX = np.diag([-2.0, -2.0, 3.0, 1.0])
LABELS = np.zeros((6, 20, 30), np.uint8)
LABELS[1:4, 5:15, 5:20] = 1
LABELS[2:5, 16:19, 22:27] = 2


@pytest.fixture
def case(scene, tmp_path):
    """A case with a liver and a nodule, loaded from a folder of results."""
    files.write_volume(tmp_path / "one.nrrd", np.where(LABELS, 60, -100).astype(np.int16), MATRIX)
    files.write_segmentation(tmp_path / "one.seg.nrrd", LABELS, MATRIX, [LIVER, NODULE])
    return ShownCase(tmp_path, {"case": "one", "input": str(tmp_path / "one.nrrd"), "status": "done"})


def test_slicer_s_save_knows_no_file_of_a_case_that_it_could_replace(case):
    assert case.segmentationNode.GetStorageNode() is None
    assert case.volumeNode.GetStorageNode() is None
    role = case.segmentationNode.GetReferenceImageGeometryReferenceRole()
    assert case.segmentationNode.GetNodeReference(role) is case.volumeNode


def test_a_case_is_shown_in_the_series_that_was_segmented(scene, tmp_path):
    venous = generate_uid()
    for k in range(6):
        write_slice(tmp_path / "ct" / f"{k}.dcm", (0, 0, 2.5 * k), value=40, InstanceNumber=k)
    for k in range(4):
        slice_of_it = tmp_path / "ct" / f"v{k}.dcm"
        write_slice(slice_of_it, (0, 0, 2.5 * k), value=90, SeriesInstanceUID=venous, InstanceNumber=k)
    record = {"case": "ct", "input": str(tmp_path / "ct"), "status": "failed"}
    for series, hu in ((None, 40), (venous, 90)):
        case = ShownCase(tmp_path, {**record, "series": series})
        assert np.unique(mrml.volume_from_node(case.volumeNode).array).tolist() == [hu]
        case.drop()


def test_a_case_that_was_run_by_force_is_shown(scene, tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 30 20 6\nencoding: raw\nendian: little\n\n"  # no size of a voxel
    )
    (tmp_path / "one.nrrd").write_bytes(header.encode() + np.full(LABELS.shape, -100, "<i2").tobytes())
    record = {"case": "one", "input": str(tmp_path / "one.nrrd"), "status": "failed"}
    with pytest.raises(files.FileError, match="voxel"):
        ShownCase(tmp_path, record)
    assert ShownCase(tmp_path, {**record, "force": True}).is_whole


def test_a_case_leaves_nothing_in_the_scene(case, scene):
    case.drop()
    with nothing_changes(scene):
        ShownCase(case.folder, case.record).drop()


def test_a_ct_of_64_bit_integers_is_shown(scene, tmp_path):
    hu = np.full(LABELS.shape, -100, np.int64)
    hu[0, 0, 0] = 1 << 40
    files.write_volume(tmp_path / "one.nrrd", hu, MATRIX)
    case = ShownCase(tmp_path, {"case": "one", "input": str(tmp_path / "one.nrrd"), "status": "failed"})
    shown = mrml.volume_from_node(case.volumeNode).array
    assert (shown.dtype, shown[0, 0, 0], shown[0, 0, 1]) == (np.int32, np.iinfo(np.int32).max, -100)


def test_changes_are_known_and_kept_although_the_ct_was_removed(case, scene):
    scene.RemoveNode(case.volumeNode)
    assert not case.is_changed
    case.segmentationNode.GetSegmentation().GetNthSegment(0).SetName("Left lobe")
    assert case.is_changed
    with pytest.raises(files.FileError, match=r"The CT was removed.*Slicer's Save"):
        case.save()


def test_a_case_with_a_damaged_segmentation_is_refused_and_leaves_nothing_in_the_scene(case, scene):
    case.drop()
    path = case.folder / "one.seg.nrrd"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(files.FileError, match=r"one\.seg\.nrrd cannot be read"):
        ShownCase(case.folder, case.record)
    assert scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda segment: segment.SetName("Left lobe"),
        lambda segment: segment.SetColor(0, 0, 1),
        lambda segment: segment.SetTerminology(NODULE.terminology),
    ],
    ids=["name", "colour", "term"],
)
def test_a_segment_with_another_name_colour_or_term_is_a_change_until_it_is_saved(case, change):
    assert not case.is_changed
    change(case.segmentationNode.GetSegmentation().GetNthSegment(0))
    assert case.is_changed
    case.save()
    assert not case.is_changed


@pytest.mark.parametrize(
    ("target", "measured"),
    [("liver, nodule", ["nodule 1"]), ("liver", ["nodule 1"]), ("nodule", ["liver", "nodule 1"])],
)
def test_a_segment_is_measured_as_a_nodule_by_its_term_or_if_nothing_else_was_looked_for(case, target, measured):
    case.record = {**case.record, "target": target}
    found = case.save()["measurements"]
    assert [*found] == ["liver", "nodule 1"]
    assert [name for name, each in found.items() if "long_axis_mm" in each] == measured


def test_segments_that_are_surfaces_only_are_not_saved_as_empty_ones(case):
    segmentation = case.segmentationNode.GetSegmentation()
    segmentation.CreateRepresentation("Closed surface")
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation("Binary labelmap")
    with pytest.raises(SegmentationError, match="labelmap"):
        case.save()
    assert not (case.folder / "one.corrected.seg.nrrd").exists()


def test_more_segments_than_a_file_can_hold_are_a_change_that_is_not_saved(case):
    segmentation = case.segmentationNode.GetSegmentation()
    for number in range(254):
        segmentation.AddEmptySegment("", f"Mine {number}")
    assert case.is_changed
    with pytest.raises(SegmentationError, match="up to 255 segments"):
        case.save()
    assert not (case.folder / "one.corrected.seg.nrrd").exists()
    assert "one.corrected" not in read_manifest(case.folder)


def test_segments_that_overlap_are_not_cut_but_refused_until_one_is_subtracted(case):
    node, drawn = case.segmentationNode, (LABELS == 1).astype(np.uint8)
    drawn[:, 7:] = 0
    showing.show_segmentation(drawn, [Segment(1, "Tumour", "", (0, 0, 255), {})], case.volumeNode, node)
    assert case.is_changed
    with pytest.raises(SegmentationError, match=r"liver and Tumour overlap.*subtract one"):
        case.save()
    assert not (case.folder / "one.corrected.seg.nrrd").exists()
    rest = ((LABELS == 1) & (drawn == 0)).astype(np.uint8)
    liver = node.GetSegmentation().GetNthSegmentID(0)
    showing.show_segmentation(rest, [LIVER], case.volumeNode, node, inPlaceOf={1: liver})
    found = case.save()["measurements"]
    assert {name: each["volume_ml"] for name, each in found.items()} == pytest.approx(
        {"liver": rest.sum() * 0.012, "nodule 1": 0.54, "Tumour": drawn.sum() * 0.012}
    )


def test_segments_that_lie_in_layers_of_their_own_without_overlap_are_saved(case):
    segmentation = case.segmentationNode.GetSegmentation()
    segmentation.SeparateSegmentLabelmap(segmentation.GetNthSegmentID(1))
    segmentation.AddEmptySegment("", "Empty")
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))
    assert [*case.save()["measurements"]] == ["nodule 1", "Empty"]


def test_segments_of_one_name_each_have_their_row_in_the_table(case):
    segmentation = case.segmentationNode.GetSegmentation()
    segmentation.GetNthSegment(1).SetName("liver")
    found = case.save()["measurements"]
    assert [(name, each["volume_ml"]) for name, each in found.items()] == [
        ("liver", pytest.approx(5.4)),
        ("liver (2)", pytest.approx(0.54)),
    ]


def test_padding_in_a_corrected_segment_counts_as_air(scene, tmp_path):
    hu = np.where(LABELS, 60, -100).astype(np.int16)
    hu[1, 5:15, 5:20] = -3024  # a third of the liver
    files.write_volume(tmp_path / "one.nrrd", hu, MATRIX)
    files.write_segmentation(tmp_path / "one.seg.nrrd", LABELS, MATRIX, [LIVER, NODULE])
    case = ShownCase(tmp_path, {"case": "one", "input": str(tmp_path / "one.nrrd"), "status": "done"})
    assert case.save()["measurements"]["liver"]["mean_hu"] == pytest.approx((60 + 60 - 1024) / 3)


def test_the_row_of_a_correction_says_how_its_case_was_run(case):
    how = {"target": "liver", "model": "liver-ct-v1.0.0", "speed": "fast", "threshold": 0.4}
    case.record = {**case.record, **how}
    case.save()
    with (case.folder / TABLE).open(encoding="utf-8", newline="") as stream:
        liver, nodule = csv.DictReader(stream)
    assert (liver["case"], nodule["case"], liver["status"]) == ("one.corrected", "one.corrected", "corrected")
    assert [liver[key] for key in ("model", "speed", "threshold", "input")] == [
        "liver-ct-v1.0.0", "fast", "0.4", case.record["input"],
    ]  # fmt: skip
