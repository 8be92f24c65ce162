#!/usr/bin/env python
"""Makes a slice folder from CTs and segmentations of any organ, with the target file that train.py needs.

    python training/prepare/pairs.py CASES -o data/spleen --segment Spleen --licence "CC BY 4.0" --citation "We, 2025." --source "Ours"
    python training/prepare/pairs.py CASES -o data/kidneys --segment "Right kidney=kidney_right" --segment "Left kidney=kidney_left"
    python training/prepare/pairs.py Task03_Liver -o data/liver --segment Liver=liver+cancer --window -100 240 --pixel 1.5
    python training/prepare/pairs.py Task03_Liver -o data/tumour --segment Liver=liver+cancer --segment Tumour=cancer

CASES holds pairs in the layout of Slicer (case.nrrd, case.seg.nrrd), nnU-Net or the Decathlon (imagesTr, labelsTr, dataset.json),
TotalSegmentator (a folder per case with ct.nii.gz and segmentations/), KiTS (imaging.nii.gz and segmentation.nii.gz) or an archive
(DICOM series and DICOM SEG), of any size and orientation; the headers are trusted about the orientation. If a case cannot be used, a
message says why, and nothing is written; with --leave-out the folder is made from the other cases. Slices keep all their HU, so that a
window can be chosen later, unless --window is given.

The folder also holds target.yaml, for `train.py target=…`, and look.png: look at that picture before you train.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pairs_look import draw_look
from pairs_people import FOLDS, people_of, share_out
from pairs_target import DEFAULT_WINDOW_HU, HU_16_BIT, Described, check_name, write_target
from slicefolder import PrepareError, SliceFolder, chosen_slices, parser_of, run, to_8_bit
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, axial_order, check_ct, clean_hu
from UNetPlusPlusSegmentLib.files import FileError, read_volume
from UNetPlusPlusSegmentLib.files.pairs import (
    Pair,
    Pairs,
    Wanted,
    find_pairs,
    names_in_words,
    read_wanted,
    unknown_parts,
)
from UNetPlusPlusSegmentLib.files.segmentations import Stored, check_orientation, masks_of

COLUMNS = [
    "file", "volume", "patient", "slice", "split", "pixel_mm", "source_pixel_mm", "source_slice_mm", "marked_px",
]  # fmt: skip
SQUARE = 0.01  # relative difference in size up to which pixels are not resampled
APART_MM = 2.0  # distance of the kept slices; closer ones look alike


@dataclass(frozen=True)
class StoredSlice:
    """One slice as it is stored: its number in the scan, its image (uint8 or uint16) and mask, and the side of their pixels."""

    number: int
    image: np.ndarray
    mask: np.ndarray
    pixel_mm: float


@dataclass(frozen=True)
class Scan:
    """One case as read.

    Attributes:
        hu, labels: (slices, rows, columns) in training order; in `labels`, 0 is background and 1 the first label.
        spacing_mm: Spacing of slices, rows and columns.
        notes: What was unusual about the case.
    """

    hu: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    notes: tuple[str, ...]


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; returns 0, or 1 after printing the reason to stderr, with a line for each case that cannot be used."""
    return run(prepare, _parser(), arguments)


