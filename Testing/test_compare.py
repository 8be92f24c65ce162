"""Two segmentations compared: figures that can be worked out by hand, and files whose voxels are counted in other ways."""

from __future__ import annotations

import json

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.sr.codedict import codes

from Testing.support.sample_files import LIVER as TERM
from Testing.support.sample_files import labels, write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.cli.main import main
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume, crop
from UNetPlusPlusSegmentLib.files.dicom_seg import MAY_BE_EMPTY
from UNetPlusPlusSegmentLib.files.images import FileError, image_from_array
from UNetPlusPlusSegmentLib.files.pairs import find_pairs

TILT = np.deg2rad(20)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = [[np.cos(TILT), -np.sin(TILT), 0], [np.sin(TILT), np.cos(TILT), 0], [0, 0, 1]] @ np.diag(
    [-1.0, -1.5, 3]
)
OBLIQUE[:3, 3] = [10, -20, 30]


def block(k, j, i) -> np.ndarray:
    mask = np.zeros((12, 20, 24), bool)
    mask[k, j, i] = True
    return mask


LIVER, MOVED = block(*np.s_[2:8, 4:14, 4:14]), block(*np.s_[2:8, 4:14, 7:17])  # three voxels of 1 mm further along I
SPLEEN = block(*np.s_[2:5, 15:19, 2:6])


def write(path, labelmap, names=("Liver", "Spleen"), matrix=OBLIQUE):
    segments = [Segment(value, name, "", (1, 2, 3), {}) for value, name in enumerate(names, start=1)]
    files.write_segmentation(path, labelmap.astype(np.uint8), matrix, segments)
    return str(path)


