"""Lungs: both lungs in a chest CT, without a network; nodules at the chest wall are included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..core.masks import boxes, components, distance_mm, fill_holes, largest_component
from ..core.volume import AIR_HU, Volume, axial_order, bounding_box, wider
from ..engine.slice_pool import in_order

GRID_MM = 2.5  # the coarsest that still shows the walls of the trachea and of the main bronchi

TISSUE_HU = -400  # air and lung lie below, all other tissue above
AROUND = 0.1  # least share of air in the field of view, unless the patient fills it
TABLE_MM = 6.0  # anything thinner belongs to the table and its cover

LUMEN_HU = -940  # pure gas lies below: airways, stomach, bowel; so does the worst emphysema
LUMEN_ML = (0.5, 150.0)  # from a segmental bronchus to a full stomach; a lung destroyed by emphysema is larger
WALL_PIXELS = (1, 3)  # from the blurred edge of a lumen to behind its wall
WALLED = 0.6  # share of tissue in the wall: airways and bowel have 0.6 to 1, dark lung at the chest wall up to 0.5

LEAST_ML = 5.0  # least lung in a scan: 20 cm² on a slice of 2.5 mm
LEAST_SHARE = 0.05  # of the larger lung

MEMBRANE_HU, APART_MM = -600, 4.0  # two lungs are separate unless aerated lung of twice this thickness joins them
BALL_MM = 25.0  # a nodule of up to 3 cm at the wall leaves no opening for a ball of this radius
THICK_MM, BULGE_MM = 4.0, 7.0  # the ball cuts a chord: behind a gap twice the first, the wall bulges by the second


def find_lungs(volume: Volume) -> np.ndarray:
    """Find the lungs, including vessels, nodules and masses, even at the chest wall.

    The trachea and the main bronchi are left out as far as their walls are visible. Some adjacent tissue is
    included: the hila, and occasionally part of the aorta or the diaphragm. The edge is accurate to about 2 mm.

    Args:
        volume: CT in HU, any orientation and spacing; padding and NaN are treated as air.

    Returns:
        uint8 (K, J, I) on the volume's voxels: how many mm deep each lies in the lungs, 1 at least; 0 outside, and everywhere if there
        is no lung, or less than `LEAST_ML` of it.
    """
    order = axial_order(volume)
    axial = order.apply(volume.array)
    steps = [max(1, round(GRID_MM / mm)) for mm in order.spacing_mm]
    spacing_mm = np.multiply(order.spacing_mm, steps)
    voxel_ml = float(spacing_mm.prod()) / 1000
    hu = _shrink(axial, steps)
    air = _air_in_body(hu, spacing_mm)
    lungs = _lung_pieces(hu, air & ~_lumens(hu, air, voxel_ml), LEAST_ML / voxel_ml)
    lungs = fill_holes(_closed(_sides(lungs, hu, spacing_mm), spacing_mm))
    # From a voxel to the middle of the next one outside; the edge is half a voxel nearer.
    depth_mm = (distance_mm(~lungs, spacing_mm) - spacing_mm.min() / 2).round().clip(1, 255) * lungs
    depth_mm = depth_mm.astype(np.uint8)
    for axis, step in enumerate(steps):
        depth_mm = depth_mm.repeat(step, axis=axis)
    return np.ascontiguousarray(order.undo(depth_mm[tuple(slice(size) for size in axial.shape)]))


def _air_in_body(hu: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Air and lung with the patient's body in front and behind; all air and lung if the patient fills the field of view.

    No wall is needed at the sides: the lungs may reach the edge of the field.
    """
    tissue = hu >= TISSUE_HU
    field = hu > AIR_HU  # without the padding
    if field.any() and (hu[field] < LUMEN_HU).mean() < AROUND:
        return ~tissue & field
    pixels = [round(TABLE_MM / 2 / mm) for mm in spacing_mm[1:]]
    body = largest_component(_spread(~_spread(~tissue, *pixels), *pixels))
    behind_some = np.logical_or.accumulate(body, axis=1)
    before_some = np.logical_or.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    return ~tissue & behind_some & before_some


