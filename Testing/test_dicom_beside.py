"""DICOM folders whose series is not all of a piece: images beside the scan, slices elsewhere, moved aside, or not in plain HU."""

from __future__ import annotations

import gzip

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from Testing.support.real_series import assert_same, darken, shift, write_series
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.files import FileError

STEP_MM = 2.0


@pytest.fixture(scope="module")
def source(shared_data):
    return shared_data("volumes/abdomen_dicom")


@pytest.fixture(scope="module")
def clean(source, tmp_path_factory):
    """The series as the scanner made it."""
    folder = tmp_path_factory.mktemp("clean")
    write_series(source, folder)
    return files.read_volume(folder)[0]


def changed(path, new=None, **values):
    """Change a slice, or write the changed one as another instance."""
    data = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(data, name, value)
    if new:
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.save_as(new or path)


def track_bolus(paths, above_mm, count, numbered, first=100):
    """Put images at one place beside a series, so far above its lowest slice; each has its own values and times."""
    x, y, z = pydicom.dcmread(paths[0]).ImagePositionPatient
    for index in range(count):
        number = {"each": 2 + index, "together": 2, "like the scan": 1}[numbered]
        changed(
            paths[5],
            paths[5].with_name(f"M{above_mm:g}_{index:03}"),
            ImagePositionPatient=[x, y, z + above_mm],
            AcquisitionNumber=number,
            InstanceNumber=first + index,
            RescaleIntercept=-1024 - index - 1,
        )


@pytest.mark.parametrize("numbered", ["each", "together", "like the scan"])
@pytest.mark.parametrize("above_mm", [20.0, 20.7, -300.0, 38.0, 40.0], ids=["on", "between", "below", "end", "next"])
def test_images_of_bolus_tracking_in_the_series_are_left_out_with_their_number_and_place(
    source, clean, tmp_path, numbered, above_mm
):
    paths = write_series(source, tmp_path)
    track_bolus(paths, above_mm, 15, numbered)
    volume, (note,) = files.read_volume(tmp_path)
    assert_same(volume, clean)
    z = clean.ijk_to_ras[2, 3] + above_mm
    assert (
        note
        == f"15 images at z = {round(z, 2):g} mm, perhaps from bolus tracking, were left out, as not part of the stack."
    )
    assert files.list_series(tmp_path)[0]["slices"] == 20


def test_images_taken_before_the_scan_at_two_places_are_left_out_and_numbered_first(source, clean, tmp_path):
    paths = write_series(source, tmp_path, lambda data, index: setattr(data, "InstanceNumber", index + 50))
    track_bolus(paths, 4.0, 8, "like the scan", first=1)
    track_bolus(paths, 29.0, 1, "like the scan", first=9)
    volume, (note,) = files.read_volume(tmp_path)
    assert_same(volume, clean)
    assert note.startswith("9 images at z = ") and " and z = " in note


def test_one_image_between_two_slices_is_none_of_them(source, clean, tmp_path):
    track_bolus(write_series(source, tmp_path), 20.7, 1, "each")
    volume, (note,) = files.read_volume(tmp_path)
    assert_same(volume, clean)
    assert note.startswith("1 image at z = ") and note.endswith("was left out, as not part of the stack.")


def test_a_slice_of_the_scan_is_never_taken_for_one_beside_it(source, tmp_path):
    """Where the scan has no image of its own among them, it lacks one."""
    paths = write_series(source, tmp_path)
    track_bolus(paths, 20.0, 15, "together")
    paths[10].unlink()
    with pytest.raises(FileError, match="lacks 1 slice, at z = "):
        files.read_volume(tmp_path)


