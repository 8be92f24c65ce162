"""Geometry that is missing or odd: alike in every format a place is guessed with a note, a spacing never but by force."""

from __future__ import annotations

import bz2
import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from Testing.support.sample_files import FLIPPED, OBLIQUE, STRAIGHT, ct, grid, raw_nrrd, write_slice
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.files import FileError, nrrd
from UNetPlusPlusSegmentLib.files.geometry import nearest_rotation
from UNetPlusPlusSegmentLib.jobs.cases import find_cases

GUESSED_PLACE, GUESSED_SIZE = "does not say how the patient lies", "every volume and length is a guess"


def mha(path, *lines, values=None):
    values = ct() if values is None else values
    sizes = " ".join(map(str, values.shape[::-1]))
    fields = ["ObjectType = Image", f"NDims = {values.ndim}", f"DimSize = {sizes}", *lines]
    header = "\n".join([*fields, "ElementType = MET_SHORT", "ElementDataFile = LOCAL", ""])
    path.write_bytes(header.encode() + values.astype("<i2").tobytes())
    return path


def nifti(path, qform=None, sform=None, zooms=(0.7, 0.8, 3.0), unit=None, values=None):
    """A place of None is not given; the codes are those of a scanner."""
    image = nibabel.Nifti1Image((ct() if values is None else values).T, None)
    image.header.set_zooms((*zooms, 1.0, 1.0)[: image.ndim])
    for place, put in ((qform, image.set_qform), (sform, image.set_sform)):
        put(place, code=0 if place is None else 1)
    image.header["pixdim"][1:4] = zooms
    if unit:
        image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def dicom(folder, up=True, **tags):
    for z in range(5):
        write_slice(folder / f"{z if up else 9 - z}", (0, 0, 3 * z), **tags)
    return folder


WITHOUT_SPACING = {
    "nrrd": lambda d: raw_nrrd(d / "ct.nrrd"),
    "nrrd with a space": lambda d: raw_nrrd(d / "ct.nrrd", "space: left-posterior-superior"),
    "nrrd that says nan": lambda d: raw_nrrd(d / "ct.nrrd", "spacings: nan nan nan"),
    "nrrd that says one nan": lambda d: raw_nrrd(d / "ct.nrrd", "spacings: 0.7 0.8 nan"),
    "mha": lambda d: mha(d / "ct.mha"),
    "mha with a place": lambda d: mha(d / "ct.mha", "Offset = 1 2 3", "TransformMatrix = 1 0 0 0 1 0 0 0 1"),
    "nifti": lambda d: nifti(d / "ct.nii", zooms=(0, 0, 0)),
    "dicom": lambda d: dicom(d / "ct", PixelSpacing=None),
    "dicom from top to bottom": lambda d: dicom(d / "ct", up=False, PixelSpacing=None),
}


