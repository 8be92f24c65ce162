"""Trust in a segment: where the scan cuts it off, what is doubtful, the expected Dice, and notes about these."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from typing import Any

import numpy as np

from ..core.note import Note
from ..core.trust import LEAST_SLICES, Trust
from ..core.volume import AIR_HU, axial_volume, bounding_box, wider
from ..network.card import ExpectedDice, Label
from .maps import Maps
from .signs import segment_pixels

WORST, APART_MM = 3, 10.0  # doubtful slices to name, and their distance: neighbouring slices show the same
# First and last side of slices, rows and columns in axial order.
SIDES = (("inferior", "superior"), ("anterior", "posterior"), ("right", "left"))
LEAST_DROPPED_ML = 1.0  # a note mentions dropped parts of at least this volume
LOW_DICE = 0.85  # a note warns if the expected Dice is lower
USUAL = {"volume_ml": ("volume", "ml"), "mean_hu": ("mean attenuation", "HU")}


def judge(
    maps: Maps, number: int, mask: np.ndarray, threshold: float, dropped_ml: float, fitted: ExpectedDice | None
) -> Trust:
    """Judge a segment.

    Args:
        maps: The outcome of the run.
        number: The number of its label in the card, from 0.
        mask: bool (K, J, I) on the voxels of `maps.volume`; not empty.
        threshold: Lowest probability of a voxel in the segment.
        dropped_ml: Volume of the parts that post-processing removed.
        fitted: Estimates the Dice at this speed; None if the model cannot.
    """
    order, volume = maps.pixels.order, axial_volume(maps.volume)
    axial = order.apply(mask)
    through, last = order.axes[0], len(axial) - 1
    box = bounding_box(axial) or ()
    sides = _sides(maps, axial, volume.array, box)
    segment = segment_pixels(maps.pixels, number, axial, threshold, box)
    if segment is None:
        return Trust(sides, 1.0, dropped_ml, (), ())
    slices, points = [], []
    for k, row, column in segment.worst_slices(WORST, APART_MM):
        r, a, s = (volume.ijk_to_ras @ [column, row, k, 1])[:3].tolist()
        slices.append({"k": maps.box[through].start + (last - k if order.flips[0] else k), "s_mm": s})
        points.append((r, a, s))
    expected = expected_dice(segment.signs(), fitted) if fitted and len(axial) >= LEAST_SLICES else ()
    return Trust(sides, segment.doubtful_share, dropped_ml, tuple(slices), tuple(points), *expected)


def expected_dice(signs: Mapping[str, float], fitted: ExpectedDice) -> tuple[float, float, float]:
    """The expected Dice and the low and high end of its range, each 0…1."""
    error = fitted.intercept + sum(weight * signs[name] for name, weight in fitted.weights.items())  # ln(1 − Dice)
    dice, low, high = (1 - math.exp(min(0.0, error + more)) for more in (0.0, fitted.high, fitted.low))
    return dice, low, high


def cut_by_box(maps: Maps, mask: np.ndarray) -> tuple[str, ...]:
    """The sides at which the user's box cuts a mask (K, J, I; not empty) off although the scan goes on."""
    axial = maps.pixels.order.apply(mask)
    box = bounding_box(axial) or ()
    # The network's outline may end one of its pixels before the edge.
    gaps = [0, *(math.ceil(maps.bundle.pixel_mm / mm) for mm in maps.pixels.order.spacing_mm[1:])]
    found = []
    for sides, along, size, gap, (first, last) in zip(SIDES, box, axial.shape, gaps, _ends(maps), strict=True):
        found += [sides[0]] * (not first and along.start <= gap) + [sides[1]] * (not last and size - along.stop <= gap)
    if maps.inside is not None:
        found += _leaves(axial, maps.pixels.order.apply(maps.inside), wider(box, [gap + 1 for gap in gaps]), gaps)
    return tuple(side for side in chain(*SIDES) if side in found)


def _leaves(mask: np.ndarray, inside: np.ndarray, around: tuple[slice, ...], gaps: Sequence[int]) -> list[str]:
    """The sides towards which a mask (axial order) ends at most `gaps` voxels before the voxels do that are `inside`."""
    found = []
    for axis, (sides, gap) in enumerate(zip(SIDES, gaps, strict=True)):
        within, beyond = np.moveaxis(mask[around], axis, 0), ~np.moveaxis(inside[around], axis, 0)
        step = gap + 1
        found += [sides[0]] * bool((within[step:] & beyond[:-step]).any())
        found += [sides[1]] * bool((within[:-step] & beyond[step:]).any())
    return found


