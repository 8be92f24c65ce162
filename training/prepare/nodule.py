#!/usr/bin/env python
"""Makes a slice folder of lung nodules from LIDC-IDRI: crops of 128 × 128 pixels, whose masks count the readers of each pixel.

    python training/prepare/nodule.py LIDC-IDRI -o data/nodule

The source has a folder for each CT series; the XML files with the readings may lie anywhere in it. Of each nodule of at least
3 mm, the slices are kept that have a pixel which two or more readers marked.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lidc import Outline, Reading, Series, find_scans
from slicefolder import NODULE_WINDOW_HU, PrepareError, SliceFolder, assign_splits, parser_of, run, to_8_bit
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, axial_order, check_ct, clean_hu
from UNetPlusPlusSegmentLib.files import FileError, read_volume

COLUMNS = ["file", "patient", "nodule", "slice", "split", "pixel_mm", "px_1reader", "px_2readers", "px_3readers"]
CROP = 128  # pixels
CONSENSUS = 2  # readers

# A nodule as one reader marked it: from the index of a slice (K) to a bool mask (rows, columns).
Area = dict[int, np.ndarray]


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; returns 0, or 1 after printing the reason to stderr."""
    return run(prepare, parser_of(__doc__), arguments)


def prepare(given: argparse.Namespace) -> None:
    """Make the folder.

    Raises:
        PrepareError: The source, the splits or the output folder cannot be used.
    """
    scans = find_scans(given.source)
    split_of = assign_splits([series.patient for _, series in scans], given)
    nodules_of: Counter[str] = Counter()  # a patient's second scan continues the numbering
    with SliceFolder(given.output, COLUMNS, given.force) as folder:
        for done, (reading, series) in enumerate(scans, 1):
            before, patient = len(folder.rows), series.patient
            nodules_of[patient] += add_scan(folder, reading, series, split_of[patient], nodules_of[patient])
            print(f"{patient}: {len(folder.rows) - before} slices ({done} of {len(scans)} scans)", file=sys.stderr)