@pytest.mark.parametrize("make", WITHOUT_SPACING.values(), ids=WITHOUT_SPACING)
def test_without_spacing_every_millilitre_would_be_a_guess(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(FileError, match=r"does not say how large its voxels are.*--force") as refusal:
        files.read_volume(path)
    assert "\n" not in str(refusal.value)
    volume, notes = files.read_volume(path, force=True)
    assert any(GUESSED_SIZE in note for note in notes)
    assert volume.spacing_mm[0] in (1.0, 0.7)


WITHOUT_PLACE = {
    "nrrd": lambda d: raw_nrrd(d / "ct.nrrd", "spacings: 0.7 0.8 3"),
    "nrrd of no patient": lambda d: raw_nrrd(
        d / "ct.nrrd", "space: scanner-xyz", "space directions: (0.7,0,0) (0,0.8,0) (0,0,3)", "space origin: (0,0,0)"
    ),
    "mha": lambda d: mha(d / "ct.mha", "ElementSpacing = 0.7 0.8 3"),
    "mha of an old program": lambda d: mha(d / "ct.mha", "ElementSize = 0.7 0.8 3"),
    "nifti": lambda d: nifti(d / "ct.nii"),
    "one dicom slice": lambda d: write_slice(d / "ct.dcm", ImageOrientationPatient=None, SliceThickness=3),
}


@pytest.mark.parametrize("make", WITHOUT_PLACE.values(), ids=WITHOUT_PLACE)
def test_without_an_orientation_the_size_is_right_and_a_note_says_that_sides_are_assumed(tmp_path, make):
    path = make(tmp_path)
    volume, notes = files.read_volume(path)
    assert any(GUESSED_PLACE in note for note in notes)
    np.testing.assert_allclose(volume.spacing_mm, (0.7, 0.5 if path.suffix == ".dcm" else 0.8, 3.0), rtol=1e-6)


def test_a_size_in_another_unit_is_understood_without_a_note(tmp_path):
    place = np.diag([-0.7, -0.8, 3.0, 1])
    place[:3, 3] = 10, 20, 30
    expected, _ = files.read_volume(nifti(tmp_path / "mm.nii", place, place))
    for unit, mm in (("meter", 1000), ("micron", 0.001)):
        scaled = place / [[mm]] * 1.0
        scaled[3] = 0, 0, 0, 1
        path = nifti(tmp_path / f"{unit}.nii", scaled, scaled, np.array([0.7, 0.8, 3.0]) / mm, unit)
        volume, notes = files.read_volume(path)
        assert notes == []
        np.testing.assert_allclose(volume.ijk_to_ras, expected.ijk_to_ras, atol=1e-4)
    lines = (
        "space: left-posterior-superior",
        'space units: "cm" "cm" "cm"',
        "space directions: (0.07,0,0) (0,0.08,0) (0,0,0.3)",
    )
    volume, notes = files.read_volume(raw_nrrd(tmp_path / "cm.nrrd", *lines, "space origin: (1,2,3)"))
    assert notes == []
    np.testing.assert_allclose(
        volume.ijk_to_ras, np.diag([-1, -1, 1, 1]) @ [[0.7, 0, 0, 10], [0, 0.8, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
    )
    of_each_axis = "spacings: 0.07 0.08 0.3", 'units: "cm" "cm" "cm"'
    sized, _ = files.read_volume(raw_nrrd(tmp_path / "sized.nrrd", *of_each_axis))
    np.testing.assert_allclose(sized.spacing_mm, volume.spacing_mm)
    whole = (
        "ElementSpacing = 0.07 0.08 0.3",
        "Offset = 1 2 3",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "DistanceUnits = cm",
    )
    np.testing.assert_allclose(files.read_volume(mha(tmp_path / "cm.mha", *whole))[0].ijk_to_ras, volume.ijk_to_ras)


@settings(max_examples=40, deadline=None)
@given(off=st.lists(st.floats(-1e-3, 1e-3), min_size=9, max_size=9), angles=st.tuples(*[st.floats(-180, 180)] * 3))
def test_axes_that_are_not_orthogonal_after_rounding_are_corrected_without_moving_voxels_far(
    tmp_path_factory, off, angles
):
    place = grid(angles, (0.8, 0.9, 2.5))
    place[:3, :3] = (place[:3, :3] / (0.8, 0.9, 2.5) + np.reshape(off, (3, 3))) * (0.8, 0.9, 2.5)
    values = np.zeros((40, 60, 50), np.int16)
    path = nifti(tmp_path_factory.mktemp("off") / "ct.nii", None, place, (0.8, 0.9, 2.5), values=values)
    volume, notes = files.read_volume(path)
    directions = volume.ijk_to_ras[:3, :3] / volume.spacing_mm
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=3e-4)
    corners = np.array([*itertools.product((0, 49), (0, 59), (0, 39), (1,))]).T
    assert np.abs(np.linalg.solve(place, volume.ijk_to_ras @ corners) - corners).max() < 1
    assert len(notes) <= 1 and all("right angles" in note for note in notes)


def test_axes_that_are_made_orthogonal_keep_the_middle_of_the_grid_in_place():
    size, origin, steps = (50, 60, 40), np.array([1.0, 2, 3]), grid((20, -10, 30), shear=0.02)[:3, :3]
    directions, moved, away = nearest_rotation(size, steps, origin)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)
    middle, spacing_mm = (np.array(size) - 1) / 2, np.linalg.norm(steps, axis=0)
    np.testing.assert_allclose(moved + directions * spacing_mm @ middle, origin + steps @ middle)
    assert 0 < away < 1


def test_axes_far_from_right_angles_are_refused_in_nifti(tmp_path):
    place = grid(spacing_mm=(0.7, 0.8, 3.0), shear=0.8)
    path = nifti(tmp_path / "ct.nii", None, place, values=np.zeros((40, 60, 50), np.int16))
    with pytest.raises(FileError, match=r"axes that are not at right angles, by up to .* voxels.*NRRD"):
        files.read_volume(path)


@pytest.mark.parametrize("matrix", [STRAIGHT, OBLIQUE, FLIPPED], ids=["straight", "oblique", "flipped"])
@pytest.mark.parametrize("far_mm", [0, 755.0, -5000.0])
def test_an_sform_alone_is_enough_wherever_the_volume_lies(tmp_path, matrix, far_mm):
    """ITK refuses such files far from the origin, where its inverse is inexact."""
    place = matrix.copy()
    place[2, 3] += far_mm
    volume, notes = files.read_volume(nifti(tmp_path / "ct.nii.gz", None, place))
    assert notes == []
    np.testing.assert_allclose(volume.ijk_to_ras, place, atol=1e-3)


FRAME = ct()[np.newaxis]
ONE_FRAME = {
    "nii": lambda d: nifti(d / "ct.nii", STRAIGHT, STRAIGHT, values=FRAME),
    "nii, five axes": lambda d: nifti(d / "ct.nii", STRAIGHT, STRAIGHT, values=FRAME[np.newaxis]),
    "nrrd": lambda d: raw_nrrd(
        d / "ct.nrrd", "space: right-anterior-superior", "space directions: (0.7,0,0) (0,0.8,0) (0,0,3) none",
        "space origin: (-120.5,33.25,1007.125)", "kinds: domain domain domain list", values=FRAME,
    ),
    "nrrd, list first": lambda d: raw_nrrd(
        d / "ct.nrrd", "space: right-anterior-superior", "space directions: none (0.7,0,0) (0,0.8,0) (0,0,3)",
        "space origin: (-120.5,33.25,1007.125)", "kinds: list domain domain domain", values=ct()[..., np.newaxis],
    ),
    "mha": lambda d: mha(
        d / "ct.mha", "ElementSpacing = 0.7 0.8 3 1", "Offset = 120.5 -33.25 1007.125 0",
        "TransformMatrix = -1 0 0 0 0 -1 0 0 0 0 1 0 0 0 0 1", values=FRAME,
    ),
}  # fmt: skip


@pytest.mark.parametrize("make", ONE_FRAME.values(), ids=ONE_FRAME)
def test_a_sequence_of_one_frame_is_a_volume(tmp_path, make):
    volume, notes = files.read_volume(make(tmp_path))
    assert notes == []
    np.testing.assert_array_equal(volume.array, ct())
    np.testing.assert_allclose(volume.ijk_to_ras, STRAIGHT, atol=1e-4)


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.Nii.gz", "ct.nii", "CT.NII"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_content_of_a_nifti_file_decides_whether_it_is_compressed(tmp_path, name, packed):
    content = nifti(tmp_path / "plain.nii", STRAIGHT, STRAIGHT).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    volume, notes = files.read_volume(tmp_path / name)
    assert notes == []
    np.testing.assert_array_equal(volume.array, ct())


WHOLE = (
    "space: right-anterior-superior",
    "space directions: (0.7,0,0) (0,0.8,0) (0,0,3)",
    "space origin: (-120.5,33.25,1007.125)",
)


def test_nrrd_is_read_in_every_compression(tmp_path):
    for encoding in ("raw", "gzip", "bzip2"):
        volume, notes = files.read_volume(raw_nrrd(tmp_path / f"{encoding}.nrrd", *WHOLE, encoding=encoding))
        assert notes == []
        np.testing.assert_array_equal(volume.array, ct())
        np.testing.assert_allclose(volume.ijk_to_ras, STRAIGHT)
    content = (tmp_path / "bzip2.nrrd").read_bytes()
    (tmp_path / "bzip2.nrrd").write_bytes(content[:-20])
    with pytest.raises(FileError, match="damaged or incomplete"):
        files.read_volume(tmp_path / "bzip2.nrrd")
    breaks = b"\r\n\r\n" * 50  # looks like the end of a header, but lies behind it
    (tmp_path / "bzip2.nrrd").write_bytes(
        content.partition(b"\n\n")[0] + b"\n\n" + content.partition(b"\n\n")[2] + breaks
    )
    np.testing.assert_array_equal(files.read_volume(tmp_path / "bzip2.nrrd")[0].array, ct())
    (tmp_path / "ct.raw.bz2").write_bytes(bz2.compress(ct().astype("<i2").tobytes()))
    header = content.partition(b"\n\n")[0] + b"\ndata file: ct.raw.bz2\n"
    (tmp_path / "ct.nhdr").write_bytes(header)
    np.testing.assert_array_equal(files.read_volume(tmp_path / "ct.nhdr")[0].array, ct())


def test_a_few_bytes_of_bzip2_cannot_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(nrrd, "UNPACKED_BYTES", 1 << 16)
    path = raw_nrrd(tmp_path / "bomb.nrrd", *WHOLE, encoding="bzip2")
    path.write_bytes(path.read_bytes().partition(b"\n\n")[0] + b"\n\n" + bz2.compress(bytes(1 << 20)))
    with pytest.raises(FileError, match="damaged or incomplete"):
        files.read_volume(path)


def test_voxels_that_never_end_are_refused(tmp_path):
    path = raw_nrrd(tmp_path / "ct.nrrd", *WHOLE)
    path.with_name("ct.nhdr").write_bytes(path.read_bytes().partition(b"\n\n")[0] + b"\ndata file: /dev/zero\n")
    with pytest.raises(FileError, match="data file that it names"):
        files.read_volume(path.with_name("ct.nhdr"))


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("scale", [(1, 0), (0, 0), (2.5, -1000.3), (1, -1024), (np.nan, 0)])
def test_nifti_values_are_those_that_simpleitk_reads(tmp_path, kind, scale):
    values = abs(ct()).astype(kind)
    content = bytearray(nifti(tmp_path / "ct.nii", STRAIGHT, STRAIGHT, values=values).read_bytes())
    struct.pack_into("<2f", content, 112, *scale)
    (tmp_path / "ct.nii").write_bytes(content)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "ct.nii"))
    volume, _ = files.read_volume(tmp_path / "ct.nii")
    assert volume.array.dtype == expected.dtype
    np.testing.assert_array_equal(volume.array, expected)


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    flip=st.sampled_from([1, -1]),
    codes=st.sampled_from([(1, 0), (0, 1), (1, 1), (1, 2), (2, 1), (2, 4)]),
)
def test_a_nifti_lies_where_simpleitk_puts_it(tmp_path_factory, angles, flip, codes):
    place = grid(angles) @ np.diag([1, 1, flip, 1])
    image = nibabel.Nifti1Image(ct().T, None)
    image.set_qform(place if codes[0] else None, codes[0])
    image.set_sform(place if codes[1] else None, codes[1])
    image.header["pixdim"][1:4] = 0.7, 0.8, 3.0
    path = tmp_path_factory.mktemp("place") / "ct.nii"
    nibabel.save(image, path)
    expected = sitk.ReadImage(path)
    volume, notes = files.read_volume(path)
    lps = np.diag([-1, -1, 1, 1]) @ volume.ijk_to_ras
    assert notes == []
    np.testing.assert_allclose(lps[:3, :3] / volume.spacing_mm, np.reshape(expected.GetDirection(), (3, 3)), atol=1e-4)
    np.testing.assert_allclose(lps[:3, 3], expected.GetOrigin(), atol=1e-3)


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1), (2, 4)])
def test_of_two_places_that_contradict_each_other_that_of_the_scanner_is_taken_as_simpleitk_does(tmp_path, codes):
    image = nibabel.Nifti1Image(ct().T, None)
    image.set_qform(grid((10, 0, 0)), codes[0])
    image.set_sform(grid((0, 0, 40)), codes[1])
    image.header["pixdim"][1:4] = 0.7, 0.8, 3.0
    nibabel.save(image, tmp_path / "ct.nii")
    volume, notes = files.read_volume(tmp_path / "ct.nii")
    taken = grid((0, 0, 40)) if codes[1] == 1 else grid((10, 0, 0))
    np.testing.assert_allclose(volume.ijk_to_ras, taken, atol=1e-4)
    expected = sitk.ReadImage(tmp_path / "ct.nii").GetDirection()
    lps = np.diag([-1, -1, 1]) @ volume.ijk_to_ras[:3, :3] / volume.spacing_mm
    np.testing.assert_allclose(lps, np.reshape(expected, (3, 3)), atol=1e-4)
    assert ["contradicts itself" in note for note in notes] == [True] * (codes[1] != 1)


