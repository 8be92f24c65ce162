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

The folder also holds target.yaml, for `train.py target=…`, and look.png: look at that picture before you train. With --force,
target.yaml keeps what you have edited in it.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pairs_look import draw_look
from pairs_people import FOLDS, people_of, share_out
from pairs_slices import APART_MM, Scan, StoredSlice, lost_labels, read_scan, slices_of
from pairs_target import DEFAULT_WINDOW_HU, Described, check_name, write_target
from slicefolder import PrepareError, SliceFolder, parser_of, run
from UNetPlusPlusSegmentLib.core.volume import VolumeError
from UNetPlusPlusSegmentLib.files import FileError
from UNetPlusPlusSegmentLib.files.pairs import (
    Pairs,
    Wanted,
    find_pairs,
    names_in_words,
    read_wanted,
    unknown_parts,
)
from UNetPlusPlusSegmentLib.files.segmentations import Stored

COLUMNS = [
    "file", "volume", "patient", "slice", "split", "pixel_mm", "source_pixel_mm", "source_slice_mm", "marked_px",
]  # fmt: skip


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
        help="keep every N-th slice with a label, and the largest one of an outline that these hardly show;"
        f" default: about {APART_MM:g} mm apart",
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