def prepare(given: argparse.Namespace) -> None:
    """Make the folder.

    Raises:
        PrepareError: A case, the splits or the output folder cannot be used, or no case has a wanted segment.
    """
    try:
        wanted = [read_wanted(text) for text in given.segment]
        _check(given, wanted)
        pairs = find_pairs(given.source)
        structures = structures_of(wanted)
        parts = {pair.name: {each.name: each.of(pair) for each in structures} for pair in pairs.found}
    except FileError as error:
        raise PrepareError(str(error)) from error
    _check_segments(pairs, parts, structures)
    person_of = people_of(pairs.found, given)
    refused = list(pairs.refused)
    looks: dict[str, Stored] = {}
    with SliceFolder(given.output, COLUMNS, given.force) as folder:
        for done, pair in enumerate(pairs.found, 1):
            before = len(folder.rows)
            try:
                scan = read_scan(pair, parts[pair.name], structures)
                slices = slices_of(scan, given)
                lost = lost_labels(scan, slices, structures)
            except (PrepareError, FileError, VolumeError) as error:
                refused.append(f"{pair.name} ({pair.image}): {error}")
                continue
            for note in (*scan.notes, *lost):
                folder.note(f"{pair.name}: {note}")
            add_slices(folder, pair.name, person_of[pair.name], scan, slices)
            looks = {name: stored[0] for name, stored in parts[pair.name].items() if stored} | looks
            print(
                f"{pair.name}: {len(folder.rows) - before} slices ({done} of {len(pairs.found)} cases)", file=sys.stderr
            )
        _tell(refused, folder, given)
        share_out(folder, given)
        made_of = [tuple(part.name for part in structures if {*part.parts} <= {*each.parts}) for each in wanted]
        described = [
            Described(each.name, looks.get(made[0]), number, made)
            for number, (each, made) in enumerate(zip(wanted, made_of, strict=True))
        ]
        write_target(folder, described, [each.name for each in structures], given, pairs.about)
        draw_look(folder, given.window or DEFAULT_WINDOW_HU)


def structures_of(wanted: Sequence[Wanted]) -> list[Wanted]:
    """What has a value of its own in a mask: each label or, if labels share segments, each segment."""
    used = Counter(part for each in wanted for part in each.parts)
    return [*wanted] if len(used) == used.total() else [Wanted(part, (part,)) for part in used]


def read_scan(pair: Pair, parts: dict[str, list[Stored]], wanted: Sequence[Wanted]) -> Scan:
    """Read an image and its labels.

    Raises:
        PrepareError: A label is missing, all labels are empty, or two of them overlap.
        FileError, VolumeError: A file cannot be read, is not a CT, gives no orientation, or has other voxels than the image.
    """
    missing = [each.name for each in wanted if not parts[each.name]]
    if missing:
        raise PrepareError(f"it has no segment {missing[0]}; it has {names_in_words(pair.segments)}.")
    volume, notes = read_volume(pair.image, pair.series)
    check_orientation(pair.image, notes)
    notes += map(str, check_ct(volume, hint=""))
    labels = _labels(volume, parts, wanted)
    counts = np.bincount(labels.ravel(), minlength=len(wanted) + 1)[1:]
    empty = [each.name for each, count in zip(wanted, counts, strict=True) if not count]
    if len(empty) == len(wanted):
        first = parts[empty[0]][0]
        value = f": {first.path.name} has no voxel of value {first.values[0]}" if first.values else ""
        raise PrepareError(f"its segment {' and '.join(empty)} is empty{value}.")
    if empty:
        notes.append(f"{', '.join(empty)} has no marked voxel, so it counts as absent.")
    order = axial_order(volume)
    hu, odd = clean_hu(order.apply(volume.array))
    return Scan(hu, order.apply(labels), order.spacing_mm, (*notes, *map(str, odd)))


def slices_of(scan: Scan, given: argparse.Namespace) -> list[StoredSlice]:
    """The slices of a case that are kept, as they are stored.

    Raises:
        PrepareError: The pixels are larger than the slices.
    """
    slice_mm, row_mm, column_mm = scan.spacing_mm
    pixel_mm = given.pixel or min(row_mm, column_mm)
    side_mm = min(scan.hu.shape[1] * row_mm, scan.hu.shape[2] * column_mm)
    if pixel_mm > side_mm:
        raise PrepareError(f"--pixel {pixel_mm:g} is larger than its slices, {side_mm:.4g} mm: give a smaller one.")
    every = given.every or max(1, round(APART_MM / slice_mm))
    has_label = np.stack([np.any(scan.labels == value, axis=(1, 2)) for value in range(1, scan.labels.max() + 1)])
    slices = []
    for k in chosen_slices(has_label, every):
        # Clipped before pixels are averaged, as for the network.
        hu = scan.hu[k].astype(np.float32).clip(*(given.window or HU_16_BIT))
        image, mask = (to_pixels(each, (row_mm, column_mm), pixel_mm) for each in (hu, scan.labels[k]))
        stored = to_8_bit(image, given.window) if given.window else to_16_bit(image)
        slices.append(StoredSlice(k, stored, mask, pixel_mm))
    return slices


