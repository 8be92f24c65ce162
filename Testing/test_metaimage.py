"""MetaImage: voxels in one file or several, compressed or not; what is damaged or missing is refused, never left to chance."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.sample_files import ct
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.files import FileError

VOXELS = ct().tobytes()
PACKED = zlib.compress(VOXELS)
SLICES = {f"slice{k}.raw": ct()[k - 1].tobytes() for k in range(1, 6)}
LIST = "LIST\n" + "\n".join(SLICES)


def meta(folder, data, *lines, beside=None):
    """A MetaImage header whose voxels are where `data` says: bytes follow it, a name stands for other files."""
    for name, content in (beside or {}).items():
        (folder / name).write_bytes(content)
    place = "ElementSpacing = 0.7 0.8 3\nOffset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    fields = f"ObjectType = Image\nNDims = 3\nDimSize = 8 6 5\n{place}ElementType = MET_SHORT\n"
    own = isinstance(data, bytes)
    header = fields + "".join(f"{line}\n" for line in lines) + f"ElementDataFile = {'LOCAL' if own else data}\n"
    path = folder / "ct.mhd"
    path.write_bytes(header.encode() + (data if own else b""))
    return path


def with_colons(path):
    """ITK accepts them as well as signs of equality, and reads no field beyond the first that names the voxels."""
    path.write_text(path.read_text().replace(" =", ":") + "ElementDataFile = other.raw\n")
    return path


BIG = ct().astype(">i2").tobytes()
WHOLE = {
    "in the header's file": lambda d: meta(d, VOXELS),
    "more than needed": lambda d: meta(d, VOXELS + b"\n"),
    "big endian": lambda d: meta(d, BIG, "ElementByteOrderMSB = True"),
    "big endian, by another name": lambda d: meta(d, BIG, "BinaryDataByteOrderMSB = true"),
    "at the end of the file": lambda d: meta(d, b"between" + VOXELS, "HeaderSize = -1"),
    "in another file": lambda d: meta(d, "ct.raw", beside={"ct.raw": VOXELS}),
    "in another file with an accent": lambda d: meta(d, "forêt.raw", beside={"forêt.raw": VOXELS}),
    "behind another header": lambda d: meta(d, "ct.raw", "HeaderSize = 9", beside={"ct.raw": b"something" + VOXELS}),
    "compressed": lambda d: meta(d, PACKED, "CompressedData = True", f"CompressedDataSize = {len(PACKED)}"),
    "compressed in another file": lambda d: meta(d, "ct.zraw", "CompressedData = True", beside={"ct.zraw": PACKED}),
    "a file for each slice": lambda d: meta(d, LIST, beside=SLICES),
    "a file for each slice, as written by hand": lambda d: meta(d, f"{LIST}\n\n", beside=SLICES),
    "a file for each slice, compressed": lambda d: meta(
        d, LIST, "CompressedData = True", beside={name: zlib.compress(each) for name, each in SLICES.items()}
    ),
    "numbered files": lambda d: meta(d, "slice%d.raw", beside=SLICES),
    "numbered files with their numbers": lambda d: meta(d, "slice%01d.raw 1 5 1", beside=SLICES),
    "every other file": lambda d: meta(
        d, "%03d 2 10 2", beside={f"{2 * k:03}": each for k, each in enumerate(SLICES.values(), 1)}
    ),
    "a list that tells the number of axes": lambda d: meta(d, LIST.replace("LIST", "LIST 2D"), beside=SLICES),
    "with colons": lambda d: with_colons(meta(d, "ct.raw", beside={"ct.raw": VOXELS})),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_voxels_are_found_where_the_header_says(tmp_path, make):
    path = make(tmp_path)
    volume, notes = files.read_volume(path)
    assert notes == []
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, ct())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path)), ct())


def test_compressed_voxels_without_their_size_are_read_too(tmp_path):
    """ITK would unpack the header in their place, which leaves arbitrary values."""
    np.testing.assert_array_equal(files.read_volume(meta(tmp_path, PACKED, "CompressedData = True"))[0].array, ct())


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("packed", [True, False])
def test_voxels_of_every_type_are_those_that_simpleitk_wrote(tmp_path, kind, packed):
    values = abs(ct()).astype(kind)
    sitk.WriteImage(sitk.GetImageFromArray(values), tmp_path / "ct.mha", packed)
    array = files.read_volume(tmp_path / "ct.mha")[0].array
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array, values)


def packed(folder, content, beside=None):
    said = "CompressedData = True", f"CompressedDataSize = {len(content)}"
    return meta(folder, "ct.zraw" if beside else content, *said, beside={"ct.zraw": content} if beside else None)


FLIPPED = PACKED[:200] + bytes([PACKED[200] ^ 255]) + PACKED[201:]
FEWER = {name: each for name, each in SLICES.items() if name != "slice3.raw"}
BROKEN = {
    "a byte is wrong": lambda d: packed(d, FLIPPED),
    "a byte is wrong in the other file": lambda d: packed(d, FLIPPED, beside=True),
    "only the checksum is wrong": lambda d: packed(d, PACKED[:-4] + b"\0\0\0\0"),
    "the end is missing": lambda d: packed(d, PACKED[:-60]),
    "only the checksum is missing": lambda d: packed(d, PACKED[:-4]),
    "three of five slices": lambda d: packed(d, zlib.compress(VOXELS[: 3 * 96])),
    "six of five slices": lambda d: packed(d, zlib.compress(VOXELS + VOXELS[:96])),
    "nothing": lambda d: packed(d, b""),
    "the list is too short": lambda d: meta(d, LIST.rpartition("\n")[0], beside=SLICES),
    "the list is empty": lambda d: meta(d, "LIST", beside=SLICES),
    "the numbers are too few": lambda d: meta(d, "slice%d.raw 1 4 1", beside=SLICES),
    "the numbers lead nowhere": lambda d: meta(d, "slice%d.raw 1 5 0", beside=SLICES),
    "the pattern has no number": lambda d: meta(d, "slice%s%s.raw", beside=SLICES),
    "a listed file is missing": lambda d: meta(d, LIST, beside=FEWER),
    "a listed file is cut": lambda d: meta(d, LIST, beside={**SLICES, "slice3.raw": VOXELS[:50]}),
    "the voxels never end": lambda d: meta(d, "/dev/zero"),
    "a listed file is a folder": lambda d: meta(d, LIST.replace("slice3.raw", "."), beside=SLICES),
    "a name is no name": lambda d: meta(d, "a\0b"),
    "a few bytes are missing": lambda d: meta(d, VOXELS[:-2]),
    "absurd size": lambda d: meta(d, VOXELS, "DimSize = 32000 32000 32000"),
    "absurd header size": lambda d: meta(d, VOXELS, "HeaderSize = x"),
}


def test_a_bomb_takes_no_more_memory_than_the_voxels_that_are_claimed(tmp_path):
    path = packed(tmp_path, zlib.compress(bytes(1 << 26)))
    tracemalloc.start()
    with pytest.raises(FileError, match="damaged"):
        files.read_volume(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_what_is_damaged_or_missing_is_refused_and_not_left_to_chance(tmp_path, make):
    with pytest.raises(FileError, match=r"ct\.mhd.*(damaged|names [0-4] data file)") as refusal:
        files.read_volume(make(tmp_path))
    assert "\n" not in str(refusal.value)
