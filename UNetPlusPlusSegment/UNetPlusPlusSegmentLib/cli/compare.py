"""`unetpp-segment compare`: how well two segmentations of a scan agree, segment by segment."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np

from .. import files
from ..core.agreement import TOLERANCE_MM, dice, hausdorff95_mm, surface_dice, surface_distances
from ..core.volume import Volume
from ..files.segmentations import Stored, grid_around


def compare(given: argparse.Namespace) -> None:
    """Read two segmentations, and print how well their common segments agree.

    Segments are matched by name, or by value if one of the files is a label map without names.

    Raises:
        FileError: A file cannot be read, or the two have different voxels or no segment in common.
    """
    paths = (given.first, given.second)
    both = [files.segments_in(path) for path in paths]
    by_name = not any(map(_is_plain, both))
    ours, theirs = (_by_key(path, segments, by_name) for path, segments in zip(paths, both, strict=True))
    common = [key for key in ours if key in theirs]
    if not common:
        there = " and ".join(f"{path} ({_names(segments)})" for path, segments in zip(paths, both, strict=True))
        raise files.FileError(
            f"{there} have no segment in common: give two segmentations with the same names, or label maps with the same values."
        )
    grid = grid_around(paths)
    found = files.masks_of([ours[key] for key in common], grid)
    truth = files.masks_of([theirs[key] for key in common], grid)
    named = theirs if _is_plain(both[0]) else ours
    figures = [_agreement(*masks, grid) for masks in zip(found, truth, strict=True)]
    rows = [{"segment": named[key].name, **each} for key, each in zip(common, figures, strict=True)]
    alone = [
        f"Only {path} has {_names([segment for key, segment in mine.items() if key not in others])}."
        for path, mine, others in ((paths[0], ours, theirs), (paths[1], theirs, ours))
        if mine.keys() - others.keys()
    ]
    if given.json:
        print(json.dumps({"segments": rows, "surface_tolerance_mm": TOLERANCE_MM, "notes": alone}))
    else:
        print(*map(_in_words, rows), *alone, sep="\n")


def _is_plain(segments: Sequence[Stored]) -> bool:
    """True for a label map without names."""
    return all(each.name in map(str, each.values) for each in segments)


def _by_key(path: str, segments: Sequence[Stored], by_name: bool) -> dict[str | tuple[int, ...], Stored]:
    keyed = {each.name if by_name else each.values: each for each in segments}
    if len(keyed) < len(segments):
        raise files.FileError(
            f"{path} has two segments with the same {'name: rename' if by_name else 'value: change'} one of them."
        )
    return keyed


def _names(segments: Sequence[Stored]) -> str:
    return ", ".join(each.name for each in segments) or "empty"


def _agreement(found: np.ndarray, truth: np.ndarray, grid: Volume) -> dict[str, float | None]:
    """The measurements of a segment; None for those that are undefined because it is empty."""
    figures: dict[str, float | None] = {
        "dice": None,
        "volume_a_ml": np.count_nonzero(found) * grid.voxel_volume_ml,
        "volume_b_ml": np.count_nonzero(truth) * grid.voxel_volume_ml,
        "hausdorff95_mm": None,
        "surface_dice": None,
    }
    if found.any() or truth.any():
        steps_ras = grid.ijk_to_ras[:3, 2::-1].T  # along K, J and I
        distances = surface_distances(found, truth, steps_ras)
        figures["dice"], figures["surface_dice"] = dice(found, truth), surface_dice(distances)
        figures["hausdorff95_mm"] = hausdorff95_mm(distances)
    return figures


def _in_words(row: dict) -> str:
    if row["dice"] is None:
        return f"{row['segment']}: empty in both"
    away = "one is empty" if row["hausdorff95_mm"] is None else f"95 % surface distance {row['hausdorff95_mm']:.1f} mm"
    return (
        f"{row['segment']}: Dice {row['dice']:.3f}, {row['volume_a_ml']:.1f} and {row['volume_b_ml']:.1f} ml, {away},"
        f" surface Dice at {TOLERANCE_MM:g} mm {row['surface_dice']:.3f}"
    )