def lost_labels(scan: Scan, slices: Sequence[StoredSlice], wanted: Sequence[Wanted]) -> list[str]:
    """A note about the labels that have voxels in a scan and no pixel in its slices, if there are any.

    Raises:
        PrepareError: No pixel of any label is left.
    """
    stored = {int(value) for each in slices for value in np.unique(each.mask)}
    lost_values = {*np.unique(scan.labels).tolist()} - stored - {0}
    if not lost_values:
        return []
    names = " and ".join(wanted[value - 1].name for value in sorted(lost_values))
    lost = f"{names} fills half of no pixel of {slices[0].pixel_mm:g} mm"
    if not stored - {0}:
        raise PrepareError(f"{lost}, so nothing is left of it: give a smaller --pixel.")
    return [f"{lost}, so it counts as absent: give a smaller --pixel to keep it."]


def add_slices(folder: SliceFolder, name: str, person: str, scan: Scan, slices: Sequence[StoredSlice]) -> None:
    """Add the slices of a case to the folder; `share_out` fills in their split later."""
    slice_mm, _, column_mm = scan.spacing_mm
    for each in slices:
        row = {
            "file": f"{name}_{each.number:04d}.png",
            "volume": name,
            "patient": person,
            "slice": each.number,
            "pixel_mm": round(each.pixel_mm, 6),
            "source_pixel_mm": round(column_mm, 6),
            "source_slice_mm": round(slice_mm, 6),
            "marked_px": np.count_nonzero(each.mask),
        }
        folder.add(row, each.image, each.mask)


def to_pixels(plane: np.ndarray, spacing_mm: tuple[float, float], pixel_mm: float) -> np.ndarray:
    """Resample a slice to square pixels about the same centre; pixels that would reach beyond the slice are left out.

    Args:
        plane: (rows, columns) of HU (float32), or of labels (uint8): a new pixel is marked if at least half of its area is, with
            the label that has the largest share.
        spacing_mm: Spacing of rows and columns.
        pixel_mm: Side of the new pixels; if the old ones have that size, `plane` is returned unchanged.
    """
    step = np.array([pixel_mm / mm for mm in spacing_mm])  # side of a new pixel, in old pixels
    if (np.abs(step - 1) < SQUARE).all():
        return plane
    if plane.dtype == np.uint8:
        values = np.arange(1, plane.max(initial=0) + 1)
        if not len(values):
            return np.zeros(_size(plane, step), np.uint8)
        shares = np.stack([to_pixels((plane == value).astype(np.float32), spacing_mm, pixel_mm) for value in values])
        return np.where(shares.sum(axis=0) >= 0.5, values[shares.argmax(axis=0)], 0).astype(np.uint8)
    size = _size(plane, step)
    top, left = (np.array(plane.shape) - size * step) / 2
    bottom, right = np.array(plane.shape) - (top, left)
    picture = Image.fromarray(plane).resize(
        (size[1], size[0]), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
    )
    return np.asarray(picture)


def to_16_bit(hu: np.ndarray) -> np.ndarray:
    """HU, rounded to whole numbers, as uint16: all values that a CT can have fit."""
    return np.rint(hu - HU_16_BIT[0]).astype(np.uint16)


