"""The decision: how likely a finding is a nodule, from what the network and the scan show of it. NumPy and SciPy.

A logistic regression, fitted by training/decide.py on the readers' nodules and on what else is found beside them; its weights
stand in the model's card.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..core.volume import wider
from ..network.card import Decision
from .candidates import Nodule, within
from .segments import half_axes_mm
from .windows import Windows

FEATURES = ("size", "fill", "density", "beside", "continued", "spread", "next")

AROUND_MM = 1.5, 5.0  # distance of what is looked at around a nodule; its blurred rim is nearer
LUNG_HU = -850.0
MOST_MM = 12.0  # diameter beyond which size says nothing
DENSE_HU = -450.0  # vessels and walls, at least
WALL_MM2 = 300.0  # a larger dense section beside a nodule is not a vessel; as far as it lies in
BESIDE_MM = 12.0  # this distance on the slice
IN_PLANE = np.zeros((3, 3, 3), bool)  # voxels of a slice that share a side are joined
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def features(nodule: Nodule, windows: Windows) -> dict[str, float]:
    """Numbers about a finding, each of which a decision may weigh.

    They need neither the lungs nor the distance of the slices, so that crops of unknown distance can be learned from; and where
    a nodule ends through the slices, which the crops do not show, is not among them. Of those that were tried these have the
    least cross-validated loss; elongation, contrast, bright pixels, the share of wall and the mean probability added nothing.

    Returns:
        `size`: of the largest section; `fill`: share of the ellipsoid with the same moments of inertia; `density`: in hundreds of
        HU; `beside`, `continued`: of what lies around it, free of walls, the dense share, and what is joined to it and as dense;
        `spread`, `next`: what the network says, the heads' deviation, and at its largest section on the better slice beside it.
    """
    spacing_mm = np.array(windows.spacing_mm)
    reach_mm = max(AROUND_MM[1], spacing_mm[0] + 0.01)  # the next slice, at least
    box = wider(nodule.box, np.ceil(np.array([reach_mm, BESIDE_MM, BESIDE_MM]) / spacing_mm + 0.01).astype(int))
    hu = windows.volume.array[box].astype(np.float32)
    mask = np.zeros(hu.shape, bool)
    mask[within(nodule.box, box)] = nodule.mask
    areas = np.count_nonzero(nodule.mask, axis=(1, 2))
    area_mm2 = areas.max() * spacing_mm[1] * spacing_mm[2]
    ellipsoid_mm3 = 4 / 3 * np.pi * half_axes_mm(nodule.mask, np.diag(spacing_mm)).prod()

    away_mm = ndimage.distance_transform_edt(~mask, spacing_mm)
    sections, _ = ndimage.label((hu >= DENSE_HU) & ~mask, IN_PLANE)
    is_wall = np.bincount(sections.ravel()) >= WALL_MM2 / (spacing_mm[1] * spacing_mm[2])
    free = (away_mm <= reach_mm) & ~((sections > 0) & is_wall[sections])
    shell = free & (away_mm > AROUND_MM[0])
    as_dense = hu >= (np.percentile(hu[mask], 80) + LUNG_HU) / 2
    joined, _ = ndimage.label(mask | (free & as_dense), np.ones((3, 3, 3)))
    own = np.isin(joined, np.unique(joined[mask]))

    inside, window = within(nodule.box[1:], (nodule.window.rows, nodule.window.columns)), nodule.window
    spread = [window.uncertainty[k][inside][s] for k, s in enumerate(nodule.mask, start=nodule.box[0].start)]
    largest = int(areas.argmax())
    k = nodule.box[0].start + largest
    beside = [each for each in (k - 1, k + 1) if each in window.probability] or [k]
    chances = [window.probability[each][inside][nodule.mask[largest]].astype(np.float32).mean() for each in beside]
    return {
        "size": float(np.log(min(2 * np.sqrt(area_mm2 / np.pi), MOST_MM))),
        "fill": float(areas.sum() * spacing_mm.prod() / ellipsoid_mm3),
        "density": float(hu[mask].mean()) / 100,
        "beside": float((hu[shell] >= DENSE_HU).mean()) if shell.any() else 0.0,
        "continued": float(np.log1p(np.count_nonzero(own & shell) / areas.sum())),
        "spread": float(np.concatenate(spread).astype(np.float32).mean()),
        "next": float(max(chances)),
    }


def probability(decision: Decision, nodule: Nodule, windows: Windows) -> float:
    """How likely a finding is a nodule, 0…1."""
    of_it = features(nodule, windows)
    log_odds = decision.intercept + sum(weight * of_it[name] for name, weight in decision.weights.items())
    return float(1 / (1 + np.exp(-log_odds)))