def pair(folder, packed=False):
    """A NIfTI header and its image."""
    image = nibabel.Nifti1Pair(ct().T, grid((20, -10, 30)))
    nibabel.save(image, folder / "ct.img")
    if packed:
        (folder / "ct.img.gz").write_bytes(gzip.compress((folder / "ct.img").read_bytes()))
        (folder / "ct.img").unlink()
    return folder / "ct.hdr"


@pytest.mark.parametrize("given", ["ct.hdr", "ct.img"])
def test_a_nifti_pair_is_read_by_its_header_or_its_image(tmp_path, given):
    pair(tmp_path)
    volume, notes = files.read_volume(tmp_path / given)
    assert notes == []
    np.testing.assert_array_equal(volume.array, ct())
    np.testing.assert_allclose(volume.ijk_to_ras, grid((20, -10, 30)), atol=1e-3)
    assert list(find_cases(tmp_path)[0]) == ["ct"]


def test_the_image_of_a_nifti_pair_may_be_compressed_or_missing(tmp_path):
    header = pair(tmp_path, packed=True)
    np.testing.assert_array_equal(files.read_volume(header)[0].array, ct())
    (tmp_path / "ct.img.gz").unlink()
    with pytest.raises(FileError, match=r"ct\.hdr is the header of a NIfTI pair, and its image ct\.img is missing"):
        files.read_volume(header)


@pytest.mark.parametrize("given", ["ct.hdr", "ct.img"])
def test_an_analyze_file_is_refused_because_it_does_not_distinguish_left_and_right(tmp_path, given):
    nibabel.save(nibabel.AnalyzeImage(ct().T, np.eye(4)), tmp_path / "ct.img")
    with pytest.raises(FileError, match=r"ct\.hdr is an Analyze file.* left from right.*give the DICOM series"):
        files.read_volume(tmp_path / given)


def test_values_of_a_metaimage_are_scaled_as_its_header_says(tmp_path):
    lines = ("ElementSpacing = 1 1 1", "Offset = 0 0 0", "TransformMatrix = 1 0 0 0 1 0 0 0 1")
    scaled = ("ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionOffset = -1024")
    volume, notes = files.read_volume(mha(tmp_path / "ct.mha", *lines, *scaled))
    assert notes == []
    np.testing.assert_array_equal(volume.array, 2.0 * ct() - 1024)
    for odd in ("0", "nan", "x"):
        with pytest.raises(FileError, match=f"scaled by {odd} and 0, which is impossible"):
            files.read_volume(mha(tmp_path / "odd.mha", *lines, f"ElementToIntensityFunctionSlope = {odd}"))
