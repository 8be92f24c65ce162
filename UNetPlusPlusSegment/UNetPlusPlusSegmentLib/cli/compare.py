"""`unetpp-segment compare`: how far two segmentations of one scan agree, segment by segment."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np

from .. import files
from ..core.agreement import TOLERANCE_MM, dice, hausdorff95_mm, surface_dice, surface_distances
from ..core.volume import Volume, bounding_box
from ..files.segmentations import Place, Segmentation, read_segmentation


def compare(given: argparse.Namespace) -> None:
    """Read both files, measure what they have in common, and print it.

    Raises:
        FileError: A file cannot be read, the two have other voxels, or no segment in common.
    """
    (one, notes), (read, more) = read_segmentation(given.first), read_segmentation(given.second)
    notes, other = [*notes, *more], read.on_grid_of(one)
    if other is None:
        raise files.FileError(
            f"{given.first} and {given.second} have different voxels ({_grid(one)}; {_grid(read)}), so they cannot be compared"
            " voxel by voxel: resample one of them to the grid of the other, such as with Slicer's Segmentations module."
        )
    by_name = one.has_names and other.has_names
    ours, theirs = (_by_key(path, each, by_name) for path, each in ((given.first, one), (given.second, other)))
    named = theirs if other.has_names and not one.has_names else ours
    rows = [
        {"segment": named[key][0], **_figures(one, ours[key][1], other, theirs[key][1])}
        for key in ours
        if key in theirs
    ]
    if not rows:
        raise files.FileError(
            f"{given.first} ({', '.join(one.segments) or 'empty'}) and {given.second} ({', '.join(other.segments) or 'empty'})"
            " have no segment in common: give two segmentations with the same names, or label maps with the same values."
        )
    for path, mine, others in ((given.first, ours, theirs), (given.second, theirs, ours)):
        alone = [name for key, (name, _) in mine.items() if key not in others]
        notes += [f"Only {path} has {', '.join(alone)}."] if alone else []
    if given.json:
        found = {"segments": rows, "surface_tolerance_mm": TOLERANCE_MM, "notes": notes}
        print(json.dumps(found, ensure_ascii=False))
        return
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    for row in rows:
        print(_in_words(row))


def _by_key(path: str, segmentation: Segmentation, by_name: bool) -> dict[str | int, tuple[str, Place]]:
    """Name and place of each segment by what it is compared by: its name, or its value where one of the files has no names."""
    segments = segmentation.segments.items()
    keyed: dict[str | int, tuple[str, Place]] = {name if by_name else p.value: (name, p) for name, p in segments}
    if len(keyed) < len(segments):
        raise files.FileError(
            f"{path} has segments that overlap, which cannot be told apart in a label map without names: give two files with names."
        )
    return keyed


def _figures(one: Segmentation, place: Place, other: Segmentation, place_there: Place) -> dict[str, float | None]:
    """Of a segment; None for those that do not exist where it is empty."""
    grid = one.layers[0]
    found, truth = _on_one_grid(_part(one, place, grid), _part(other, place_there, grid))
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


def _part(segmentation: Segmentation, place: Place, grid: Volume) -> tuple[np.ndarray, np.ndarray]:
    """A segment cut out of its mask, and its first voxel, K, J and I of the grid."""
    mask = segmentation.mask(place)
    box = bounding_box(mask) or (slice(0, 0),) * 3
    begin = np.rint(np.linalg.solve(grid.ijk_to_ras, segmentation.layers[place.layer].ijk_to_ras[:, 3]))[2::-1]
    return mask[box], begin.astype(int) + [along.start for along in box]


def _on_one_grid(*parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The masks of `_part`, in the smallest box that holds them: bool (masks, K, J, I)."""
    there = [(first, first + mask.shape) for mask, first in parts if mask.size] or [
        (np.zeros(3, int), np.zeros(3, int))
    ]
    low, high = np.min([a for a, _ in there], axis=0), np.max([b for _, b in there], axis=0)
    whole = np.zeros((len(parts), *(high - low)), bool)
    for canvas, (mask, first) in zip(whole, parts, strict=True):
        if mask.size:
            canvas[tuple(slice(a, a + n) for a, n in zip(first - low, mask.shape, strict=True))] = mask
    return whole


def _grid(segmentation: Segmentation) -> str:
    layer = segmentation.layers[0]
    size = " × ".join(map(str, layer.array.shape[::-1]))
    place = ", ".join(f"{mm:.1f}" for mm in layer.ijk_to_ras[:3, 3])
    return f"{size} of {' × '.join(f'{mm:.2f}' for mm in layer.spacing_mm)} mm from RAS {place}"


def _in_words(row: dict[str, Any]) -> str:
    if row["dice"] is None:
        return f"{row['segment']}: empty in both"
    away = "one is empty" if row["hausdorff95_mm"] is None else f"95 % surface distance {row['hausdorff95_mm']:.1f} mm"
    return (
        f"{row['segment']}: Dice {row['dice']:.3f}, {row['volume_a_ml']:.1f} and {row['volume_b_ml']:.1f} ml, {away},"
        f" surface Dice at {TOLERANCE_MM:g} mm {row['surface_dice']:.3f}"
    )
