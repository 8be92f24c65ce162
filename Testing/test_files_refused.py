"""Reading what cannot be read: one sentence that names the file and says what to do, and nothing else on the terminal."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Testing.support.sample_files import STRAIGHT, ct, write_slice, written
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.volume import VolumeError
from UNetPlusPlusSegmentLib.files import FileError

LIBRARY = Path(__file__).parents[1] / "UNetPlusPlusSegment"


def nifti_with(path: Path, changes: dict[int, bytes]) -> Path:
    nibabel.save(nibabel.Nifti1Image(ct().T, STRAIGHT), path)
    content = bytearray(path.read_bytes())
    for offset, new in changes.items():
        content[offset : offset + len(new)] = new
    path.write_bytes(content)
    return path


def cut(path: Path, share: float = 0.7) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def orphan(path: Path) -> Path:
    written(path)
    for data in path.parent.glob("*raw*"):
        data.unlink()
    return path


def renamed(path: Path, data: bytes) -> Path:
    """A header that names another data file."""
    return filled(path, path.read_bytes().replace(b"ct.raw", data))


def filled(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def series(folder: Path, places: list[float], **tags) -> Path:
    for index, z in enumerate(places):
        write_slice(folder / f"{index}.dcm", (0, 0, z), **tags)
    return folder


def damaged_slice(folder: Path) -> Path:
    cut(series(folder, [0, 1, 2, 3]) / "2.dcm", 0.9)
    return folder


RGB = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
    "PixelData": bytes(144),
}
META_HEADER = b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementSpacing = %s\nElementDataFile = LOCAL\n"

UNREADABLE = {
    "missing": (lambda d: d / "ct.nrrd", "no file or folder"),
    "zero byte in the name": (lambda d: d / "c\0t.nrrd", "cannot be read"),
    "endless name": (lambda d: d / ("x" * 300 + ".nrrd"), "name too long"),
    "device": (lambda d: Path("/dev/null"), "neither a file nor a folder"),
    "empty file": (lambda d: filled(d / "ct.nii.gz", b""), "empty"),
    "empty folder": (lambda d: d, "contains no DICOM images"),
    "other ending": (lambda d: filled(d / "ct.docx", b"hello"), "has an unknown format.*DICOM"),
    "text as nrrd": (lambda d: filled(d / "ct.nrrd", b"hello"), "damaged, incomplete or in another format"),
    "text as nifti": (lambda d: filled(d / "ct.nii", b"hello" * 99), "not a NIfTI file"),
    "text as nii.gz": (lambda d: filled(d / "ct.nii.gz", b"hello" * 99), "not a NIfTI file"),
    "text as dicom": (lambda d: filled(d / "ct.dcm", b"hello" * 99), "damaged or has an unknown format"),
    "cut nrrd": (lambda d: cut(written(d / "ct.nrrd")), "damaged"),
    "cut mha": (lambda d: cut(written(d / "ct.mha")), "damaged"),
    "cut nii": (lambda d: cut(written(d / "ct.nii")), "incomplete, with only .* of 480 bytes"),
    "cut nii.gz": (lambda d: cut(written(d / "ct.nii.gz")), "damaged or incomplete"),
    "cut at its checksum": (lambda d: cut(written(d / "ct.nii.gz"), 0.999), "damaged or incomplete"),
    "cut dicom": (lambda d: cut(write_slice(d / "ct.dcm"), 0.9), "damaged"),
    "cut dicom in a folder": (damaged_slice, r"2\.dcm is a CT image that is damaged.*lack a slice"),
    "nhdr alone": (lambda d: orphan(d / "ct.nhdr"), "data file that it names is missing"),
    "endless data file": (lambda d: renamed(orphan(d / "ct.nhdr"), b"x" * 300), "data file that it names is missing"),
    "mhd alone": (lambda d: orphan(d / "ct.mhd"), "data file that it names is missing"),
    "2D": (lambda d: written(d / "ct.nrrd", ct()[0]), "flat picture"),
    "4D": (lambda d: written(d / "ct.nrrd", np.stack([ct()] * 2), isVector=False), "sequence"),
    "vector": (lambda d: written(d / "ct.nrrd", np.zeros((5, 6, 7, 2), np.float32), isVector=True), "2 values in each"),
    "rgb": (lambda d: written(d / "ct.nrrd", np.zeros((5, 6, 7, 3), np.uint8), isVector=True), "colour"),
    "complex": (lambda d: written(d / "ct.nii", ct().astype(np.complex64)), "2 values in each"),
    "zero pixel, nii": (lambda d: nifti_with(d / "ct.nii", {80: struct.pack("<f", 0)}), "0 × 0.8 × 3 mm"),
    "nan pixel, nii": (lambda d: nifti_with(d / "ct.nii", {84: struct.pack("<f", np.nan)}), r"0.7 × \? × 3 mm"),
    "negative pixel, nii": (lambda d: nifti_with(d / "ct.nii", {88: struct.pack("<f", -3)}), "0.7 × 0.8 × -3 mm"),
    "sizes of nothing, nii": (lambda d: nifti_with(d / "ct.nii", {42: struct.pack("<h", -8)}), "damaged header"),
    "zero pixel, mha": (lambda d: filled(d / "ct.mha", META_HEADER % b"0 1 1" + bytes(16)), "0 × 1 × 1 mm"),
    "negative pixel, mha": (lambda d: filled(d / "ct.mha", META_HEADER % b"1 -1 1" + bytes(16)), "1 × -1 × 1 mm"),
    "83 dimensions, mha": (
        lambda d: filled(d / "ct.mha", META_HEADER.replace(b"3", b"83", 1) + bytes(16)),
        "damaged header",
    ),
    "zero pixel, dicom": (
        lambda d: series(d, [0, 1], PixelSpacing=[0, 0]),
        r"how large its voxels are \(0 × 0 × 1 mm\)",
    ),
    "no pixel size, dicom": (
        lambda d: series(d, [0, 1], PixelSpacing=None),
        r"how large its voxels are \(\? × \? × 1 mm\).*--force",
    ),
    "no places, dicom": (lambda d: series(d, [0, 1], ImagePositionPatient=None), "where its images lie"),
    "no directions, dicom": (lambda d: series(d, [0, 1], ImageOrientationPatient=[0] * 6), "where its images lie"),
    "two phases, dicom": (
        lambda d: write_slice(series(d, [0, 0, 1, 1]) / "4.dcm", value=80).parent,
        "sequence, with 5 images at 2 positions",
    ),
    "mr only, dicom": (lambda d: series(d, [0, 1], Modality="MR"), r"no CT series, only 1: MR .*\(2 slices\)"),
    "rgb, dicom": (lambda d: series(d, [0, 1], **RGB), "colour"),
}


@pytest.mark.parametrize(("make", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_refused_in_one_sentence_that_names_it(tmp_path, make, message, capfd):
    path = make(tmp_path)
    with pytest.raises(FileError, match=message) as refusal:
        files.read_volume(path)
    assert "\n" not in str(refusal.value)
    assert str(path).replace("\0", "") in str(refusal.value).replace("\0", "")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corrupt_jpeg2000", "cannot be decoded.*damaged"),
        ("corrupt_jpeg2000/000005.dcm", "cannot be decoded.*damaged"),
        ("example4d.nii.gz", "sequence"),
        ("functional.nii", "sequence"),
        ("example_nifti2.nii.gz", "NIfTI-2.*save it as NIfTI-1"),
        ("SC_rgb.dcm", "colour"),
        ("liver.dcm", r"segmentation \(DICOM SEG\), not an image"),
    ],
)
def test_real_files_that_are_not_volumes_are_refused_in_one_sentence(shared_data, name, message):
    with pytest.raises(FileError, match=message):
        files.read_volume(shared_data(f"odd_inputs/{name}"))


def test_a_series_cannot_be_chosen_in_a_file(tmp_path):
    with pytest.raises(FileError, match="no series to choose from"):
        files.read_volume(written(tmp_path / "ct.nrrd"), series="1.2")


def test_files_that_may_not_be_read_are_refused(tmp_path, ordinary_user):
    path = written(tmp_path / "ct.nrrd")
    path.chmod(0)
    with pytest.raises(FileError, match="no permission to read"):
        files.read_volume(path)
    path.unlink()
    (series(tmp_path / "dicom", [0, 1, 2]) / "1.dcm").chmod(0)
    with pytest.raises(FileError, match=r"1\.dcm cannot be read \(Permission denied\)"):
        files.read_volume(tmp_path / "dicom")
    (tmp_path / "dicom").chmod(0)
    with pytest.raises(FileError, match="no permission to read"):
        files.read_volume(tmp_path / "dicom")
    (tmp_path / "dicom").chmod(0o700)


@settings(max_examples=60)
@given(place=st.integers(0, 351), value=st.integers(0, 255), ending=st.sampled_from([".nii", ".nrrd", ".mha"]))
def test_a_header_with_any_one_byte_wrong_is_read_or_refused_but_breaks_nothing(tmp_path_factory, place, value, ending):
    path = written(tmp_path_factory.mktemp("damaged") / f"ct{ending}")
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)
    with contextlib.suppress(FileError, VolumeError):
        assert files.read_volume(path)[0].array.ndim == 3


def test_nothing_reaches_the_terminal_when_odd_files_are_read_in_a_process_of_their_own(shared_data):
    odd = shared_data("odd_inputs")
    script = """