def compared(capsys, *arguments) -> dict:
    assert main(["compare", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def one(tmp_path):
    return write(tmp_path / "one.seg.nrrd", LIVER + 2 * SPLEEN)


def test_a_block_three_millimetres_off_has_the_figures_worked_out_by_hand(one, tmp_path, capsys):
    other = write(tmp_path / "other.seg.nrrd", MOVED + 2 * SPLEEN)
    liver, spleen = compared(capsys, one, other)["segments"]
    voxel_ml = 1.0 * 1.5 * 3 / 1000
    assert liver["segment"] == "Liver"
    assert liver["dice"] == pytest.approx(0.7)
    assert liver["volume_a_ml"] == liver["volume_b_ml"] == pytest.approx(600 * voxel_ml)
    assert liver["hausdorff95_mm"] == pytest.approx(3)
    # Further than 2 mm off lie the face that juts out, and of the one inside the other block what is not near its sides.
    assert liver["surface_dice"] == pytest.approx(1 - (6 * 10 + 4 * 6) / (600 - 4 * 8 * 8))
    assert (spleen["dice"], spleen["hausdorff95_mm"], spleen["surface_dice"]) == (1, 0, 1)


def test_segments_are_matched_by_name_not_by_value_and_unmatched_ones_are_named(one, tmp_path, capsys):
    other = write(
        tmp_path / "other.seg.nrrd", 1 * SPLEEN + 2 * LIVER + 3 * (MOVED & ~LIVER), ("Spleen", "Liver", "Tumour")
    )
    found = compared(capsys, one, other)
    assert [(each["segment"], each["dice"]) for each in found["segments"]] == [("Liver", 1), ("Spleen", 1)]
    assert found["notes"] == [f"Only {other} has Tumour."]


@pytest.mark.parametrize("named_first", [True, False])
def test_a_label_map_without_names_is_compared_by_value_and_takes_the_names_of_the_other(
    one, tmp_path, capsys, named_first
):
    plain = write(tmp_path / "plain.nii.gz", 2 * SPLEEN + 7 * LIVER)
    found = compared(capsys, *((one, plain) if named_first else (plain, one)))
    assert [(each["segment"], each["dice"]) for each in found["segments"]] == [("Spleen", 1)]
    assert sorted(found["notes"]) == sorted([f"Only {one} has Liver.", f"Only {plain} has 7."])
    (both,) = compared(capsys, plain, write(tmp_path / "more.nii.gz", 2 * SPLEEN))["segments"]
    assert both["segment"] == "2"


def test_voxels_in_another_axis_order_or_with_another_first_voxel_are_matched(one, tmp_path, capsys):
    labels = LIVER + 2 * SPLEEN
    part = crop(Volume(labels, OBLIQUE), np.s_[1:9, 3:20, 2:20])
    array = np.flip(part.array.transpose(2, 0, 1), 2)  # (new K, J, I) = (old I, K, J back)
    columns = part.ijk_to_ras[:, [1, 2, 0, 3]].copy()
    columns[:, 3] += columns[:, 0] * (part.array.shape[1] - 1)
    columns[:, 0] *= -1
    image = image_from_array(np.ascontiguousarray(array.astype(np.uint8)), columns)
    sitk.WriteImage(image, str(tmp_path / "turned.nrrd"))
    found = compared(capsys, one, str(tmp_path / "turned.nrrd"))
    assert [(each["segment"], each["dice"]) for each in found["segments"]] == [("Liver", 1), ("Spleen", 1)]


@pytest.mark.parametrize(
    "moved", [np.diag([1, 1, 1.01, 1]), [[1, 0, 0, 0.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]
)
def test_other_voxels_are_refused_with_both_grids(one, tmp_path, capsys, moved):
    other = write(tmp_path / "other.seg.nrrd", 1 * LIVER, matrix=np.array(moved) @ OBLIQUE)
    assert main(["compare", one, other]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "other.seg.nrrd has other voxels, 24 × 20 × 12 of 1 × 1.5 × 3" in line
    assert "its image" not in line, "none was given"


def test_segments_that_overlap_lie_in_layers_and_are_told_apart(one, tmp_path, capsys):
    image = sitk.GetImageFromArray(np.stack([LIVER, LIVER & MOVED], axis=-1).astype(np.uint8), isVector=True)
    image.CopyInformation(image_from_array(LIVER.astype(np.uint8), OBLIQUE))
    for number, name in enumerate(("Liver", "Lobe")):
        for key, value in (("Name", name), ("Layer", str(number)), ("LabelValue", "1")):
            image.SetMetaData(f"Segment{number}_{key}", value)
    sitk.WriteImage(image, str(tmp_path / "layers.seg.nrrd"))
    (liver,) = compared(capsys, one, str(tmp_path / "layers.seg.nrrd"))["segments"]
    assert (liver["segment"], liver["dice"]) == ("Liver", 1)
    plain = write(tmp_path / "plain.nii.gz", 1 * LIVER)
    assert main(["compare", plain, str(tmp_path / "layers.seg.nrrd")]) == 1
    assert "two segments with the same value" in capsys.readouterr().err


def in_one_layer(path, **keys):
    """A label map with two segments in one layer, as programs other than Slicer write it."""
    image = image_from_array((LIVER + 2 * SPLEEN).astype(np.uint8), OBLIQUE)
    for number, name in enumerate(("Liver", "Spleen")):
        about = {"ID": name, "Name": name, "LabelValue": str(number + 1), **keys}
        for key, value in about.items():
            image.SetMetaData(f"Segment{number}_{key}", value)
    sitk.WriteImage(image, str(path))
    return str(path)


def test_segments_that_name_no_layer_lie_in_the_only_one(one, tmp_path, capsys):
    other = in_one_layer(tmp_path / "other.seg.nrrd")
    found = compared(capsys, one, other)["segments"]
    assert [(each["segment"], each["dice"]) for each in found] == [("Liver", 1), ("Spleen", 1)]


@pytest.mark.parametrize("layer", ["1", "-1"])
def test_a_segment_in_a_layer_that_does_not_exist_is_refused(one, tmp_path, capsys, layer):
    assert main(["compare", one, in_one_layer(tmp_path / "other.seg.nrrd", Layer=layer)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"other.seg.nrrd has 1 layer, but says that Liver lies in layer {layer}" in line


@pytest.mark.parametrize(
    ("key", "value"),
    [("LabelValue", "one"), ("Layer", "x"), ("Color", "red"), ("Color", "nan 0 0"), ("Color", "inf 0 0")],
)
def test_a_segment_whose_description_makes_no_sense_is_refused_by_name(one, tmp_path, capsys, key, value):
    assert main(["compare", one, in_one_layer(tmp_path / "other.seg.nrrd", **{key: value})]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"other.seg.nrrd describes its segment Liver in a way that cannot be read ({key} {value})" in line


def test_layers_are_placed_as_a_single_label_map_is(one, tmp_path, capsys):
    layers = np.stack([LIVER, SPLEEN], axis=-1).astype(np.uint8)
    turned = np.diag([-1, -1, 1]) @ OBLIQUE[:3]  # LPS
    steps = " ".join(f"({','.join(map(str, column / 10))})" for column in turned[:, :3].T)
    fields = (
        "NRRD0005", "{}", "type: uint8", "dimension: 4", "sizes: 2 24 20 12", "encoding: raw", "kinds: list domain domain domain",
        f"space directions: none {steps}", f"space origin: ({','.join(map(str, turned[:, 3] / 10))})",
        'space units: "cm" "cm" "cm"', "Segment0_Name:=Liver", "Segment1_Name:=Spleen", "", "",
    )  # fmt: skip
    path = tmp_path / "layers.seg.nrrd"
    path.write_bytes("\n".join(fields).format("space: LPS").encode() + layers.tobytes())
    assert [each["dice"] for each in compared(capsys, one, str(path))["segments"]] == [1, 1]
    path.write_bytes("\n".join(fields).format("space dimension: 3").encode() + layers.tobytes())
    assert main(["compare", one, str(path)]) == 1
    assert "does not say how the patient lies" in capsys.readouterr().err


def test_a_segment_that_is_empty_in_one_or_in_both_has_no_distance(one, tmp_path, capsys):
    empty = write(tmp_path / "empty.seg.nrrd", 0 * SPLEEN)
    liver, _ = compared(capsys, one, empty)["segments"]
    assert (liver["dice"], liver["hausdorff95_mm"], liver["surface_dice"], liver["volume_b_ml"]) == (0, None, 0, 0)
    nothing, _ = compared(capsys, empty, empty)["segments"]
    assert (nothing["dice"], nothing["hausdorff95_mm"], nothing["surface_dice"]) == (None, None, None)
    assert main(["compare", empty, empty]) == 0
    assert "Liver: empty in both" in capsys.readouterr().out


def test_the_figures_are_told_in_words(one, tmp_path, capsys):
    other = write(tmp_path / "other.seg.nrrd", MOVED + 2 * SPLEEN)
    assert main(["compare", one, other]) == 0
    first, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("Liver: Dice 0.700, 2.7 and 2.7 ml, 95 % surface distance 3.0 mm, surface Dice at 2 mm 0.")


def series(folder, step_mm, aside_mm=0.0):
    """Five slices of 6 × 8 pixels of 0.5 × 0.7 mm, 2.5 mm thick."""
    about = dict.fromkeys(MAY_BE_EMPTY, "") | {"FrameOfReferenceUID": "1.2.3"}
    for k in range(5):
        write_slice(folder / f"{k}.dcm", (1, 2 + aside_mm * k, 30 + step_mm * k), InstanceNumber=k, **about)
    return files.slices_of(folder)


STEP, THICKNESS = "SpacingBetweenSlices", "SliceThickness"


def dicom_seg(path, labelmap, source, without=()):
    """A DICOM SEG of a liver, which need not say how far its slices are apart or how thick they are."""
    files.write_dicom_seg(path, labelmap, [Segment(1, "Liver", TERM, (1, 2, 3), {})], source, "liver-v1.0.0")
    data = pydicom.dcmread(path)
    for name in without:
        del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0][name]
    data.save_as(path)
    return str(path)


@pytest.mark.parametrize("without", [(), (STEP,), (THICKNESS,), (STEP, THICKNESS)])
@pytest.mark.parametrize("step_mm", [5.0, 2.5, 0.6])
def test_a_dicom_seg_has_the_same_figures_whichever_file_comes_first(tmp_path, capsys, step_mm, without):
    source = series(tmp_path / "ct", step_mm)
    labelmap = (labels() == 1).astype(np.uint8)
    seg = dicom_seg(tmp_path / "a.dcm", labelmap, source, without)
    more = np.maximum(labelmap, np.roll(labelmap, 1, axis=0))  # one slice further up
    other = write(tmp_path / "b.seg.nrrd", more, ("Liver",), files.read_volume(tmp_path / "ct")[0].ijk_to_ras)
    (itself,) = compared(capsys, seg, seg)["segments"]
    (first,), (second,) = (compared(capsys, *paths)["segments"] for paths in ((seg, other), (other, seg)))
    slice_ml = 8 * 0.5 * 0.7 * step_mm / 1000
    assert itself["volume_a_ml"] == itself["volume_b_ml"] == pytest.approx(2 * slice_ml)
    assert (first["volume_a_ml"], first["volume_b_ml"]) == pytest.approx((2 * slice_ml, 3 * slice_ml))
    assert (second["volume_b_ml"], second["volume_a_ml"]) == pytest.approx((2 * slice_ml, 3 * slice_ml))
    assert first["hausdorff95_mm"] == pytest.approx(step_mm) == second["hausdorff95_mm"]


@pytest.mark.parametrize(
    ("without", "thick_mm"), [((), 5.0), ((THICKNESS,), 5.0), ((STEP,), 2.5), ((STEP, THICKNESS), 1.0)]
)
def test_a_dicom_seg_of_one_slice_is_as_thick_as_its_slices_are_apart_or_else_as_it_says_or_else_1_mm(
    tmp_path, capsys, without, thick_mm
):
    labelmap = np.zeros((5, 6, 8), np.uint8)
    labelmap[1, 2:4, 3:7] = 1
    seg = dicom_seg(tmp_path / "a.dcm", labelmap, series(tmp_path / "ct", 5.0), without)
    (liver,) = compared(capsys, seg, seg)["segments"]
    assert liver["volume_a_ml"] == pytest.approx(8 * 0.5 * 0.7 * thick_mm / 1000)


def test_a_dicom_seg_of_a_tilted_gantry_is_compared_on_its_sheared_grid(tmp_path, capsys):
    source, labelmap = series(tmp_path / "ct", 2.5, aside_mm=0.9), (labels() == 1).astype(np.uint8)
    seg = dicom_seg(tmp_path / "a.dcm", labelmap, source)
    other = write(tmp_path / "b.seg.nrrd", labelmap, ("Liver",), files.read_volume(tmp_path / "ct")[0].ijk_to_ras)
    for paths in ((seg, seg), (seg, other), (other, seg)):
        (liver,) = compared(capsys, *paths)["segments"]
        assert liver["dice"] == 1
        assert liver["volume_a_ml"] == liver["volume_b_ml"] == pytest.approx(2 * 8 * 0.5 * 0.7 * 2.5 / 1000)


@pytest.mark.parametrize("most", [1, 100, 255])
def test_a_fractional_dicom_seg_counts_from_one_half_on(tmp_path, capsys, most):
    source, labelmap = series(tmp_path / "ct", 2.5), (labels() == 1).astype(np.uint8)
    seg = dicom_seg(tmp_path / "a.dcm", labelmap, source)
    about = hd.seg.SegmentDescription(1, "Liver", codes.SCT.Organ, codes.SCT.Liver, "MANUAL")
    parts = np.where(labelmap, np.where(np.indices(labelmap.shape)[2] % 2, 0.6, 1), 0.4)
    fractional = hd.seg.Segmentation(
        [pydicom.dcmread(path) for path in source], parts, "FRACTIONAL", [about], hd.UID(), 1, hd.UID(), 1,
        "Maker", "Model", "1", "None", max_fractional_value=most,
    )  # fmt: skip
    fractional.save_as(tmp_path / "b.dcm")
    (liver,) = compared(capsys, seg, str(tmp_path / "b.dcm"))["segments"]
    assert (liver["dice"], liver["volume_a_ml"]) == (1, liver["volume_b_ml"])


def test_a_dicom_label_map_has_the_segments_of_a_binary_one_and_no_background(tmp_path, capsys):
    source, labelmap = series(tmp_path / "ct", 2.5), (labels() == 1).astype(np.uint8)
    seg = dicom_seg(tmp_path / "a.dcm", labelmap, source)
    about = hd.seg.SegmentDescription(1, "Liver", codes.SCT.Organ, codes.SCT.Liver, "MANUAL")
    map_of_labels = hd.seg.Segmentation(
        [pydicom.dcmread(path) for path in source], labelmap, "LABELMAP", [about], hd.UID(), 1, hd.UID(), 1,
        "Maker", "Model", "1", "None",
    )  # fmt: skip
    path = tmp_path / "ct" / "map.dcm"
    map_of_labels.save_as(path)
    assert [(each.name, each.values) for each in files.segments_in(path)] == [("Liver", (1,))]
    (liver,) = compared(capsys, seg, str(path))["segments"]
    assert (liver["dice"], liver["volume_a_ml"]) == (1, liver["volume_b_ml"])
    (pair,) = find_pairs(tmp_path / "ct").found
    assert [each.path for each in pair.segments] == [path]
    with pytest.raises(FileError, match="is a segmentation"):
        files.read_volume(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nothing", "There is no file"),
        ("scan", "not a label map"),
        ("names", "no segment in common"),
        ("text", "unetpp-segment: "),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(one, tmp_path, capsys, content, words):
    path = tmp_path / "other.seg.nrrd"
    if content == "scan":
        files.write_volume(path, np.full(LIVER.shape, -1000, np.int16), OBLIQUE)
    elif content == "names":
        write(path, LIVER, ("Kidney",))
    elif content == "text":
        path = tmp_path / "other.txt"
        path.write_text("Liver")
    assert main(["compare", one, str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