def add_scan(folder: SliceFolder, reading: Reading, series: Series, split: str, first: int) -> int:
    """Add the nodules of one scan to the folder, numbered from `first`; returns how many the scan has, including those left out."""
    if not reading.nodules:
        return 0
    try:
        volume, notes = _read_volume(series, reading.series)
        check_ct(volume, hint="")
    except (FileError, VolumeError) as error:
        raise PrepareError(f"{series.folder}: {error}") from error
    slice_of = slice_numbers(volume, series)
    order = axial_order(volume)
    hu, more = clean_hu(order.apply(volume.array))
    for note in notes + more:
        folder.note(f"{series.patient}: {note}")
    if min(hu.shape[1:]) < CROP:
        raise PrepareError(
            f"{series.folder} has slices of {hu.shape[1]} × {hu.shape[2]} pixels; they must have at least {CROP} × {CROP}."
        )
    marked = [(reader, filled(outlines, slice_of, volume.array.shape[1:])) for reader, outlines in reading.nodules]
    clusters = list(clustered(marked))
    for number, cluster in enumerate(clusters, first):
        readers = order.apply(count_readers(cluster, volume.array.shape))
        slices, rows, columns = np.nonzero(readers)
        top, left = (
            min(max(0, int(at.mean()) - CROP // 2), size - CROP)
            for at, size in zip((rows, columns), hu.shape[1:], strict=True)
        )
        crop = np.s_[top : top + CROP, left : left + CROP]
        for k in np.flatnonzero((readers >= CONSENSUS).any(axis=(1, 2))):
            mask = np.ascontiguousarray(readers[k][crop])
            row = {
                "file": f"{series.patient}_n{number}_s{k - slices[0]:03d}.png",
                "patient": series.patient,
                "nodule": number,
                "slice": k - slices[0],
                "split": split,
                "pixel_mm": round(order.spacing_mm[2], 6),
                **{column: (mask >= least).sum() for least, column in enumerate(COLUMNS[-3:], 1)},
            }
            folder.add(row, to_8_bit(hu[k][crop], NODULE_WINDOW_HU), mask)
    return len(clusters)


def _read_volume(series: Series, uid: str) -> tuple[Volume, list[str]]:
    if not series.duplicates:
        return read_volume(series.folder, uid)
    with tempfile.TemporaryDirectory() as folder:  # read_volume wants one file for each slice
        for path in set(series.folder.glob("*.dcm")) - series.duplicates:
            shutil.copy(path, folder)
        volume, notes = read_volume(Path(folder), uid)
    count = len(series.duplicates)
    return volume, [*notes, f"left out {count} image{'s' * (count > 1)} at the position of another one."]


def slice_numbers(volume: Volume, series: Series) -> dict[str, int]:
    """Index K of every image of a series, by SOP Instance UID: its rank along the volume's K axis, so that uneven spacing
    does not matter.

    Raises:
        PrepareError: The series has more slices than the volume.
    """
    towards = volume.ijk_to_ras[:3, 2] * (-1, -1, 1)  # RAS to LPS
    heights = {uid: round(float(position @ towards), 3) for uid, position in series.positions.items()}
    ranks = {height: k for k, height in enumerate(sorted(set(heights.values())))}
    if len(ranks) != len(volume.array):
        raise PrepareError(
            f"{series.folder} holds {len(ranks)} slices of one series, but only {len(volume.array)} of them form a stack:"
            " remove the others."
        )
    return {uid: ranks[height] for uid, height in heights.items()}


def fill_outline(points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels inside a closed line, and the pixels of the line itself.

    The readers drew "the first voxel just outside the nodule" (LIDC-IDRI, annotated_xml_file). So the line never belongs to
    the nodule, whether it encloses a nodule or a hole in one (confirmed by S. Armato of LIDC in pylidc, pull request 16).

    Args:
        points: Columns and rows, shape (N, 2).
        shape: Rows and columns of the slice.

    Returns:
        Two bool arrays of `shape`.
    """
    line, area = Image.new("1", shape[::-1]), Image.new("1", shape[::-1])
    closed = [(int(x), int(y)) for x, y in (*points, points[0])]
    ImageDraw.Draw(line).line(closed, fill=1)
    ImageDraw.Draw(area).polygon(closed, fill=1)
    pixels = np.asarray(line)
    return np.asarray(area) & ~pixels, pixels


def filled(outlines: list[Outline], slice_of: dict[str, int], shape: tuple[int, int]) -> Area:
    """The pixels of a nodule as one reader outlined it, without its holes."""
    area: Area = {}
    for outline in sorted(outlines, key=lambda outline: not outline.inclusion):  # holes last
        inside, line = fill_outline(outline.points, shape)
        k = slice_of[outline.image]
        before = area.get(k, np.zeros(shape, bool))
        area[k] = before | inside if outline.inclusion else before & ~(inside | line)
    return area


def clustered(marked: list[tuple[int, Area]]) -> Iterator[list[tuple[int, Area]]]:
    """Group the readers' areas into nodules, in the order of the file: areas that share a pixel, directly or through others, are
    one nodule.
    """
    left = [(reader, area) for reader, area in marked if any(pixels.any() for pixels in area.values())]
    while left:
        cluster = [left.pop(0)]
        for _, area in cluster:  # grows while it is iterated over
            touches = [_overlap(area, other) for _, other in left]
            cluster += [one for one, touching in zip(left, touches, strict=True) if touching]
            left = [one for one, touching in zip(left, touches, strict=True) if not touching]
        yield cluster


def count_readers(cluster: list[tuple[int, Area]], shape: tuple[int, ...]) -> np.ndarray:
    """The number of readers who marked each voxel: uint8 (K, J, I). A reader who drew the nodule in two parts counts once."""
    readers = np.zeros(shape, np.uint8)
    for reader in {reader for reader, _ in cluster}:
        mine = [area for by, area in cluster if by == reader]
        for k in set().union(*mine):
            readers[k] += np.logical_or.reduce([area[k] for area in mine if k in area])
    return readers


def _overlap(one: Area, other: Area) -> bool:
    return any((one[k] & other[k]).any() for k in one.keys() & other.keys())


if __name__ == "__main__":
    sys.exit(main())
