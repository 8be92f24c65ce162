"""Segments: what can be a nodule, and one measured and numbered segment for each."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..core.masks import boxes, measure
from ..core.note import Note
from ..core.segment import MOST_SEGMENTS, Segment
from ..core.volume import Volume, crop
from .measurements import measure_nodule

# Limits of size and shape. The readers of LIDC-IDRI outlined nodules of 3 mm and more. Vessels are longer and branch, fissures and
# spots on one thin slice are flatter. Of 890 nodules (the largest section, as marked by at least two readers), the most elongated is
# 2.9 times as long as wide: such an ellipsoid fills 0.45 of the ball, a tube four times as long as wide 0.27.
LEAST_DIAMETER_MM, MOST_DIAMETER_MM = 3.0, 80.0  # of a sphere of the same volume; anything larger is an airless lobe
LEAST_ROUND = 0.25  # share of the ball with the same moment of inertia, at least

MASS_MM = 30.0  # anything larger is called a mass (Fleischner Society: glossary of terms for thoracic imaging, 2008)

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^27925004^Nodule~^^~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)


def number_nodules(
    labels: np.ndarray,
    volume: Volume,
    depth_mm: np.ndarray | None = None,
    known: Mapping[int, Mapping[str, Any]] | None = None,
) -> tuple[np.ndarray, tuple[Segment, ...], list[Note]]:
    """Measure nodules and number them, largest first.

    Args:
        labels: Integers (K, J, I) on the volume's voxels: a value above 0 for each nodule, in any order.
        volume: The CT in HU.
        depth_mm: (K, J, I), as for `measure_nodule`.
        known: What else is known of each value; it stands among its measurements.

    Returns:
        uint8 (K, J, I) with the values 1…n; the segments with these values, by mean diameter, the largest first; and
        notes for the user. Only `MOST_SEGMENTS` are kept: the most likely, or the largest where it is not known.
    """
    measured = []
    for value, box in boxes(labels).items():
        mask, part = labels[box] == value, crop(volume, box)
        found = measure_nodule(mask, part, None if depth_mm is None else depth_mm[box])
        if found is not None:
            measured.append((value, {**measure(mask, part), **asdict(found), **(known or {}).get(value, {})}))
    measured.sort(key=lambda each: each[1]["mean_diameter_mm"], reverse=True)
    likely = sorted(measured, key=lambda each: each[1].get("probability") or 0.0, reverse=True)[:MOST_SEGMENTS]
    values = {value for value, _ in likely}
    kept = [each for each in measured if each[0] in values]
    notes = []
    if len(kept) < len(measured):
        text = (
            f"{len(measured)} nodules were found; only {MOST_SEGMENTS} are kept, the most likely or else the largest."
        )
        notes.append(Note("not-all-kept", text))
    numbers = np.zeros(int(labels.max(initial=0)) + 1, np.uint8)
    numbers[[value for value, _ in kept]] = np.arange(1, len(kept) + 1)
    return numbers[labels], tuple(_segment(n, found) for n, (_, found) in enumerate(kept, start=1)), notes


def can_be_nodule(mask: np.ndarray, steps_mm: np.ndarray, is_cut: bool) -> bool:
    """True if a mask has the size of a nodule, and is neither a tube, nor a plate, nor branched, nor a single pixel.

    Args:
        mask: bool (slices, rows, columns), axial; it has voxels, which need not be connected.
        steps_mm: 3 × 3, its rows the steps from slice to slice, row to row and column to column.
        is_cut: It reaches the first or the last slice, so that it may only look flat: it is taken to be as thick as wide, if it is
            thinner.
    """
    section = np.count_nonzero(mask, axis=(1, 2)).max()
    if section == 1:  # a single pixel has no shape, although a coarse one is large enough
        return False
    if is_cut:
        section_mm2 = section * np.linalg.norm(np.cross(*steps_mm[1:]))
        thick_mm = len(mask) * np.linalg.norm(steps_mm[0])
        round_mm = steps_mm * [[max(1.0, 2 * np.sqrt(section_mm2 / np.pi) / thick_mm)], [1.0], [1.0]]
    else:
        round_mm = steps_mm
    ball_mm = 2 * np.sqrt((half_axes_mm(mask, round_mm) ** 2).mean())
    is_round = sphere_mm(mask, round_mm) ** 3 >= LEAST_ROUND * ball_mm**3
    return bool(is_round and LEAST_DIAMETER_MM <= sphere_mm(mask, steps_mm) <= MOST_DIAMETER_MM)


def sphere_mm(mask: np.ndarray, steps_mm: np.ndarray) -> float:
    """Diameter of a sphere with the volume of a mask; as for `half_axes_mm`."""
    return float((6 / np.pi * np.count_nonzero(mask) * abs(np.linalg.det(steps_mm))) ** (1 / 3))


def half_axes_mm(mask: np.ndarray, steps_mm: np.ndarray) -> np.ndarray:
    """Half axes of the ellipsoid with the same moments of inertia, the shortest first.

    Args:
        mask: bool, three axes; at least one voxel.
        steps_mm: 3 × 3, its rows the steps from voxel to voxel along each axis.
    """
    of_centres, of_voxel = np.cov((np.argwhere(mask) @ steps_mm).T, bias=True), steps_mm.T @ steps_mm / 12
    return np.sqrt(5 * np.linalg.eigvalsh(of_centres + of_voxel))


def _segment(number: int, measurements: dict[str, Any]) -> Segment:
    name = f"{'Mass' if measurements['mean_diameter_mm'] > MASS_MM else 'Nodule'} {number}"
    return Segment(number, name, TERMINOLOGY, _color(number), measurements)


def _color(number: int) -> tuple[int, int, int]:
    """A bright colour; neighbours in the table are far apart on the colour wheel (golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb((0.2 + number * 0.618034) % 1, 0.75, 1)
    return round(red * 255), round(green * 255), round(blue * 255)