def test_phases_with_bolus_tracking_between_them_stay_phases(source, clean, tmp_path):
    paths = write_series(source, tmp_path, lambda data, index: setattr(data, "AcquisitionNumber", 50))

    def venous(data, index):
        data.AcquisitionNumber, data.InstanceNumber = 51, 200 + index
        darken(data)

    write_series(source, tmp_path, venous, "Z{:04}")
    track_bolus(paths, 20.0, 15, "each")
    volume, notes = files.read_volume(tmp_path)
    assert_same(volume, clean)
    assert (
        "acquisition number 50). Choose another with --series" in notes[0]
        and "(20 slices, CT Body 3.0, acquisition number 51)" in notes[0]
    )


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("SeriesInstanceUID", "a different Series Instance UID"),
        ("StudyInstanceUID", "a different Study Instance UID"),
        ("FrameOfReferenceUID", "a different Frame of Reference UID"),
        ("PatientID", "a different Patient ID or Name"),
        ("PixelSpacing", "a different Pixel Spacing"),
        ("Modality", "a different Modality"),
    ],
)
def test_a_slice_that_is_missing_is_looked_for_under_other_identifiers(source, clean, tmp_path, name, called):
    paths = write_series(source, tmp_path)
    other = {"PixelSpacing": [0.7, 0.7], "Modality": "OT"}.get(name, "1.2.3")
    changed(paths[9], **{name: other})
    with pytest.raises(
        FileError, match=rf"lacks the slice at z = .* it is there: .*IM0009 has {called} than the other"
    ):
        files.read_volume(tmp_path)
    paths = write_series(source, tmp_path)
    changed(paths[19], **{name: other})
    if name != "Modality":
        volume, notes = files.read_volume(tmp_path)
        np.testing.assert_array_equal(volume.array, clean.array[:19])
        assert f"IM0019 has {called} than the slices read." in notes[-1]


def test_another_scan_at_the_position_of_the_missing_slice_does_not_replace_it(source, tmp_path):
    paths = write_series(source, tmp_path)
    write_series(source, tmp_path, lambda data, index: setattr(data, "SeriesInstanceUID", "1.2.3"), "Z{:04}")
    paths[9].unlink()
    with pytest.raises(FileError, match=r"lacks 1 slice, at z = .*IM0008\): copy the series again"):
        files.read_volume(tmp_path, "1")


@pytest.mark.parametrize("missing", [[3, 8, 13], [5, 7, 9], [11, 13, 15, 17], [2, 3, 6, 7, 10, 11, 14, 15]])
def test_however_many_places_have_no_slice_the_stack_is_refused(source, tmp_path, missing):
    paths = write_series(source, tmp_path)
    for index in missing:
        paths[index].unlink()
    with pytest.raises(FileError, match=f"lacks {len(missing)} slices"):
        files.read_volume(tmp_path)


@pytest.mark.parametrize("numbered", ["on", "with gaps"])
def test_steps_that_become_wider_are_missing_slices_only_if_their_numbers_say_so(source, tmp_path, numbered):
    places = [*range(0, 28, 2), *range(30, 54, 4)]

    def wider(data, index):
        shift(data, places[index] - STEP_MM * index)
        data.InstanceNumber = index + 1 if numbered == "on" else places[index] // 2 + 1

    write_series(source, tmp_path, wider)
    if numbered == "on":
        _, (note,) = files.read_volume(tmp_path)
        assert "2.00 to 4.00 mm apart" in note
    else:
        with pytest.raises(FileError, match="lacks 6 slices"):
            files.read_volume(tmp_path)


@pytest.mark.parametrize("step_mm", [1.25, 2.5, 0.75])
def test_positions_that_were_rounded_to_whole_mm_tear_no_series(source, clean, tmp_path, step_mm):
    """A finer step has slices at one place, and is refused whole."""

    def rounded(data, index):
        data.ImagePositionPatient = [*data.ImagePositionPatient[:2], f"{index * step_mm:.0f}"]

    write_series(source, tmp_path, rounded)
    if step_mm < 1:
        with pytest.raises(FileError, match="20 images at 15 positions"):
            files.read_volume(tmp_path)
        return
    volume, (note,) = files.read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, clean.array)
    assert volume.spacing_mm[2] == pytest.approx(step_mm, abs=0.04)
    assert "treated as evenly spaced" in note


@pytest.mark.parametrize("moved", [slice(10, None), slice(10, 11), slice(0, 3)])
def test_slices_that_moved_to_the_side_are_no_tilted_stack(source, tmp_path, moved):
    def edit(data, index):
        if index in range(20)[moved]:
            x, y, z = data.ImagePositionPatient
            data.ImagePositionPatient = [x + 30, y, z]

    write_series(source, tmp_path, edit)
    with pytest.raises(
        FileError, match=r"patient or the table had moved: .*IM00\d\d.* 30 mm to the side of the slice before"
    ):
        files.read_volume(tmp_path)


