"""pairs.py: all layouts give the same slices, voxels keep their place on any grid, and people are drawn, not cases."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

import pairs
from data.slices import DataError, read_slices, sources_of
from data.targets import load_target
from pairs_slices import to_pixels
from Testing.support.pairs import (
    BOTH,
    KIDNEY,
    LPS,
    SAID,
    SPLEEN,
    a_ct,
    a_labelmap,
    cut,
    folder_of_masks,
    numbered_cases,
    prepared,
    ras_of_every_voxel,
    slicer_case,
    stored_of,
    write_nifti,
)
from Testing.support.prepare_scripts import picture, refused, rows_of
from Testing.support.sample_files import write_slice
from Testing.support.spleen import TERM
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.volume import Volume, axial_order
from UNetPlusPlusSegmentLib.files.pairs import find_pairs
from UNetPlusPlusSegmentLib.files.segmentations import masks_of


def assert_is_the_case(folder, case, seed=0):
    hu, labels = stored_of(folder, case)
    np.testing.assert_array_equal(labels, a_labelmap()[[0, 1, 2, 3, 4]] if len(labels) == 5 else a_labelmap()[1:5])
    np.testing.assert_array_equal(hu[-1], a_ct(seed)[4])


def test_files_of_slicer_become_slices_with_all_hu_and_a_target_for_training(tmp_path):
    for seed, name in enumerate(["Ann", "Ben", "Cid"]):
        slicer_case(tmp_path / "in", name, a_ct(seed))
    out = prepared(tmp_path / "in", tmp_path / "out", *BOTH, *SAID)
    assert_is_the_case(out, "Ben", seed=1)
    rows = rows_of(out)
    assert list(rows[0]) == pairs.COLUMNS
    assert {(row["pixel_mm"], row["source_slice_mm"]) for row in rows} == {("1.5", "3.0")}
    split_of = {row["patient"]: row["split"] for row in rows}
    assert [*split_of] == ["Ann", "Ben", "Cid"] and sorted(split_of.values()) == ["train", "train", "val"]
    target = load_target(str(out / "target.yaml"))
    assert [(each.name, each.terminology, each.color) for each in target.labels] == [
        ("Spleen", TERM, SPLEEN.color), ("Right kidney", TERM, KIDNEY.color),
    ]  # fmt: skip
    (source,) = sources_of(out, target.slices, "train")
    assert (source.name, source.licence, source.citation) == ("Ours (2 patients)", "CC BY 4.0", "We, 2025.")
    with Image.open(out / "look.png") as look:
        assert look.size[0] > 900


def test_the_network_sees_a_window_that_is_chosen_after_the_slices_were_made(tmp_path):
    slicer_case(tmp_path / "in", "Ann", a_ct(5), segments=(SPLEEN,))
    out = prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--folds", "1", *SAID)
    about = yaml.safe_load((out / "target.yaml").read_text())
    assert about["slices"]["window_hu"] == [-1024, 64511]
    for low, high in ((-160, 240), (0, 100)):
        target = load_target({**about, "window_hu": [low, high]})
        item = read_slices(out, target, "train")[-1]
        expected = np.rint((a_ct(5)[4].clip(low, high) - low) * (255 / (high - low)))
        assert item.image.dtype == np.uint8
        np.testing.assert_allclose(item.image, expected, atol=1)
    del about["window_hu"]
    with pytest.raises(DataError, match=r"16 bits.*window_hu"):
        read_slices(out, load_target(about), "train")


def test_a_window_given_at_once_makes_8_bit_images(tmp_path):
    slicer_case(tmp_path / "in", "Ann")
    out = prepared(
        tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--folds", "1", "--window", "-100", "240", *SAID
    )
    target = load_target(str(out / "target.yaml"))
    assert target.window_hu == target.slices.window_hu == (-100, 240)
    assert "&id" not in (out / "target.yaml").read_text()  # who edits one window does not change the other
    item = read_slices(out, target, "train")[-1]
    expected = (a_ct()[4].clip(-100, 240) + 100.0) * (255 / 340)
    assert picture(out / "images" / item.row["file"]).dtype == np.uint8
    np.testing.assert_allclose(item.image, expected, atol=0.5)


@pytest.mark.parametrize("nnunet", [True, False], ids=["nnU-Net", "Decathlon"])
def test_numbered_files_are_paired_and_dataset_json_names_their_labels(tmp_path, nnunet):
    numbered_cases(tmp_path / "in", ["case_001", "case_002"], nnunet)
    (tmp_path / "in" / "imagesTr" / "._case_001.nii.gz").write_bytes(b"what macOS leaves behind")
    out = prepared(tmp_path / "in", tmp_path / "out", *BOTH)
    assert_is_the_case(out, "case_002", seed=1)
    target = load_target(str(out / "target.yaml"))
    assert (target.licence, target.slices.sources[0].citation) == ("CC-BY-SA 4.0", "They, 2018.")
    assert "SCT^64033007^Kidney~SCT^24028007^Right" in target.labels[1].terminology  # as the shipped organs have it


def test_folders_of_masks_are_paired_and_segments_can_be_renamed_and_united(tmp_path):
    for name in ("s0001", "s0002"):
        folder_of_masks(tmp_path / "in" / name)
    out = prepared(
        tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--segment", "Right kidney=kidney_right", *SAID
    )
    assert_is_the_case(out, "s0001")
    united = prepared(tmp_path / "in", tmp_path / "united", "--segment", "Both=spleen+kidney_right", *SAID)
    np.testing.assert_array_equal(stored_of(united, "s0002")[1] > 0, stored_of(out, "s0002")[1] > 0)


def test_labels_of_a_label_map_without_names_are_chosen_by_value(tmp_path, capsys):
    write_nifti(tmp_path / "in" / "Ann.nii.gz", a_ct(), LPS)
    write_nifti(tmp_path / "in" / "Ann-label.nii.gz", a_labelmap(), LPS)
    line = refused(pairs, [tmp_path / "in", "--segment", "Spleen"], tmp_path / "out", capsys)
    assert 'No case has a segment Spleen; there are 1, 2. Choose one of these with --segment "Spleen=SEGMENT"' in line
    out = prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen=1", "--segment", "Kidney=2", "--folds", "1")
    assert_is_the_case(out, "Ann")


def test_a_folder_for_each_case_with_an_image_and_a_file_called_segmentation_is_a_pair(tmp_path):
    with_cyst = a_labelmap()
    with_cyst[4][with_cyst[4] == 2] = 3
    for name, labelmap in (("case_00000", with_cyst), ("case_00001", a_labelmap())):  # as KiTS has them
        write_nifti(tmp_path / "in" / name / "imaging.nii.gz", a_ct(), LPS)
        write_nifti(tmp_path / "in" / name / "segmentation.nii.gz", labelmap, LPS)
    out = prepared(tmp_path / "in", tmp_path / "out", "--segment", "Kidney=1+2+3", *SAID)
    for name in ("case_00000", "case_00001"):
        hu, labels = stored_of(out, name)
        np.testing.assert_array_equal(hu[-1], a_ct()[4])
        np.testing.assert_array_equal(labels[-1] > 0, a_labelmap()[4] > 0)
    apart = prepared(tmp_path / "in", tmp_path / "apart", "--segment", "Kidney=1+2+3", "--segment", "Cyst=3", *SAID)
    assert [set(np.unique(stored_of(apart, name)[1])) for name in ("case_00000", "case_00001")] == [
        {0, 1, 2, 3},
        {0, 1, 2},
    ]


def test_a_part_of_a_label_that_no_case_has_is_refused_by_name(tmp_path, capsys):
    write_nifti(tmp_path / "in" / "Ann.nii.gz", a_ct(), LPS)
    write_nifti(tmp_path / "in" / "Ann-label.nii.gz", a_labelmap(), LPS)
    line = refused(pairs, [tmp_path / "in", "--segment", "Kidney=1+20"], tmp_path / "out", capsys)
    assert "No case has a segment 20; there are 1, 2." in line


def dicom_case(folder, patient, labelmap, seg="seg"):
    """A series of slices, and a DICOM SEG in a folder beside it."""
    from pydicom.uid import generate_uid

    frame, who = (
        generate_uid(),
        {"PatientID": patient, "PatientName": f"{patient}^X", "PatientBirthDate": "", "PatientSex": "O"},
    )
    about = {"StudyID": "1", "AccessionNumber": "2", "StudyDate": "20260101", "StudyTime": "120000",
             "ReferringPhysicianName": "", "SeriesNumber": 3, "FrameOfReferenceUID": frame}  # fmt: skip
    study, series = generate_uid(), generate_uid()
    for k in range(len(labelmap)):
        write_slice(folder / "ct" / f"{9 - k}.dcm", (1, 2, 30 + 2.5 * k), -100 + 30 * k, InstanceNumber=k, **who, **about,
                    StudyInstanceUID=study, SeriesInstanceUID=series)  # fmt: skip
    (folder / seg).mkdir(parents=True, exist_ok=True)
    files.write_dicom_seg(
        folder / seg / "s.dcm", labelmap, [SPLEEN, KIDNEY], files.slices_of(folder / "ct"), "hand-drawn-v1.0.0"
    )


def seg_labels(folder) -> np.ndarray:
    """A label map on the slices that `write_slice` writes; odd ones are empty, and so have no frame."""
    volume, _ = files.read_volume(folder)
    labelmap = np.zeros(volume.array.shape, np.uint8)
    labelmap[::2, 1, 1:3], labelmap[0, 0, 0] = 1, 2
    return labelmap


def test_a_dicom_seg_lies_on_the_series_that_it_refers_to(tmp_path):
    for k in range(5):
        write_slice(tmp_path / "probe" / f"{k}.dcm", (1, 2, 30 + 2.5 * k), InstanceNumber=k)
    labelmap = seg_labels(tmp_path / "probe")
    dicom_case(tmp_path / "in" / "P1", "1", labelmap)
    dicom_case(tmp_path / "in" / "P2", "2", labelmap[:, ::-1])
    found = find_pairs(tmp_path / "in")
    assert [(pair.name, [s.name for s in pair.segments]) for pair in found.found] == [
        ("P1", ["Spleen", "Right kidney"]), ("P2", ["Spleen", "Right kidney"]),
    ]  # fmt: skip
    pair = found.found[0]
    volume, _ = files.read_volume(pair.image, pair.series)
    for mask, value in zip(masks_of(pair.segments, volume), (1, 2), strict=True):
        np.testing.assert_array_equal(mask, labelmap == value)
    assert pair.segments[0].terminology.split("~")[1:3] == TERM.split("~")[1:3]
    assert np.abs(np.subtract(pair.segments[0].color, SPLEEN.color)).max() <= 2  # through CIELab


@pytest.mark.parametrize("inside", [True, False], ids=["in the folder of the slices", "beside it"])
def test_a_segmentation_that_slicer_saved_beside_a_dicom_series_is_paired_with_it(tmp_path, inside):
    for name, patient in (("Ann", "7"), ("Ben", "7")):
        for k in range(5):
            place = (1, 2, 30 + 2.5 * k)
            write_slice(tmp_path / "in" / name / f"{k}.dcm", place, -100 + 30 * k, InstanceNumber=k, PatientID=patient)
        volume, _ = files.read_volume(tmp_path / "in" / name)
        labelmap = np.zeros(volume.array.shape, np.uint8)
        labelmap[1:3, 1, 2:5] = 1
        called = f"{name}/Segmentation.seg.nrrd" if inside else f"{name}.seg.nrrd"
        files.write_segmentation(tmp_path / "in" / called, labelmap, volume.ijk_to_ras, [SPLEEN])
    out = prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--pixel", "0.5")
    rows = rows_of(out)
    assert {row["volume"] for row in rows} == {"Ann", "Ben"} and len({row["patient"] for row in rows}) == 1
    assert [int(row["slice"]) for row in rows if row["marked_px"] != "0"] == [1, 2] * 2


def test_a_damaged_dicom_seg_and_a_damaged_dataset_json_are_refused_by_name(tmp_path, capsys):
    for k in range(5):
        write_slice(tmp_path / "probe" / f"{k}.dcm", (1, 2, 30 + 2.5 * k), InstanceNumber=k)
    dicom_case(tmp_path / "in" / "P1", "1", seg_labels(tmp_path / "probe"))
    seg = tmp_path / "in" / "P1" / "seg" / "s.dcm"
    seg.write_bytes(seg.read_bytes()[:900])
    assert "s.dcm" in refused(pairs, [tmp_path / "in", "--segment", "Spleen"], tmp_path / "out", capsys)
    numbered_cases(tmp_path / "numbered", ["a", "b"], nnunet=True)
    (tmp_path / "numbered" / "dataset.json").write_text('{"labels": {"background": 0, "spleen": "many"}}')
    line = refused(pairs, [tmp_path / "numbered", "--segment", "Spleen"], tmp_path / "out", capsys)
    assert "spleen in dataset.json is not a number" in line


@settings(max_examples=30)
@given(
    turns=st.tuples(*[st.floats(-180, 180)] * 3),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    shear=st.sampled_from([0.0, 0.0, 0.3]),
    shape=st.tuples(*[st.integers(4, 7)] * 3),
    sides_mm=st.tuples(st.floats(0.6, 2.0), st.floats(0.7, 3.0)),
    is_cut=st.booleans(),
    stored_as=st.sampled_from(["", "LPS", "RAS", "SRA", "PIL"]),
    seed=st.integers(0, 99),
)
def test_a_voxel_keeps_its_place_whatever_the_grid_and_however_the_mask_is_stored(
    tmp_path_factory, turns, flips, shear, shape, sides_mm, is_cut, stored_as, seed
):
    folder = tmp_path_factory.mktemp("grid")
    ijk_to_ras = oblique(turns, flips, shear, shape, sides_mm)
    pixels_mm = axial_order(Volume(np.zeros(shape), ijk_to_ras)).spacing_mm[1:]
    # The slices of a sheared grid may run along another axis; pixels that are not square are resampled.
    assume(np.isclose(*pixels_mm))
    ras = ras_of_every_voxel(shape, ijk_to_ras)
    mask = np.random.default_rng(seed).random(shape) < 0.3
    mask[1:-1, 1:-1, 1:-1] = True
    mask[0] = mask[:, 0] = mask[:, :, 0] = False
    part, place = cut(mask, ijk_to_ras) if is_cut else (mask, ijk_to_ras)
    (folder / "in").mkdir()
    if shear or not stored_as:
        files.write_segmentation(folder / "in" / "Ann.seg.nrrd", part.astype(np.uint8), place, [SPLEEN])
    else:
        write_nifti(folder / "in" / "Ann.seg.nii.gz", part.astype(np.uint8), place, stored_as)
    places, hu_per_mm = [], 1000 / np.abs(ras).max(axis=(0, 1, 2))
    for axis in range(3):  # HU that say where a voxel lies, along one axis of the patient after the other
        image = np.rint(ras[..., axis] * hu_per_mm[axis]).astype(np.int16)
        files.write_volume(folder / "in" / "Ann.nrrd", image, ijk_to_ras)
        segment = "Spleen" if shear or not stored_as else "Spleen=1"
        out = prepared(folder / "in", folder / f"out{axis}", "--segment", segment, "--folds", "1", "--every", "1")
        hu, labels = stored_of(out, "Ann")
        places.append(hu / hu_per_mm[axis])
    stored, rounding_mm = np.stack(places, axis=-1), 0.51 / hu_per_mm
    distances = np.abs((stored[labels == 1][:, None] - ras[mask][None]) / rounding_mm).max(axis=2)
    assert distances.min(axis=1).max() <= 1, "a marked pixel lies where no marked voxel does"
    assert sorted(distances.argmin(axis=1)) == list(range(np.count_nonzero(mask))), "a marked voxel is lost"
    down, along = (np.diff(stored, axis=axis).mean(axis=(0, 1, 2)) for axis in (1, 2))
    assert down[1] < 2 * rounding_mm[1] and along[0] < 2 * rounding_mm[0]  # row 0 anterior, column 0 at the right
    assert (stored[-1] - stored[0]).mean(axis=(0, 1))[2] > -2 * rounding_mm[2]


def oblique(turns, flips, shear, shape, sides_mm) -> np.ndarray:
    """IJK to RAS of a grid about the origin, with square pixels in its axial slices; degrees, and mm of pixels and slices."""
    directions = Rotation.from_euler("xyz", turns, degrees=True).as_matrix() * flips
    placed = np.eye(4)
    placed[:3, :3] = directions
    slices, rows = (2 - axis for axis in axial_order(Volume(np.zeros((2, 2, 2)), placed)).axes[:2])
    placed[:3, slices] += shear * directions[:, rows]
    lengths = np.full(3, sides_mm[0])
    lengths[slices] = sides_mm[1]
    placed[:3, :3] *= lengths
    placed[:3, 3] = (0.3, -0.2, 0.1) - placed[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return placed


def test_a_lesion_on_slices_between_those_that_are_kept_is_stored_too(tmp_path):
    lesions = a_labelmap()
    lesions[:, 7:10, 14:18] = 0
    lesions[3, 7:10, 14:18] = 2
    slicer_case(tmp_path / "in", "Ann", labelmap=lesions)
    for segments in (BOTH, BOTH[2:]):
        out = prepared(tmp_path / "in", tmp_path / f"out{len(segments)}", *segments, "--every", "2", "--folds", "1")
        assert [row["slice"] for row in rows_of(out) if row["marked_px"] != "0"][-1] == (
            "4" if segments == BOTH else "3"
        )
        assert stored_of(out, "Ann")[1].max() == len(segments) // 2


@pytest.mark.parametrize("segments", [BOTH, BOTH[2:]], ids=["beside another label", "alone"])
@pytest.mark.parametrize("pixel", [[], ["--pixel", "3"]], ids=["as it is", "in coarse pixels"])
def test_a_lesion_of_which_only_the_tip_lies_on_a_slice_of_the_grid_is_stored_where_it_is_largest(
    tmp_path, capsys, segments, pixel
):
    lesion = a_labelmap()
    lesion[lesion == 2] = 0
    lesion[3, 6:12, 14:20], lesion[4, 8, 16] = 2, 2  # every second slice is kept: 4, and not 3
    slicer_case(tmp_path / "in", "Ann", labelmap=lesion)
    out = prepared(tmp_path / "in", tmp_path / "out", *segments, "--every", "2", "--folds", "1", *pixel)
    stored = picture(out / "masks" / "Ann_0003.png")
    assert np.count_nonzero(stored == len(segments) // 2) == (9 if pixel else 36)
    assert "Right kidney" not in capsys.readouterr().err


@pytest.mark.parametrize("pixel_mm", [0.9, 1.1, 2.0, 3.7])
def test_pixels_of_another_size_lie_about_the_same_centre(pixel_mm):
    rows, columns = np.indices((40, 52)).astype(np.float32)
    spacing_mm = (0.8, 1.3)  # no square pixels
    for ramp, mm, axis in ((rows, 0.8, 0), (columns, 1.3, 1)):
        new = to_pixels(ramp, spacing_mm, pixel_mm)
        middle, new_middle = (ramp.shape[axis] - 1) / 2, (new.shape[axis] - 1) / 2
        places = middle + (np.indices(new.shape)[axis] - new_middle) * pixel_mm / mm
        inner = np.s_[2:-2, 2:-2]  # the rim of a slice has no neighbour to interpolate with
        np.testing.assert_allclose(new[inner], places[inner], atol=0.1)  # Pillow's weights are not quite even
        assert new.shape == (int(40 * 0.8 / pixel_mm + 1e-6), int(52 * 1.3 / pixel_mm + 1e-6))


def test_labels_of_coarser_pixels_exclude_each_other_and_keep_their_area():
    labels = np.zeros((60, 60), np.uint8)
    labels[10:40, 10:30], labels[10:40, 30:50] = 1, 2
    new = to_pixels(labels, (1.0, 1.0), 2.5)
    for value in (1, 2):
        assert np.count_nonzero(new == value) * 2.5**2 == pytest.approx(600, rel=0.1)
    assert not to_pixels(np.zeros((60, 60), np.uint8), (1.0, 1.0), 2.5).any()


def test_people_are_drawn_for_validation_not_cases(tmp_path):
    for name in ("P1-a", "P1-b", "P2-a", "P2-b", "P3-a"):
        slicer_case(tmp_path / "in", name)
    out = prepared(tmp_path / "in", tmp_path / "out", "--segment", "Spleen", "--people", r"(P\d)", "--folds", "3")
    rows = rows_of(out)
    split_of = {(row["patient"], row["split"]) for row in rows}
    assert sorted(person for person, _ in split_of) == ["P1", "P2", "P3"]
    assert sorted(split for _, split in split_of) == ["train", "train", "val"]


def test_a_split_file_is_followed_unless_it_divides_a_person(tmp_path, capsys):
    for k in range(5):
        write_slice(tmp_path / "probe" / f"{k}.dcm", (1, 2, 30 + 2.5 * k), InstanceNumber=k)
    labelmap = seg_labels(tmp_path / "probe")
    for name, patient in (("before", "7"), ("after", "7"), ("other", "8")):
        dicom_case(tmp_path / "in" / name, patient, labelmap)
    table = tmp_path / "split.csv"

    def write(**split_of):
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([("patient", "split"), *split_of.items()])

    arguments = [tmp_path / "in", "--segment", "Spleen", "--split", table]
    write(before="train", after="val", other="train")
    line = refused(pairs, arguments, tmp_path / "out", capsys)
    assert "after and before are the same person" in line and "val and train" in line
    write(before="train", other="val")
    assert "has no line for after" in refused(pairs, arguments, tmp_path / "out", capsys)
    write(before="train", after="train", other="val")
    rows = rows_of(prepared(tmp_path / "in", tmp_path / "out", *arguments[1:]))
    assert {row["volume"]: row["split"] for row in rows} == {"before": "train", "after": "train", "other": "val"}
    drawn = rows_of(prepared(tmp_path / "in", tmp_path / "drawn", "--segment", "Spleen"))
    assert len({row["patient"] for row in drawn if row["volume"] in ("before", "after")}) == 1
