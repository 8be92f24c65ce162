"""Folders as archives and people send them: the one series in them is read whole, or the folder is refused in one sentence."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from Testing.support.real_series import SERIES, assert_same, darken, shift, write_series
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.files import FileError

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def source(shared_data):
    return shared_data("volumes/abdomen_dicom")


@pytest.fixture(scope="module")
def clean(source, tmp_path_factory):
    """The series as the scanner made it."""
    folder = tmp_path_factory.mktemp("clean")
    write_series(source, folder)
    volume, notes = files.read_volume(folder)
    assert notes == []
    return volume


def referring(path, sop_class, **values):
    """An object without pixels that refers to CT images, within its first 1,024 bytes."""
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT_CLASS, generate_uid()
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.PatientID = sop_class, generate_uid(), "P1"
    data.ReferencedImageSequence = pydicom.Sequence([item])
    for name, value in values.items():
        setattr(data, name, value)
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = sop_class, data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


OTHERS = {
    "presentation state": "1.2.840.10008.5.1.4.1.1.11.1",
    "spatial registration": "1.2.840.10008.5.1.4.1.1.66.1",
    "raw data": "1.2.840.10008.5.1.4.1.1.66",
    "Siemens CSA non-image": "1.3.12.2.1107.5.9.1",
    "real world value map": "1.2.840.10008.5.1.4.1.1.67",
    "key object note": "1.2.840.10008.5.1.4.1.1.88.59",
    "encapsulated PDF": "1.2.840.10008.5.1.4.1.1.104.1",
}


@pytest.mark.parametrize("sop_class", OTHERS.values(), ids=OTHERS)
def test_an_object_that_refers_to_ct_images_is_left_out_with_a_note(source, clean, tmp_path, sop_class):
    write_series(source, tmp_path / "ct")
    referring(tmp_path / "ct" / "other", sop_class)
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert note.startswith("Left out: ") and "(not an image)" in note


def test_a_small_directory_file_of_any_name_is_no_slice(source, clean, tmp_path):
    write_series(source, tmp_path / "ct")
    referring(tmp_path / "ct" / "index", "1.2.840.10008.1.3.10")
    volume, notes = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert notes == []


@pytest.mark.parametrize("lost", [[19], [17, 18, 19], [0], [9]])
@pytest.mark.parametrize("how", ["empty", "zeros", "dead link", "cut", "no pixels", "pixels of nothing"])
def test_a_slice_that_lost_its_content_is_never_passed_over(source, tmp_path, lost, how):
    paths = write_series(source, tmp_path / "ct")
    for path in (paths[index] for index in lost):
        content = path.read_bytes()
        path.unlink()
        if how == "dead link":
            path.symlink_to(tmp_path / "gone" / path.name)
        elif how in ("no pixels", "pixels of nothing"):
            data = pydicom.dcmread(io.BytesIO(content))
            if how == "no pixels":
                del data.PixelData
            else:
                data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
                data["PixelData"] = pydicom.DataElement("PixelData", "OW", b"")
            data.save_as(path)
        else:
            path.write_bytes(
                {"empty": b"", "zeros": bytes(len(content)), "cut": content[: len(content) * 9 // 10]}[how]
            )
    with pytest.raises(FileError, match=r"IM00\d\d.* would lack a slice") as refusal:
        files.read_volume(tmp_path / "ct")
    assert "\n" not in str(refusal.value)


def test_marks_and_locks_beside_a_series_are_no_lost_slices(source, clean, tmp_path):
    write_series(source, tmp_path / "ct")
    for name in (".complete", "_SUCCESS", "notes.txt", "Thumbs.db"):
        (tmp_path / "ct" / name).touch()
    (tmp_path / "ct" / "latest").symlink_to(tmp_path / "gone")
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert "(a broken link)" in note


@pytest.mark.parametrize("extra", ["a text", "a slice"])
def test_a_name_that_is_no_text_blocks_no_folder(source, clean, tmp_path, extra, monkeypatch):
    paths = write_series(source, tmp_path / "ct")
    odd = tmp_path / "ct" / os.fsdecode(b"M\xfcller")
    if extra == "a text":
        odd.with_name(odd.name + ".txt").write_text("hello")
    else:
        paths[4].rename(odd)
    monkeypatch.delattr("pathlib.Path.symlink_to")  # few users of Windows may make links
    volume, notes = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert notes == []


def test_elements_of_unknown_type_and_bytes_after_the_pixels_do_not_lose_a_slice(source, clean, tmp_path):
    paths = write_series(source, tmp_path / "ct")
    content = paths[3].read_bytes()
    manufacturer = content.index(b"\x08\x00\x70\x00LO")
    paths[3].write_bytes(content[: manufacturer + 4] + b"Qz" + content[manufacturer + 6 :])
    paths[7].write_bytes(paths[7].read_bytes() + b"\x12\x34\x56\x78OB\0\0\xff\xff\xff\x7f")
    volume, notes = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert notes == []


def test_two_acquisitions_with_a_gap_between_them_are_two_stacks(source, clean, tmp_path):
    write_series(source, tmp_path / "ct")

    def further_up(data, index):
        shift(data, 200)
        data.AcquisitionNumber = 2

    write_series(source, tmp_path / "ct", further_up, "Z{:04}")
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert "contains several stacks" in note and "1: " in note and "2: " in note
    other, _ = files.read_volume(tmp_path / "ct", "2")
    np.testing.assert_array_equal(other.array, clean.array)


@pytest.mark.parametrize("told_by", ["AcquisitionNumber", "InstanceNumber", "AcquisitionTime"])
@pytest.mark.parametrize("mm", [20.0, 21.0, 1.0, 0.0])
def test_passes_that_overlap_are_two_stacks(source, clean, tmp_path, told_by, mm):
    """Half, half and between, interleaved, at the same places."""

    def first(data, index):
        data.AcquisitionTime, data.AcquisitionDateTime = f"1000{index:02}.5", ""

    def again(data, index):
        shift(data, mm)
        darken(data)
        data.AcquisitionTime = data.ContentTime = f"1000{index:02}.5"
        data.AcquisitionDateTime = ""
        if told_by == "AcquisitionNumber":
            data.AcquisitionNumber = 2
        elif told_by == "AcquisitionTime":
            data.AcquisitionTime = f"1001{index:02}.5"
        else:
            data.InstanceNumber = index + 21

    write_series(source, tmp_path / "ct", first)
    write_series(source, tmp_path / "ct", again, "Z{:04}")
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert "contains several stacks" in note
    second, _ = files.read_volume(tmp_path / "ct", "2")
    np.testing.assert_array_equal(second.array, clean.array - 60)


def test_phases_without_series_identifiers_are_separated_by_instance_number(source, clean, tmp_path):
    def emptied(data, index):
        data.SeriesInstanceUID, data.AcquisitionNumber, data.SeriesNumber = "", None, None
        for name in ("AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesTime"):
            setattr(data, name, "")

    def later(data, index):
        emptied(data, index)
        shift(data, 1)
        darken(data)

    write_series(source, tmp_path / "ct", emptied)
    write_series(source, tmp_path / "ct", later, "Z{:04}")
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert "contains several stacks" in note


def test_indistinguishable_phases_are_refused_with_their_number(source, tmp_path):
    def bare(data, index):
        for name in ("AcquisitionNumber", "InstanceNumber", "SeriesNumber"):
            setattr(data, name, None)
        for name in ("AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesTime"):
            setattr(data, name, "")

    write_series(source, tmp_path / "ct", bare)
    write_series(source, tmp_path / "ct", lambda data, index: (bare(data, index), darken(data)), "Z{:04}")
    with pytest.raises(FileError, match="40 images at 20 positions"):
        files.read_volume(tmp_path / "ct")


@pytest.mark.parametrize("phases", [2, 3])
def test_interleaved_phases_that_differ_only_in_their_values_are_refused(source, tmp_path, phases):
    """Even steps, numbered along the patient, all times and identifiers gone."""

    def bare(data, index, phase):
        shift(data, 2 * phase / phases)
        darken(data, 30 * phase)
        data.AcquisitionNumber, data.InstanceNumber = None, phases * index + phase
        for name in ("AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesTime"):
            setattr(data, name, "")

    for phase in range(phases):
        write_series(source, tmp_path / "ct", lambda d, i, p=phase: bare(d, i, p), f"{phase}_{{:04}}")
    with pytest.raises(FileError, match=f"mixes {phases} phases"):
        files.read_volume(tmp_path / "ct")


@pytest.mark.parametrize("order", ["name", "mixed"])
def test_phases_with_the_same_numbers_and_positions_are_not_mixed(source, clean, tmp_path, order):
    def bare(data, index):
        for name in ("AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesTime"):
            setattr(data, name, "")

    paths = write_series(source, tmp_path / "ct", bare)
    write_series(source, tmp_path / "ct", lambda data, index: (bare(data, index), darken(data)), "Z{:04}")
    if order == "mixed":
        for path in paths[::2]:
            path.rename(path.with_name(f"ZZ{path.name}"))
    with pytest.raises(FileError, match="40 images at 20 positions"):
        files.read_volume(tmp_path / "ct")


def test_phases_in_folders_of_their_own_are_told_apart_by_these(source, clean, tmp_path):
    def bare(data, index):
        data.AcquisitionNumber = data.InstanceNumber = None
        for name in ("AcquisitionTime", "AcquisitionDateTime", "ContentTime", "SeriesTime"):
            setattr(data, name, "")

    write_series(source, tmp_path / "ct" / "a", bare)
    write_series(source, tmp_path / "ct" / "b", lambda data, index: (bare(data, index), darken(data)))
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert "folder" in note


def test_steps_that_each_have_a_number_are_one_stack(source, clean, tmp_path):
    for slices_each in (1, 2, 4):
        folder = tmp_path / str(slices_each)

        def step_and_shoot(data, index, each=slices_each):
            data.AcquisitionNumber = index // each + 1
            data.AcquisitionTime = f"10{index // each:02}00"

        write_series(source, folder, step_and_shoot)
        volume, notes = files.read_volume(folder)
        assert_same(volume, clean)
        assert notes == []


def test_two_patients_under_one_identifier_are_two_stacks_with_a_note(source, clean, tmp_path):
    def another(data, index):
        data.PatientID, data.PatientName = "P2", "Roe^Richard"
        shift(data, 1)
        darken(data)

    write_series(source, tmp_path / "ct")
    write_series(source, tmp_path / "ct", another, "Z{:04}")
    volume, notes = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert "2 patients" in notes[0]
    assert not any(name in note for note in notes for name in ("Doe", "Roe", "Jane", "Richard"))


@pytest.mark.parametrize("name", ["PatientID", "PatientName", "FrameOfReferenceUID", "StudyInstanceUID"])
def test_one_identifier_that_differs_makes_two_stacks(source, clean, tmp_path, name):
    def another(data, index):
        setattr(data, name, "1.2.3")
        data.SeriesInstanceUID = ""
        darken(data)

    write_series(source, tmp_path / "ct", lambda data, index: setattr(data, "SeriesInstanceUID", ""))
    write_series(source, tmp_path / "ct", another, "Z{:04}")
    assert_same(files.read_volume(tmp_path / "ct")[0], clean)


@pytest.mark.parametrize(
    ("missing", "said"), [([9], "lacks 1 slice"), ([9, 10], "lacks 2 slices"), ([4, 12], "lacks 2 slices")]
)
def test_a_stack_with_a_hole_is_refused_with_the_place(source, tmp_path, missing, said):
    paths = write_series(source, tmp_path / "ct")
    place = pydicom.dcmread(paths[missing[0]], stop_before_pixels=True).ImagePositionPatient[2]
    for index in missing:
        paths[index].unlink()
    with pytest.raises(FileError, match=said) as refusal:
        files.read_volume(tmp_path / "ct")
    assert f"{place:g}" in str(refusal.value)


def test_a_long_hole_parts_a_stack(source, clean, tmp_path):
    for path in write_series(source, tmp_path / "ct")[12:16]:
        path.unlink()
    volume, (note,) = files.read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(volume.array, clean.array[:12])
    assert "(12 slices" in note and "(4 slices" in note


@pytest.mark.parametrize("which", [[5], [0], [19], [3, 4, 5]])
def test_a_slice_that_was_sent_twice_counts_once_with_a_note(source, clean, tmp_path, which):
    paths = write_series(source, tmp_path / "ct")
    for index in which:
        data = pydicom.dcmread(paths[index])
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.save_as(tmp_path / "ct" / f"again{index}")
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert note.startswith(f"{len(which)} duplicate slice")


def test_a_series_that_was_sent_twice_counts_once(source, clean, tmp_path):
    write_series(source, tmp_path / "ct" / "a")
    write_series(source, tmp_path / "ct" / "b")
    volume, (note,) = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert note.startswith("20 duplicate slices")


def test_copies_of_one_file_count_once_without_a_word(source, clean, tmp_path):
    paths = write_series(source, tmp_path / "ct")
    shutil.copytree(tmp_path / "ct", tmp_path / "ct" / "backup")
    volume, notes = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert notes == [] and len(paths) == 20


@settings(max_examples=8, deadline=None)
@given(jitter=st.sampled_from([1e-5, 1e-4, 4e-4, 1e-3]), seed=st.integers(0, 99))
def test_a_jitter_of_last_digits_tears_no_series(shared_data, tmp_path_factory, jitter, seed):
    source, folder = shared_data("volumes/abdomen_dicom"), tmp_path_factory.mktemp("jitter")
    draw = np.random.default_rng(seed)

    def jittered(data, index):
        turned = np.array(data.ImageOrientationPatient, float) + draw.uniform(-jitter, jitter, 6)
        data.ImageOrientationPatient = [f"{v:.8f}" for v in turned]
        data.PixelSpacing = [f"{float(s) + draw.uniform(-jitter, jitter):.8f}" for s in data.PixelSpacing]

    write_series(source, folder / "clean")
    write_series(source, folder / "ct", jittered)
    (volume, notes), (clean, _) = files.read_volume(folder / "ct"), files.read_volume(folder / "clean")
    assert notes == []
    np.testing.assert_array_equal(volume.array, clean.array)
    corner = np.array([191, 191, 19, 1])
    assert np.linalg.norm((volume.ijk_to_ras - clean.ijk_to_ras) @ corner) < clean.spacing_mm[0]
    assert volume.voxel_volume_ml == pytest.approx(clean.voxel_volume_ml, rel=2 * jitter + 1e-6)


@pytest.mark.parametrize("kind", ["screenshots", "maps in colour", "without place", "without pixel size"])
def test_images_that_cannot_form_a_volume_come_last_however_many_there_are(source, clean, tmp_path, kind):
    write_series(source, tmp_path / "ct")

    def other(data, index):
        data.SeriesInstanceUID = "1.2.3"
        if kind in ("screenshots", "without place"):
            del data.ImagePositionPatient
        if kind in ("screenshots", "without pixel size"):
            del data.PixelSpacing
        if kind in ("screenshots", "maps in colour"):
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
            data.BitsAllocated = data.BitsStored = 8
            data.Rows = data.Columns = 64
            data["PixelData"] = pydicom.DataElement("PixelData", "OW", bytes(64 * 64 * 3))

    for part in "AB":
        write_series(source, tmp_path / "ct", other, part + "{:04}")
    volume, notes = files.read_volume(tmp_path / "ct")
    assert_same(volume, clean)
    assert any("1.2.3 (40 slices" in note for note in notes)


def test_slices_of_a_series_without_a_position_are_not_another_stack(source, tmp_path):
    paths = write_series(source, tmp_path / "ct")
    for path in paths[17:]:
        data = pydicom.dcmread(path)
        del data.ImagePositionPatient
        data.save_as(path)
    with pytest.raises(FileError, match=r"3 slices of the series .* do not say where they lie"):
        files.read_volume(tmp_path / "ct")


def test_a_folder_of_volume_files_is_no_dicom_folder(source, tmp_path):
    write_series(source, tmp_path / "in" / "somebody")
    for name in ("a.nii.gz", "b.nii.gz"):
        shutil.copy(source.parent / "abdomen_dicom_liver.nii.gz", tmp_path / "in" / name)
    with pytest.raises(FileError, match=r"contains volume files \(a\.nii\.gz, b\.nii\.gz\).*cohort"):
        files.read_volume(tmp_path / "in")
    assert len(files.read_volume(tmp_path / "in" / "somebody")[0].array) == 20


def test_the_series_of_a_folder_are_listed_with_what_helps_to_choose(source, tmp_path):
    write_series(source, tmp_path / "ct")
    write_series(
        source,
        tmp_path / "ct",
        lambda d, i: (setattr(d, "SeriesInstanceUID", "1.2.3"), setattr(d, "Modality", "MR")),
        "Z{}",
        4,
    )
    first, second = files.list_series(tmp_path / "ct")
    assert (second["number"], second["modality"]) == (2, "MR")
    assert first == {
        "number": 1, "uid": SERIES, "modality": "CT", "description": "CT Body 3.0", "part": "", "slices": 20,
        "size": [192, 192], "spacing_mm": [0.9766, 0.9766, 2.0], "date": "2022-12-08", "patient": 1,
    }  # fmt: skip
    for entry in (first, second):
        volume, _ = files.read_volume(tmp_path / "ct", str(entry["number"]))
        assert len(volume.array) == entry["slices"]
        assert len(files.read_volume(tmp_path / "ct", entry["uid"])[0].array) == entry["slices"]
    with pytest.raises(FileError, match=r"no series 7, only 1: .*; 2: "):
        files.read_volume(tmp_path / "ct", "7")


def test_nothing_about_the_patient_is_printed(source, tmp_path, capfd, recwarn):
    def odd(data, index):
        data.PatientName = "Geheim^Person=" + "x" * 70  # too long, which pydicom warns about by quoting it
        data.PatientBirthDate, data.StudyDate = "1.1.1960", "today"

    write_series(source, tmp_path / "ct", odd)
    recwarn.clear()
    capfd.readouterr()
    _, notes = files.read_volume(tmp_path / "ct")
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert "Geheim" not in str(notes) + str(files.list_series(tmp_path / "ct"))


def test_an_enhanced_ct_is_read_from_its_folder_as_from_its_file(shared_data, tmp_path):
    enhanced = shared_data("odd_inputs") / "eCT_Supplemental.dcm"
    shutil.copy(enhanced, tmp_path)
    of_file, of_folder = files.read_volume(enhanced)[0], files.read_volume(tmp_path)[0]
    assert_same(of_folder, of_file)


@pytest.mark.parametrize("compressed", [False, True])
def test_values_shown_white_where_they_are_low_are_the_same_hu(source, clean, tmp_path, compressed):
    def edit(data, index):
        data.PhotometricInterpretation = "MONOCHROME1"
        if compressed:
            data.compress(RLELossless, generate_instance_uid=False)

    write_series(source, tmp_path, edit)
    assert_same(files.read_volume(tmp_path)[0], clean)


def test_slices_that_lost_the_way_to_hu_are_refused_by_name(source, tmp_path):
    def edit(data, index):
        if index in (10, 11):
            data.RescaleIntercept = data.RescaleSlope = None

    write_series(source, tmp_path, edit)
    with pytest.raises(FileError, match=r"2 of the slices .* do not say how their values become HU .*such as .*IM0010"):
        files.read_volume(tmp_path)


def test_many_images_at_one_place_are_not_taken_for_the_scan(source, clean, tmp_path):
    def monitoring(data, index):
        data.SeriesInstanceUID, data.ImagePositionPatient = "1.2.3", [0, 0, 100]
        darken(data, index)

    write_series(source, tmp_path, monitoring, "A{:04}")
    write_series(source, tmp_path, count=18)
    volume, notes = files.read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, clean.array[:18])
    assert "Left out: 1: CT 1.2.3 (20 slices" in notes[0]


def test_of_two_stacks_the_one_measured_by_the_scanner_is_chosen(source, clean, tmp_path):
    def projection(data, index):
        data.ImageType, data.InstanceNumber = ["DERIVED", "SECONDARY", "MIP"], 100 + index
        darken(data)

    write_series(source, tmp_path, projection, "A{:04}")
    write_series(source, tmp_path)
    volume, notes = files.read_volume(tmp_path)
    assert_same(volume, clean)
    assert r"image type DERIVED\SECONDARY\MIP" in notes[0]


def test_a_description_gives_the_terminal_no_orders(source, tmp_path):
    write_series(source, tmp_path, lambda data, _: setattr(data, "SeriesDescription", "Abdomen \x1b[31mvenös\x07"))
    assert files.list_series(tmp_path)[0]["description"] == "Abdomen [31mvenös"


@pytest.mark.parametrize("name", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_slices_that_all_have_different_identifiers_are_refused_together(source, tmp_path, name):
    write_series(source, tmp_path, lambda data, index: setattr(data, name, f"1.2.{index + 1}"))
    with pytest.raises(FileError, match="20 CT images without common identifiers"):
        files.read_volume(tmp_path)


def test_a_repeated_slice_with_the_same_number_is_refused_instead_of_splitting_the_series(source, tmp_path):
    write_series(source, tmp_path)
    again = pydicom.dcmread(tmp_path / "IM0003")
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    darken(again)
    again.save_as(tmp_path / "IM0003_again")
    with pytest.raises(FileError, match="21 images at 20 positions"):
        files.read_volume(tmp_path)