def lookup_table(data, index):
    del data.RescaleSlope, data.RescaleIntercept
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 16])
    item.ModalityLUTType = "HU"
    item.add_new("LUTData", "OW", bytes(8192))
    data.ModalityLUTSequence = pydicom.Sequence([item])


def upper_bits(data, index):
    data.PixelData = (np.frombuffer(data.PixelData, "<u2") << 4).astype("<u2").tobytes()
    data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 15, 0


def one_without_slope(data, index):
    data.RescaleSlope = 2
    if index == 4:
        del data.RescaleSlope


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lookup_table, r"with a table \(Modality LUT Sequence\)"),
        (upper_bits, "High Bit 15 for 12 Bits Stored"),
        (one_without_slope, r"1 of the slices .* \(Rescale Slope\), such as .*IM0004"),
    ],
)
def test_values_that_would_be_read_wrong_are_refused_by_name(source, tmp_path, edit, words):
    write_series(source, tmp_path, edit)
    with pytest.raises(FileError, match=words):
        files.read_volume(tmp_path)


def test_a_ct_that_does_not_say_how_its_values_become_hu_or_that_they_are_others_has_a_note(source, clean, tmp_path):
    def bare(data, index):
        del data.RescaleSlope, data.RescaleIntercept

    write_series(source, tmp_path / "bare", bare)
    volume, (note,) = files.read_volume(tmp_path / "bare")
    np.testing.assert_array_equal(volume.array, clean.array + 1024)
    assert "does not say how the values become HU" in note
    write_series(source, tmp_path / "density", lambda data, index: setattr(data, "RescaleType", "EDW"))
    assert "not in HU but in EDW" in files.read_volume(tmp_path / "density")[1][0]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("modality", ["", "ct", " CT"])
def test_a_ct_whose_modality_was_emptied_is_a_ct(source, clean, tmp_path, modality):
    write_series(source, tmp_path, lambda data, index: setattr(data, "Modality", modality))
    volume, notes = files.read_volume(tmp_path)
    assert_same(volume, clean)
    assert notes == []


@pytest.mark.parametrize("at", [0, 9, 18])
def test_a_second_acquisition_of_two_slices_does_not_lose_slices_of_the_scan(source, clean, tmp_path, at):
    paths = write_series(source, tmp_path)
    for index in (at, at + 1):
        changed(
            paths[index],
            tmp_path / f"Z{index}",
            AcquisitionNumber=2,
            InstanceNumber=100 + index,
            RescaleIntercept=-1084,
        )
    volume, (note,) = files.read_volume(tmp_path)
    assert_same(volume, clean)
    assert note.startswith("2 images at z = ")


def test_a_slice_with_a_position_far_off_is_missing_where_it_should_be(source, tmp_path):
    paths = write_series(source, tmp_path)
    x, y, z = pydicom.dcmread(paths[9]).ImagePositionPatient
    changed(paths[9], ImagePositionPatient=[x, y, z + 100])
    with pytest.raises(FileError, match="lacks 1 slice"):
        files.read_volume(tmp_path)


@pytest.mark.parametrize("index", [9, 19])
def test_a_slice_that_is_packed_or_no_longer_dicom_is_never_skipped(source, tmp_path, index):
    path = write_series(source, tmp_path)[index]
    content = path.read_bytes()
    path.write_text("<html>404 Not Found</html>")
    with pytest.raises(FileError, match=rf"{path.name} is not DICOM, though it is named like a slice.* copy it again"):
        files.read_volume(tmp_path)
    path.unlink()
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(content))
    with pytest.raises(FileError, match=rf"{path.name}\.gz is an archive, so a series would lack a slice: unpack it"):
        files.read_volume(tmp_path)
    packed.rename(tmp_path / "old.zip")
    if index == 19:
        assert files.read_volume(tmp_path)[1] == [f"Left out: {tmp_path / 'old.zip'} (an archive)."]
