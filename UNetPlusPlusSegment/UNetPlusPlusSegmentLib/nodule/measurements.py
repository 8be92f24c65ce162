"""Measurements of one lung nodule, as a radiologist takes them, from its mask and the CT. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..core.masks import largest_component
from ..core.request import Point
from ..core.volume import Volume, axial_order, bounding_box

# A mask ends somewhere between its outermost pixels and their neighbours. From centre to centre of its pixels the long
# axis of a digital disc comes out short by 0.1 to 0.4 pixels and the short axis by 0.4 to 0.8, from corner to corner
# both long by 0.6 to 1.2; with half a pixel added the bias is the smallest of all: -0.1 to +0.2 for their mean.
OUTLINE_PIXELS = 0.5
CALIPER_STEPS = 360  # directions in half a turn

# Solid: -300 HU separates part-solid from ground-glass nodules with 90 % sensitivity and 88 % specificity (Scholten et al.,
# Eur Radiol 2015, doi:10.1007/s00330-014-3427-z), the share of solid voxels with a threshold of 6 % ("Threshold segmentation
# of pulmonary subsolid nodules on CT images", Chin J Lung Cancer: 6.14 %, 102 nodules). Below -750 HU is air: aerated
# lung, a cavity. MOSTLY_SOLID agrees best with the texture that the readers of LIDC-IDRI rated, on 710 nodules of `train`.
SOLID_HU, AERATED_HU = -300, -750
SOME_SOLID, MOSTLY_SOLID = 0.06, 0.4


@dataclass(frozen=True)
class NoduleMeasurements:
    """One nodule in numbers.

    Volume, mean HU and what follows from them are of all its voxels. If it is in pieces, as a slip of a brush leaves it, everything else
    is measured on the largest piece.

    Attributes:
        long_axis_mm: The largest diameter on any axial slice.
        short_axis_mm: The largest extent at right angles to it, on the same slice.
        mean_diameter_mm: The mean of the two, which guidelines use.
        mean_diameter_rounded_mm: The same in whole millimetres, as the Fleischner Society reports it.
        kind: "solid", "part-solid" or "ground-glass".
        solid_share: Share of solid voxels, 0…1, which decides `kind`.
        solid_long_axis_mm: Of a part-solid nodule, the largest diameter of its solid part, which is the largest connected group of solid
            voxels, on any axial slice. The T category of lung cancer is based on it (Travis et al., J Thorac Oncol 2016). None for
            other kinds.
        solid_mean_diameter_mm: The mean of that and of the extent at right angles to it, as Lung-RADS measures nodules.
        volume_ml: Number of voxels times their volume.
        volume_mm3: The same in mm³.
        equivalent_diameter_mm: Diameter of a sphere of that volume.
        mean_hu: Mean over all its voxels.
        centroid_ras: Its centre of mass, in mm towards Right, Anterior, Superior.
        pleura_mm: Distance to the edge of the lung, of the voxel nearest to it; None if the lungs are not known.
        long_axis_ras: The two ends of the long axis.
        short_axis_ras: The two ends of the short axis, drawn through the middle of the points at which it was measured.
    """

    long_axis_mm: float
    short_axis_mm: float
    mean_diameter_mm: float
    mean_diameter_rounded_mm: int
    kind: str
    solid_share: float
    solid_long_axis_mm: float | None
    solid_mean_diameter_mm: float | None
    volume_ml: float
    volume_mm3: float
    equivalent_diameter_mm: float
    mean_hu: float
    centroid_ras: Point
    pleura_mm: float | None
    long_axis_ras: tuple[Point, Point]
    short_axis_ras: tuple[Point, Point]


def measure_nodule(mask: np.ndarray, volume: Volume, depth_mm: np.ndarray | None = None) -> NoduleMeasurements | None:
    """Measure one nodule.

    Args:
        mask: bool (K, J, I) on the volume's voxels, True in the nodule.
        volume: The CT in HU, any orientation and spacing; its axial slices are those of `axial_order`.
        depth_mm: (K, J, I), how deep each voxel lies in the lungs, 0 outside, as `find_lungs` gives it.

    Returns:
        Its measurements; None if the mask is empty.

    Source: Bankier et al., Recommendations for measuring pulmonary nodules at CT: a statement from the Fleischner
    Society, Radiology 2017.
    """
    piece = largest_component(mask, corners=True)
    box = bounding_box(piece)
    if box is None:
        return None
    order = axial_order(volume)
    steps_ras = np.stack([volume.ijk_to_ras[:3, 2 - axis] for axis in order.axes])  # to the next slice, row, column
    first = np.array([along.start for along in box])[list(order.axes)]
    origin_ras = volume.ijk_to_ras[:3, 3] + first @ steps_ras
    nodule = piece[box].transpose(order.axes)
    inside = volume.array[mask]
    volume_ml = inside.size * volume.voxel_volume_ml
    hu = volume.array[box].transpose(order.axes)
    ends_ras = origin_ras + _axes(nodule, steps_ras)
    long_mm, short_mm, mean_mm = _lengths_mm(ends_ras)
    share = _solid_share(nodule, hu)
    kind = "ground-glass" if share < SOME_SOLID else "part-solid" if share < MOSTLY_SOLID else "solid"
    solid_long_mm = solid_mean_mm = None
    if kind == "part-solid":
        solid = largest_component(nodule & (hu >= SOLID_HU), corners=True)
        solid_long_mm, _, solid_mean_mm = _lengths_mm(_axes(solid, steps_ras))
    volume_mm3 = volume_ml * 1000
    centroid_ras = origin_ras + np.argwhere(nodule).mean(axis=0) @ steps_ras
    (long_start, long_end), (short_start, short_end) = ends_ras
    return NoduleMeasurements(
        long_axis_mm=long_mm,
        short_axis_mm=short_mm,
        mean_diameter_mm=mean_mm,
        mean_diameter_rounded_mm=math.floor(mean_mm + 0.5),  # round() would make 6 of 6.5
        kind=kind,
        solid_share=share,
        solid_long_axis_mm=solid_long_mm,
        solid_mean_diameter_mm=solid_mean_mm,
        volume_ml=volume_ml,
        volume_mm3=volume_mm3,
        equivalent_diameter_mm=(6 * volume_mm3 / math.pi) ** (1 / 3),
        mean_hu=float(inside.mean(dtype=np.float64)),
        centroid_ras=_point(centroid_ras),
        pleura_mm=None if depth_mm is None else float(depth_mm[box][piece[box]].min()),
        long_axis_ras=(_point(long_start), _point(long_end)),
        short_axis_ras=(_point(short_start), _point(short_end)),
    )


def _axes(nodule: np.ndarray, steps_ras: np.ndarray) -> np.ndarray:
    """Turn calipers around the nodule on every axial slice and keep the slice with the largest diameter.

    Args:
        nodule: bool (slice, row, column).
        steps_ras: 3 × 3, its rows the steps from slice to slice, row to row and column to column.

    Returns:
        (axis, end, RAS): the ends of the long, then of the short axis, from the centre of voxel (0, 0, 0).
    """
    plane_ras, pixel_mm = np.linalg.qr(steps_ras[1:].T)  # an orthogonal frame, even if the pixels are sheared
    angles = np.arange(CALIPER_STEPS) * np.pi / CALIPER_STEPS
    directions = np.stack([np.cos(angles), np.sin(angles)])
    outline_mm = OUTLINE_PIXELS * np.linalg.norm(pixel_mm.T @ directions, axis=0)
    best_mm, best = (0.0, 0.0), np.zeros((2, 2, 3))
    for k, section in enumerate(nodule):
        rows = np.flatnonzero(section.any(axis=1))
        if not len(rows):
            continue
        left, right = section[rows].argmax(axis=1), section.shape[1] - 1 - section[rows, ::-1].argmax(axis=1)
        rim_mm = np.stack([np.tile(rows, 2), np.concatenate([left, right])], axis=1) @ pixel_mm.T
        along_mm = rim_mm @ directions
        # Rounded, and of equally long axes the one with the larger short axis: rounding errors must not decide.
        widths_mm = (np.ptp(along_mm, axis=0) + outline_mm).round(6)
        across_mm = np.roll(widths_mm, -CALIPER_STEPS // 2)  # at right angles
        long = int(np.lexsort([across_mm, widths_mm])[-1])
        if (widths_mm[long], across_mm[long]) <= best_mm:
            continue
        best_mm = (widths_mm[long], across_mm[long])
        for axis, direction in enumerate((long, (long + CALIPER_STEPS // 2) % CALIPER_STEPS)):
            ends = rim_mm[[along_mm[:, direction].argmin(), along_mm[:, direction].argmax()]]
            reach_mm = np.outer([-0.5, 0.5], directions[:, direction]) * widths_mm[direction]
            best[axis] = k * steps_ras[0] + (ends.mean(axis=0) + reach_mm) @ plane_ras.T
    return best


def _lengths_mm(ends_ras: np.ndarray) -> tuple[float, float, float]:
    """Lengths of the two axes that `_axes` returns, and their mean, in mm."""
    long_mm, short_mm = np.linalg.norm(ends_ras[:, 1] - ends_ras[:, 0], axis=1).tolist()
    mean_mm = round((long_mm + short_mm) / 2, 6)  # rounding errors must not make 6.5 less, nor 30 a mass
    return long_mm, short_mm, mean_mm


def _solid_share(nodule: np.ndarray, hu: np.ndarray) -> float:
    """Share of solid voxels, 0…1, among those that are not air, without the outermost pixels of every slice.

    The rim is half nodule, half lung: with it, a small solid nodule would seem part-solid.
    """
    padded = np.pad(nodule, ((0, 0), (1, 1), (1, 1)))
    core = nodule & padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    values = hu[core if core.any() else nodule]
    tissue = np.count_nonzero(values > AERATED_HU)
    return float(np.count_nonzero(values >= SOLID_HU) / tissue) if tissue else 0.0


def _point(ras: np.ndarray) -> Point:
    r, a, s = ras.tolist()
    return r, a, s
