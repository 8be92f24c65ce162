"""Reading: values and place come out of a file as another program put them in."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from Testing.support.sample_files import FLIPPED, OBLIQUE, SERIES, SHEARED, STRAIGHT, ct, write_slice, written
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.volume import clean_hu
from UNetPlusPlusSegmentLib.files import FileError
from UNetPlusPlusSegmentLib.files.images import quiet, silence


@pytest.mark.parametrize("matrix", [STRAIGHT, OBLIQUE, FLIPPED], ids=["straight", "oblique", "flipped"])
def test_nibabel_and_this_library_see_a_nifti_file_at_the_same_place(tmp_path, matrix):
    nibabel.save(nibabel.Nifti1Image(ct().T, matrix), tmp_path / "ct.nii.gz")
    volume, notes = files.read_volume(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(volume.array, ct())
    np.testing.assert_allclose(volume.ijk_to_ras, matrix, atol=1e-4)  # NIfTI keeps float32
    assert notes == []


GRIDS = {"straight": STRAIGHT, "oblique": OBLIQUE, "flipped": FLIPPED, "sheared": SHEARED}


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        (ending, name)
        for ending in (".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz", ".NRRD")
        for name in GRIDS
        if not (name == "sheared" and ".nii" in ending)  # SimpleITK makes it straight there
    ],
)
def test_what_simpleitk_writes_is_read_with_values_and_place(tmp_path, ending, name):
    matrix = GRIDS[name]
    image = sitk.GetImageFromArray(ct())
    lps = np.diag([-1, -1, 1, 1]) @ matrix
    image.SetSpacing(np.linalg.norm(lps[:3, :3], axis=0))
    image.SetDirection((lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).ravel())
    image.SetOrigin(lps[:3, 3])
    sitk.WriteImage(image, tmp_path / f"ct{ending.lower()}")
    if ending.isupper():
        (tmp_path / f"ct{ending.lower()}").rename(tmp_path / f"ct{ending}")
    volume, _ = files.read_volume(str(tmp_path / f"ct{ending}"))
    np.testing.assert_array_equal(volume.array, ct())
    np.testing.assert_allclose(volume.ijk_to_ras, matrix, atol=1e-4)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_nan_and_infinity_in_a_file_become_air_though_simpleitk_makes_water_of_them_in_nifti(tmp_path, ending):
    values = ct().astype(np.float32)
    values[0, 1], values[3, 2, 5], values[-1, -1, -1] = np.nan, -np.inf, np.inf
    path = tmp_path / f"ct{ending}"
    if ".nii" in ending:
        nibabel.save(nibabel.Nifti1Image(values.T, STRAIGHT), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(values), path)
    volume, _ = files.read_volume(path)
    lost = ~np.isfinite(values)
    np.testing.assert_array_equal(~np.isfinite(volume.array), lost)
    np.testing.assert_array_equal(volume.array[~lost], values[~lost])
    assert set(clean_hu(volume.array)[0][lost]) == {-1024}


def test_real_mask_and_real_dicom_series_share_their_place(shared_data):
    volume, notes = files.read_volume(shared_data("volumes/abdomen_dicom"))
    mask, _ = files.read_volume(shared_data("volumes/abdomen_dicom_liver.nii.gz"))
    assert notes == []
    assert volume.array.shape == mask.array.shape == (20, 512, 512)

    # Their rows run in opposite directions, so corners are compared as a set.
    def corners(v):
        ends = np.stack(np.meshgrid(*[[0, n - 1] for n in v.array.shape[::-1]], [1]), -1).reshape(-1, 4)
        return sorted((ends @ v.ijk_to_ras.T).round(2).tolist())

    assert corners(volume) == corners(mask)
    inside = volume.array[:, ::-1][mask.array > 0]  # liver in the portal venous phase
    assert 80 < inside.mean() < 140


def test_slices_of_a_folder_are_stacked_by_their_place_and_not_by_their_name(tmp_path):
    for name, z in {"a": 7.5, "b": 0, "deeper/c": 2.5, "deeper/still/d": 5}.items():
        write_slice(tmp_path / f"{name}.dcm", (-10, 20, z), int(z * 10))
    shutil.copy(tmp_path / "a.dcm", tmp_path / "a copy.dcm")
    (tmp_path / "notes.txt").write_text("not DICOM")
    volume, notes = files.read_volume(tmp_path)
    assert volume.array[:, 0, 0].tolist() == [0, 25, 50, 75]
    np.testing.assert_allclose(
        volume.ijk_to_ras, [[-0.7, 0, 0, 10], [0, -0.5, 0, -20], [0, 0, 2.5, 0], [0, 0, 0, 1]], atol=1e-9
    )
    assert notes == []


def test_slices_whose_rows_run_the_other_way_are_stacked_downwards_from_the_highest(tmp_path):
    for z in (2.5, 7.5, 0, 5):
        place = (-10, 20 + 0.2 * z, z)
        write_slice(tmp_path / f"{z}.dcm", place, int(z * 10), ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
    volume, (note,) = files.read_volume(tmp_path)
    assert volume.array[:, 0, 0].tolist() == [75, 50, 25, 0]
    expected = [[-0.7, 0, 0, 10], [0, 0.5, 0.5, -21.5], [0, 0, -2.5, 7.5], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.ijk_to_ras, expected, atol=1e-9)
    assert "tilted by 11.3" in note


@pytest.mark.parametrize(("aside_mm", "refused"), [(0.9, False), (1.1, True)])
def test_slices_that_lie_up_to_two_pixels_to_the_side_are_one_stack(tmp_path, aside_mm, refused):
    for z in range(9):
        write_slice(tmp_path / f"{z}", (aside_mm * (z > 5), 0, 2.5 * z))  # pixels of 0.5 × 0.7 mm
    if refused:
        with pytest.raises(FileError, match=r"not a straight stack.*6, at z = 15 mm, lies 1 mm to the side"):
            files.read_volume(tmp_path)
    else:
        assert files.read_volume(tmp_path)[0].array.shape == (9, 6, 8)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_50_rows_are_not_taken_for_the_digit_that_is_stored_alike(tmp_path, syntax):
    pixels = np.zeros((50, 57), np.int16).tobytes()
    for k in range(3):
        path = write_slice(tmp_path / "ct" / f"{k}.dcm", (0, 0, k), Rows=50, Columns=57, PixelData=pixels)
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    (series,) = files.list_series(tmp_path / "ct")
    assert series["size"] == [57, 50]


def test_of_several_series_the_largest_ct_is_taken_and_another_can_be_chosen(tmp_path):
    for z in range(3):
        write_slice(tmp_path / f"large{z}", (0, 0, z), 1, SeriesDescription="thorax")
        write_slice(tmp_path / f"mr{z}", (0, 0, z), 3, SeriesInstanceUID="1.2.3", Modality="MR")
        write_slice(tmp_path / f"mr{z + 3}", (0, 0, z + 3), 3, SeriesInstanceUID="1.2.3", Modality="MR")
    for z in range(2):
        write_slice(tmp_path / f"small{z}", (0, 0, z), 2, SeriesInstanceUID="1.2.4")
    volume, (note,) = files.read_volume(tmp_path)
    assert volume.array.shape == (3, 6, 8)
    assert f"largest was read, 1: CT {SERIES} (3 slices, thorax)" in note
    assert "--series" in note and "Left out: 3: CT 1.2.4 (2 slices)" in note
    assert files.read_volume(tmp_path, series="1.2.4")[0].array[:, 0, 0].tolist() == [2, 2]
    assert files.read_volume(tmp_path, series="1.2.3")[0].array.shape[0] == 6
    with pytest.raises(FileError, match=rf"no series 9\.9, only .*{SERIES}.*MR 1\.2\.3 \(6 slices\)"):
        files.read_volume(tmp_path, series="9.9")


def test_a_description_in_another_alphabet_can_be_printed(tmp_path):
    for z in range(2):
        write_slice(tmp_path / f"{z}", (0, 0, z), SpecificCharacterSet="ISO_IR 100", SeriesDescription="Schädel")
        write_slice(tmp_path / f"utf{z}", (0, 0, z), SpecificCharacterSet="ISO_IR 192", SeriesInstanceUID="1.2")
    _, (note,) = files.read_volume(tmp_path)
    assert "Schädel" in note
    note.encode()


def test_a_localizer_in_the_same_series_is_left_out_with_a_note(tmp_path):
    for z in range(3):
        write_slice(tmp_path / f"{z}", (0, 0, z))
    write_slice(tmp_path / "localizer", (0, 0, 0), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    volume, (note,) = files.read_volume(tmp_path)
    assert volume.array.shape == (3, 6, 8)
    assert "(3 slices)" in note and "(1 slice)" in note


def test_uneven_slices_are_measured(tmp_path):
    for z in (0, 2, 4, 7):
        write_slice(tmp_path / f"{z}", (0, 0, z))
    volume, (note,) = files.read_volume(tmp_path)
    assert volume.spacing_mm[2] == pytest.approx(7 / 3)
    assert "2.00 to 3.00 mm apart" in note and "wrong by up to 0.7 mm" in note  # the third lies at 4, not 2 × 7/3
    assert "true volumes are up to 14% smaller or 29% larger" in note  # 2 and 3 mm, counted as 7/3 mm


@pytest.mark.parametrize(
    ("places", "missing"),
    [([0, 2.5, 7.5], 5), ([*range(0, 10, 2), *range(12, 22, 2)], 10)],
    ids=["one of four", "one of eleven at whole mm"],
)
def test_a_slice_is_missed_though_there_are_few_or_positions_may_be_rounded_and_they_are_numbered_on(
    tmp_path, places, missing
):
    for number, z in enumerate(places, start=1):
        write_slice(tmp_path / f"{number}", (0, 0, z), InstanceNumber=number)
    with pytest.raises(FileError, match=f"lacks 1 slice, at z = {missing} mm"):
        files.read_volume(tmp_path)


def test_parts_with_other_steps_are_refused_where_an_even_grid_would_move_slices_far(tmp_path):
    for z in [*range(0, 100, 5), *range(100, 300, 10)]:
        write_slice(tmp_path / f"{z}", (0, 0, z))
    with pytest.raises(
        FileError, match=r"slices are 5\.00 to 10\.00 mm apart, and would be moved by up to 49 mm: give"
    ):
        files.read_volume(tmp_path)


def test_an_even_tilted_stack_keeps_the_place_of_every_slice(tmp_path):
    angle = np.radians(18)
    for z in range(4):
        write_slice(
            tmp_path / f"{z}", (0, 0, 2.5 * z), ImageOrientationPatient=[1, 0, 0, 0, np.cos(angle), -np.sin(angle)]
        )
    volume, (note,) = files.read_volume(tmp_path)
    assert "tilted by 18.0°" in note
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 2], [0, 0, 2.5], atol=1e-6)
    assert volume.voxel_volume_ml == pytest.approx(0.5 * 0.7 * 2.5 * np.cos(angle) / 1000)


def test_the_real_tilted_series_is_read_with_the_error_of_its_geometry(shared_data):
    volume, notes = files.read_volume(shared_data("odd_inputs/gantry_tilt_dicom"))
    assert volume.array.shape == (16, 512, 512)
    assert "18.5°" in notes[0]
    assert "1.08 to 7.00 mm apart" in notes[1] and "up to 13.2 mm" in notes[1]
    assert "up to 51% smaller or 34% larger" in notes[1]
    np.testing.assert_allclose(volume.ijk_to_ras[:3, 2] * 15, [0, 0, 113.4960586 - 31.1560586], atol=1e-3)


def test_one_file_of_a_series_is_read_alone_with_a_note(shared_data):
    volume, notes = files.read_volume(shared_data("odd_inputs/693_UNCR.dcm"))
    assert volume.array.shape == (1, 512, 512)
    assert volume.spacing_mm == pytest.approx([0.478516, 0.478516, 5])
    assert notes == ["Only the slice in this file was read: give the folder to read the whole series."]
    _, notes = files.read_volume(shared_data("odd_inputs/JPEG-LL.dcm"))
    assert "not CT: its modality is NM" in notes[0] and "how thick" in notes[1] and "how the patient lies" in notes[2]


def test_slices_behind_a_link_are_read_and_a_link_that_leads_back_does_no_harm(tmp_path):
    for index in range(3):
        write_slice(tmp_path / "ct" / f"{index}.dcm", (0, 0, index))
        write_slice(tmp_path / "elsewhere" / f"{index}.dcm", (0, 0, 3 + index))
    (tmp_path / "ct" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ct" / "again").symlink_to(tmp_path / "ct")
    volume, notes = files.read_volume(tmp_path / "ct")
    assert (len(volume.array), notes) == (6, [])


def test_slices_with_one_name_from_an_anonymiser_are_distinguished_by_position(tmp_path):
    for index in range(3):
        write_slice(tmp_path / f"{index}.dcm", (0, 0, index), SOPInstanceUID="1.2.3")
    assert len(files.read_volume(tmp_path)[0].array) == 3


def nifti_of(path, qform, sform):
    """A NIfTI of `ct()`; a place of None is not given; the sform is of a space other than the scanner's."""
    image = nibabel.Nifti1Image(ct().T, None)
    image.header.set_zooms((0.7, 0.8, 3.0))
    for place, put, code in ((qform, image.set_qform, 1), (sform, image.set_sform, 2)):
        put(place, code=0 if place is None else code)
    nibabel.save(image, path)
    return path