def _lumens(hu: np.ndarray, air: np.ndarray, voxel_ml: float) -> np.ndarray:
    """Gas enclosed by tissue, with its blurred edge: trachea and bronchi, stomach and bowel."""
    found = np.zeros(hu.shape, bool)
    labels = components(air & (hu < LUMEN_HU), least=LUMEN_ML[0] / voxel_ml)
    for value, box in boxes(labels).items():
        if np.count_nonzero(labels[box] == value) * voxel_ml > LUMEN_ML[1]:
            continue
        around = wider(box, (0, WALL_PIXELS[1], WALL_PIXELS[1]))
        edge, wall = (_spread(labels[around] == value, pixels, pixels) for pixels in WALL_PIXELS)
        wall &= ~edge
        if np.count_nonzero(wall & (hu[around] >= TISSUE_HU)) > WALLED * np.count_nonzero(wall):
            found[around] |= edge
    return found


def _lung_pieces(hu: np.ndarray, air: np.ndarray, least: float) -> np.ndarray:
    """Components of at least `least` voxels that can be a lung: not tiny beside the largest, and not pure gas."""
    labels, inner = _large(air, least), ~_spread(~air, 1, 1)
    for value, box in boxes(labels).items():
        piece = labels[box] == value
        values = hu[box][inner[box] & piece]
        if not len(values) or np.percentile(values, 90) <= LUMEN_HU:
            labels[box][piece] = 0
    return labels > 0


def _sides(lungs: np.ndarray, hu: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Label the right and the left lung, in any order; each voxel belongs to the nearer one."""
    labels = _large(_erode(lungs & (hu < MEMBRANE_HU), APART_MM, spacing_mm), 1)
    if labels.max() < 2:
        return lungs.astype(int)
    away_mm = in_order(lambda value: distance_mm(labels == value, spacing_mm), range(1, labels.max() + 1))
    return np.where(lungs, np.argmin([*away_mm], axis=0) + 1, 0)


def _closed(sides: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Both lungs, with everything that a large ball rolled around each of them cannot enter.

    Rolled around both together, it would also pass over the mediastinum with its vessels.
    """
    pad = np.ceil((BALL_MM + BULGE_MM) / spacing_mm).astype(int) + 1
    sides = np.pad(sides, [(pad[0],) * 2, (0, 0), (0, 0)], mode="edge")  # the scan may begin and end within the lungs
    sides = np.pad(sides, [(0, 0), (pad[1],) * 2, (pad[2],) * 2])

    def closed(side: int) -> tuple[tuple[slice, ...], np.ndarray]:
        box = wider(bounding_box(sides == side) or (), pad)
        lung = _erode(_dilate(sides[box] == side, BALL_MM, spacing_mm), BALL_MM, spacing_mm)
        bites = _erode(lung & (sides[box] == 0), THICK_MM, spacing_mm)
        return box, lung | _dilate(bites, THICK_MM + BULGE_MM, spacing_mm) if bites.any() else lung

    both = sides > 0
    for box, lung in in_order(closed, range(1, sides.max() + 1)):
        both[box] |= lung
    return both[tuple(slice(m, -m) for m in pad)]


def _large(mask: np.ndarray, least: float) -> np.ndarray:
    """Label the face-connected components of at least `least` voxels that are not tiny beside the largest, the largest first."""
    labels = components(mask, least=least)
    sizes = np.bincount(labels.ravel(), minlength=2)
    return np.where(sizes[labels] >= LEAST_SHARE * sizes[1], labels, 0)


def _shrink(array: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Downsample: the mean over rows and columns, the middle one of the slices.

    Args:
        array: HU, (slice, row, column). Values are clipped to the range of CT, NaN becomes air.
        steps: Voxels merged along each axis. Where they do not fit, the last row or column is repeated.
    """
    _, down, right = steps

    def shrunk(start: int) -> np.ndarray:
        plane = array[min(start + (steps[0] - 1) // 2, len(array) - 1)].astype(np.float32)
        plane = np.fmin(np.fmax(plane, AIR_HU), -AIR_HU)
        plane = np.pad(plane, [(0, -plane.shape[0] % down), (0, -plane.shape[1] % right)], mode="edge")
        rows = plane.reshape(-1, down, plane.shape[1]).sum(axis=1)
        return rows.reshape(len(rows), -1, right).sum(axis=2) / (down * right)

    return np.stack([*in_order(shrunk, range(0, len(array), steps[0]))])


def _spread(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Grow by a number of rows and columns to either side, within each slice."""
    return ndimage.maximum_filter(mask, (1, 2 * rows + 1, 2 * columns + 1), mode="constant")


def _dilate(mask: np.ndarray, mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Grow by a ball of radius `mm`."""
    return distance_mm(mask, spacing_mm) <= mm


def _erode(mask: np.ndarray, mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Shrink by a ball of radius `mm`."""
    return distance_mm(~mask, spacing_mm) > mm