import sys
from pathlib import Path
from UNetPlusPlusSegmentLib import files
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        files.read_volume(path)
    except ValueError:
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", script, odd],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_errors_of_others_still_reach_the_terminal_after_a_read(tmp_path, capfd):
    files.read_volume(written(tmp_path / "ct.nrrd"))
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


@pytest.mark.parametrize("name", ["scan.zip", "IM0001.dcm.gz", "ct.nii.bz2"])
def test_what_is_packed_is_to_be_unpacked(tmp_path, name):
    packed = tmp_path / name
    packed.write_bytes(b"PK\3\4" + bytes(range(256)))
    for path in (packed, tmp_path):
        with pytest.raises(files.FileError, match=f"{name}.* unpack"):
            files.read_volume(path)


def test_a_missing_path_gets_the_same_message_for_a_dicom_seg(tmp_path):
    for read in (files.read_volume, files.slices_of):
        with pytest.raises(files.FileError, match=r"There is no file or folder .*nowhere: check the path"):
            read(tmp_path / "nowhere")
    (tmp_path / "a.tar").write_bytes(b"1")
    with pytest.raises(files.FileError, match=r"a.tar is a file: give a folder"):
        files.list_series(tmp_path / "a.tar")


def test_on_windows_letters_that_simpleitk_may_not_find_are_named_as_a_reason(tmp_path, monkeypatch):
    said = {}
    for platform in ("linux", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        for name in ("Müller.nrrd", "Mueller.nrrd"):
            cut(written(tmp_path / name))
            with pytest.raises(FileError) as refused:
                files.read_volume(tmp_path / name)
            said[platform, name] = str(refused.value)
    hint = "On Windows, letters such as ü in the path may also be the reason"
    assert [key for key, text in said.items() if hint in text] == [("win32", "Müller.nrrd")]


def test_on_windows_a_folder_that_simpleitk_cannot_write_to_is_refused_before_any_work(tmp_path, monkeypatch):
    def not_found(*_, **__):
        raise RuntimeError("the file could not be opened")

    folder = tmp_path / "Müller"
    folder.mkdir()
    monkeypatch.setattr(sys, "platform", "win32")
    files.check_output(folder / "liver.seg.nrrd", (".seg.nrrd",))
    assert not [*folder.iterdir()]
    monkeypatch.setattr("SimpleITK.WriteImage", not_found)
    with pytest.raises(FileError, match=r"SimpleITK cannot write in .*Müller\. On Windows, letters such as ü"):
        files.check_output(folder / "liver.seg.nrrd", (".seg.nrrd",))
    files.check_output(tmp_path / "liver.seg.nrrd", (".seg.nrrd",))
    files.check_output(folder / "liver.csv", (".csv",))