def test_a_nifti_that_says_two_places_or_none_has_a_note(tmp_path):
    place, rounded = np.diag([-0.7, -0.8, 3.0, 1]), np.diag([-0.7004, -0.8, 3.0, 1])
    for path, *places in (
        ("both", place, place), ("rounded", place, rounded), ("qform", place, None), ("sform", None, place)
    ):  # fmt: skip
        volume, notes = files.read_volume(nifti_of(tmp_path / f"{path}.nii.gz", *places))
        assert notes == []
        np.testing.assert_allclose(volume.ijk_to_ras, place, atol=1e-3)
    elsewhere, larger = place.copy(), place @ np.diag([1, 1, 1.5, 1])
    elsewhere[0, 3] = 5
    for path, *places in (("two", place, elsewhere), ("size", None, larger)):
        _, (note,) = files.read_volume(nifti_of(tmp_path / f"{path}.nii", *places))
        assert "contradicts itself by up to" in note
    _, (note,) = files.read_volume(nifti_of(tmp_path / "none.nii", None, None))
    assert "does not say how the patient lies" in note


def test_a_gzip_file_of_several_members_is_whole_nevertheless(tmp_path):
    content = written(tmp_path / "ct.nii").read_bytes()
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(files.read_volume(tmp_path / "ct.nii.gz")[0].array, ct())


def test_the_terminal_is_back_after_files_were_read_in_one_thread_and_written_in_another(tmp_path):
    files.write_volume(tmp_path / "in.nrrd", ct(), STRAIGHT)
    terminal = os.fstat(2).st_dev, os.fstat(2).st_ino
    with ThreadPoolExecutor(2) as threads:
        for _ in range(50):
            reading = threads.submit(files.read_volume, tmp_path / "in.nrrd")
            threads.submit(files.write_volume, tmp_path / "out.nrrd", ct(), STRAIGHT).result()
            reading.result()
            assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == terminal


def loudness() -> tuple:
    """What `silence` and `quiet` change: where messages of C++ go, and which warnings are shown."""
    return os.fstat(2).st_ino, warnings.filters, logging.getLogger("highdicom").level


@pytest.mark.parametrize("hush", [silence, quiet])
def test_messages_stay_away_until_the_last_of_several_threads_needs_it_and_then_come_back(hush):
    before = loudness()
    one, other = hush(), hush()
    one.__enter__()
    during = loudness()
    other.__enter__()
    one.__exit__(None, None, None)
    assert loudness() == during != before
    other.__exit__(None, None, None)
    assert loudness() == before
