"""Segments: what can be a nodule, and one measured and numbered segment for each. NumPy only."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..core.masks import boxes, measure
from ..core.note import Note
from ..core.segment import Segment
from ..core.volume import Volume, axial_order, crop
from .measurements import measure_nodule

# Limits of size and shape. The readers of LIDC-IDRI outlined nodules of 3 mm and more. Of 890 nodules (the largest section,
# as marked by at least two readers), the most elongated is 2.9 times as long as wide, and the least compact fills half of
# its ellipse. Vessels are longer and branch (trees fill 0.2 or less); fissures and spots on one thin slice are flatter.
LEAST_DIAMETER_MM, MOST_DIAMETER_MM = 3.0, 80.0  # of a sphere of the same volume; anything larger is an airless lobe
MOST_ELONGATION = 4.0  # of one principal axis to the next shorter one, in 3D and seen from above
LEAST_FILL = 0.4  # share of the ellipsoid with the same moments of inertia
LEAST_INSIDE = 0.5  # share of its voxels in the lungs

PLEURA_WITHIN_MM = 50.0  # hardly any point of the lung is deeper
MASS_MM = 30.0  # anything larger is called a mass (Fleischner Society: glossary of terms for thoracic imaging, 2008)
MOST_NODULES = 50  # nobody reads more in a table, and their colours would look alike

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^27925004^Nodule~^^~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)


def number_nodules(
    labels: np.ndarray,
    volume: Volume,
    lungs: np.ndarray | None = None,
    known: Mapping[int, Mapping[str, Any]] | None = None,
) -> tuple[np.ndarray, tuple[Segment, ...], list[Note]]:
    """Measure nodules and number them, largest first.

    Args:
        labels: Integers (K, J, I) on the volume's voxels: a value above 0 for each nodule, in any order.
        volume: The CT in HU.
        lungs: bool (K, J, I), for the distance to the pleura, which is searched for within `PLEURA_WITHIN_MM`.
        known: What else is known of each value; it stands among its measurements.

    Returns:
        uint8 (K, J, I) with the values 1…n; the segments with these values, by mean diameter, the largest first; and
        notes for the user. Only `MOST_NODULES` are kept: the most likely, or the largest where it is not known.
    """
    measured = []
    for value, box in boxes(labels).items():
        margin = np.ceil(PLEURA_WITHIN_MM / volume.spacing_mm[::-1]).astype(int)
        wider = tuple(slice(max(0, along.start - m), along.stop + m) for along, m in zip(box, margin, strict=True))
        near = None if lungs is None else lungs[wider]
        mask, part = labels[wider] == value, crop(volume, wider)
        found = measure_nodule(mask, part, near)
        if found is not None:
            measured.append((value, {**measure(mask, part), **asdict(found), **(known or {}).get(value, {})}))
    measured.sort(key=lambda each: each[1]["mean_diameter_mm"], reverse=True)
    kept, notes = measured, []
    if len(measured) > MOST_NODULES:
        chances = [found.get("probability") or 0.0 for _, found in measured]
        likely = sorted(range(len(measured)), key=lambda n: -chances[n])[:MOST_NODULES]
        kept = [measured[n] for n in sorted(likely)]
        which = "most likely" if any(chances) else "largest"
        least_mm = kept[-1][1]["mean_diameter_mm"]
        text = (
            f"{len(measured)} nodules were found; only the {which} {MOST_NODULES} are kept, down to {least_mm:.0f} mm."
        )
        notes.append(Note("not-all-kept", text))
    numbers = np.zeros(int(labels.max(initial=0)) + 1, np.uint8)
    numbers[[value for value, _ in kept]] = np.arange(1, len(kept) + 1)
    labelmap = numbers[labels]
    segments = tuple(_segment(n, found) for n, (_, found) in enumerate(kept, start=1))
    return labelmap, segments, notes


def can_be_nodule(mask: np.ndarray, volume: Volume, least_mm: float, is_cut: bool) -> bool:
    """True if a bool mask (K, J, I) has the size and the shape of a nodule, or of a slab of one; it need not be connected.

    Args:
        volume: The volume that the mask belongs to.
        least_mm: The least diameter of a sphere of the same volume.
        is_cut: It ends where the scan does, so that it may only look flat.
    """
    diameter_mm = float((6 / np.pi * np.count_nonzero(mask) * volume.voxel_volume_ml * 1000) ** (1 / 3))
    return least_mm <= diameter_mm <= MOST_DIAMETER_MM and _is_compact(mask, volume, is_cut)


def _segment(number: int, measurements: dict[str, Any]) -> Segment:
    name = f"{'Mass' if measurements['mean_diameter_mm'] > MASS_MM else 'Nodule'} {number}"
    return Segment(number, name, TERMINOLOGY, _color(number), measurements)


def _color(number: int) -> tuple[int, int, int]:
    """A bright colour; neighbours in the table are far apart on the colour wheel (golden angle)."""
    red, green, blue = colorsys.hsv_to_rgb((0.2 + number * 0.618034) % 1, 0.75, 1)
    return round(red * 255), round(green * 255), round(blue * 255)


def _is_compact(mask: np.ndarray, volume: Volume, is_cut: bool) -> bool:
    """True if it is neither a tube, nor a plate, nor branched, by its moments of inertia. A single voxel is compact.

    A slab that the end of a scan has cut from a sphere is a plate: it may be flat, but must be round seen from above.
    """
    steps_ras = volume.ijk_to_ras[:3, 2::-1].T  # to the next voxel along K, J, I
    moments = _moments(mask, steps_ras)
    short, middle, long = half_axes_mm(mask, steps_ras)
    _, rows, columns = axial_order(volume).axes
    plane_ras, _ = np.linalg.qr(steps_ras[[rows, columns]].T)
    narrow, wide = np.sqrt(np.linalg.eigvalsh(plane_ras.T @ moments @ plane_ras))
    fill = np.count_nonzero(mask) * volume.voxel_volume_ml * 1000 / (4 / 3 * np.pi * short * middle * long)
    elongation = max(long / middle, 1 if is_cut else middle / short, wide / narrow)
    return bool(elongation <= MOST_ELONGATION and fill >= LEAST_FILL)


def half_axes_mm(mask: np.ndarray, steps_mm: np.ndarray) -> np.ndarray:
    """Half axes of the ellipsoid with the same moments of inertia, the shortest first.

    Args:
        mask: bool, three axes; at least one voxel.
        steps_mm: 3 × 3, its rows the steps from voxel to voxel along each axis.
    """
    return np.sqrt(5 * np.linalg.eigvalsh(_moments(mask, steps_mm)))


def _moments(mask: np.ndarray, steps_mm: np.ndarray) -> np.ndarray:
    """Of the centres, and of the voxels: 3 × 3, mm²."""
    return np.cov((np.argwhere(mask) @ steps_mm).T, bias=True) + steps_mm.T @ steps_mm / 12