def _size(plane: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.maximum(1, np.floor(np.array(plane.shape) / step + 1e-6)).astype(int)


def _labels(volume: Volume, parts: dict[str, list[Stored]], wanted: Sequence[Wanted]) -> np.ndarray:
    """uint8 (K, J, I): the number of each voxel's label, from 1 in the order of `wanted`; 0 is background."""
    labels = np.zeros(volume.array.shape, np.uint8)
    masks = masks_of([segment for each in wanted for segment in parts[each.name]], volume)
    for number, each in enumerate(wanted, 1):
        mask = np.logical_or.reduce([next(masks) for _ in parts[each.name]])
        shared = labels[mask]
        if shared.any():
            other = wanted[int(shared.max()) - 1].name
            raise PrepareError(
                f"{other} and {each.name} overlap in {np.count_nonzero(shared)} voxels, but a voxel can have only one label:"
                " subtract one from the other, for example with Logical operators in the Segment Editor."
            )
        labels[mask] = number
    return labels


def _check_segments(
    pairs: Pairs, parts: Mapping[str, Mapping[str, Sequence[Stored]]], wanted: Sequence[Wanted]
) -> None:
    """Raise a PrepareError about a label, or a part of one, that no case has."""
    for each in wanted:
        unknown = unknown_parts(each, pairs)
        if pairs.found and (unknown or not any(of_case[each.name] for of_case in parts.values())):
            there = names_in_words(segment for pair in pairs.found for segment in pair.segments)
            raise PrepareError(
                f"No case has a segment {' + '.join(unknown or each.parts)}; there are {there}."
                f' Choose one of these with --segment "{each.name}=SEGMENT", or several joined by +.'
            )


def _tell(refused: Sequence[str], folder: SliceFolder, given: argparse.Namespace) -> None:
    """Raise a PrepareError about the refused cases, unless --leave-out is given and other cases are left: then note them."""
    if refused and not (given.leave_out and folder.rows):
        raise PrepareError("\n".join(refused))
    for sentence in refused:
        folder.note(f"left out: {sentence}")


def _check(given: argparse.Namespace, wanted: Sequence[Wanted]) -> None:
    names = [each.name for each in wanted]
    if len(set(names)) < len(names):
        raise PrepareError(f"--segment: two labels have the same name; got {', '.join(names)}.")
    made_of = Counter(frozenset(each.parts) for each in wanted)
    for each in wanted:
        if made_of[frozenset(each.parts)] > 1:
            raise PrepareError(f"--segment: two labels are made of {' + '.join(each.parts)}; give it only once.")
    if given.name:
        check_name(given.name)
    _check_numbers(given)
    if given.split and given.folds:
        raise PrepareError("--split and --folds cannot be combined: give one of them.")
    try:
        re.compile(given.people or "")
    except re.error as error:
        raise PrepareError(f"--people {given.people!r} is not a valid regular expression: {error}.") from error


def _check_numbers(given: argparse.Namespace) -> None:
    low, high = given.window or (0, 1)
    if not (math.isfinite(high - low) and low < high):
        raise PrepareError(f"--window {low:g} {high:g} must be two numbers in HU, the smaller one first.")
    if given.pixel is not None and not (math.isfinite(given.pixel) and given.pixel > 0):
        raise PrepareError(f"--pixel {given.pixel:g} must be a size in mm above zero.")
    for option in ("every", "folds"):
        number = getattr(given, option)
        if number is not None and number < 1:
            raise PrepareError(f"--{option} {number} must be 1 or more.")


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__, shares=False)
    parser.add_argument(
        "--segment",
        action="append",
        required=True,
        metavar="NAME[=SEGMENTS]",
        help="a label to learn: the segment NAME, or the given segments (names or values, joined by +); repeat it for more labels",
    )
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="keep only these HU, in 8 bits; default: all, in 16 bits",
    )
    parser.add_argument("--pixel", type=float, metavar="MM", help="side of the stored pixels; default: the scan's")
    parser.add_argument(
        "--every",
        type=int,
        metavar="N",
        help=f"keep every N-th slice with a label, and at least one of each run; default: about {APART_MM:g} mm apart",
    )
    parser.add_argument(
        "--folds", type=int, metavar="N", help=f"draw one of N people for `val` ({FOLDS}); 1: all are for training"
    )
    parser.add_argument("--people", metavar="PATTERN", help="regular expression that finds the person in a case's name")
    parser.add_argument(
        "--leave-out", action="store_true", help="leave out cases that cannot be used, instead of stopping"
    )
    parser.add_argument(
        "--name", help="name of the target, one word; default: that of the label or, for several, of the folder"
    )
    about = parser.add_argument_group("for the model card; training needs all three")
    about.add_argument("--source", dest="source_name", metavar="TEXT", help="where the data comes from")
    about.add_argument("--licence", metavar="TEXT", help="licence of the data, and of the weights trained on it")
    about.add_argument("--citation", metavar="TEXT", help="how to cite the data")
    return parser


if __name__ == "__main__":
    sys.exit(main())