def _ends(maps: Maps) -> list[tuple[bool, bool]]:
    """For slices, rows and columns, whether the box that was segmented ends where the scan does, at the first and at the last index."""
    ends = []
    for axis, flip in zip(maps.pixels.order.axes, maps.pixels.order.flips, strict=True):
        first, last = maps.box[axis].start == 0, maps.box[axis].stop == maps.shape[axis]
        ends.append((last, first) if flip else (first, last))
    return ends


def _sides(maps: Maps, mask: np.ndarray, hu: np.ndarray, box: Sequence[slice]) -> tuple[str, ...]:
    """The sides at which the scan cuts a mask (axial order) off; the sides of a box that the user chose do not count."""
    order, pixel_mm = maps.pixels.order, maps.bundle.pixel_mm
    # Voxels finer than the network's pixels add nothing.
    step = [1, *(max(1, int(pixel_mm / mm)) for mm in order.spacing_mm[1:])]
    thin = tuple(slice(None, None, n) for n in step)
    thin_box = [slice(-(-along.start // n), -(-along.stop // n)) for along, n in zip(box, step, strict=True)]
    gaps = [0, *(math.ceil(pixel_mm / mm / n) for mm, n in zip(order.spacing_mm[1:], step[1:], strict=True))]
    return sides_cut(mask[thin], hu[thin], thin_box, gaps, _ends(maps))


def sides_cut(
    mask: np.ndarray, hu: np.ndarray, box: Sequence[slice], gaps: Sequence[int], ends: Sequence[tuple[bool, bool]]
) -> tuple[str, ...]:
    """The sides at which a mask reaches the end of the scan, or of a field of view beyond which the scan is blank.

    Args:
        mask: bool (slices, rows, columns), axial order.
        hu: The same shape; voxels without measurement have `AIR_HU`.
        box: Slices, rows and columns that contain the mask.
        gaps: How many voxels may lie between mask and end, along slices, rows and columns.
        ends: For each axis, whether the array ends where the scan does, at the first and at the last index.
    """
    found = []
    for axis, end in product(range(3), range(2)):
        region = tuple(slice(None) if each == axis else along for each, along in enumerate(box))
        lines, values = (np.moveaxis(array[region], axis, 0)[:: -1 if end else 1] for array in (mask, hu))
        if ends[axis][end] and _reaches_end(lines, values, gaps[axis]):
            found.append(SIDES[axis][end])
    return tuple(found)


def _reaches_end(mask: np.ndarray, hu: np.ndarray, gap: int) -> bool:
    """True if, on any line along the first axis (from the end inwards), only blank voxels and `gap` others lie before the mask."""
    if mask[: gap + 1].any():
        return True
    lines = (hu[0] <= AIR_HU) & mask.any(axis=0)  # the other lines begin with measured voxels, or miss the mask
    if not lines.any():
        return False
    blank = (hu[:, lines] > AIR_HU).argmax(axis=0)
    return bool((blank + gap >= mask[:, lines].argmax(axis=0)).any())


def notes_about(label: Label, found: Mapping[str, Any], boxed: Sequence[str]) -> Iterator[Note]:
    """Notes for the user about a segment that is not empty, from its measurements and the sides at which the user's box cuts it off."""
    name, sides, dropped_ml = label.name.lower(), found["cut_by_scan"], found["dropped_ml"]
    if sides:
        text = f"The {name} reaches the end of the scan ({', '.join(sides)}), so its volume is a lower bound."
        yield Note("cut-by-scan", text)
    if boxed:
        text = (
            f"The {name} reaches the edge of the box ({', '.join(boxed)}): only the part inside was measured. Enlarge the box to"
            " measure it all."
        )
        yield Note("cut-by-box", text)
    if dropped_ml >= LEAST_DROPPED_ML:
        text = (
            f"{dropped_ml:.0f} ml in separate parts were not counted as {name}: they are too small or too improbable."
        )
        yield Note("dropped", text)
    for key, (low, high) in label.usual.items():
        what, unit = USUAL[key]
        value = round(found[key])  # as the note shows it, which would contradict itself otherwise
        is_cut = bool(sides or boxed) and key == "volume_ml" and value < low
        if not low <= value <= high and not is_cut:
            text = f"The {what} of the {name}, {value} {unit}, is unusual: most people have {low:g} to {high:g} {unit}."
            yield Note("unusual", text)
    if found.get("expected_dice", 1.0) < LOW_DICE:
        dice, points = found["expected_dice"], tuple(map(tuple, found.get("doubtful_slices_ras", ())))
        where = ": check the slices at S {s} mm" if points else ""
        yield Note("low-dice", f"The outline of the {name} may be wrong (expected Dice {dice:.2f}){where}.", points)
