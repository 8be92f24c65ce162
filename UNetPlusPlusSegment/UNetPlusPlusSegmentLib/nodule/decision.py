"""The decision: how likely a finding is a nodule, from what the network and the scan show of it.

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

FEATURES = ("size", "fill", "density", "continued", "spread", "next")

LUNG_HU = -850.0  # aerated lung; halfway between it and a nodule begins what is about as dense
# What is joined to a nodule within this margin is a vessel, or a wall if its section is larger than this area. With the two the
# cross-validated loss is within half a percent of the least, of margins from 6 to 12 mm and areas from 75 to 300 mm², on crops of
# people whom the network had not seen.
AROUND_MM, WALL_MM2 = 8.0, 100.0
IN_PLANE = np.zeros((3, 3, 3), bool)  # voxels of a slice that share a side are joined
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def features(nodule: Nodule, windows: Windows) -> dict[str, float]:
    """Numbers about a finding, each of which a decision may weigh.

    They need neither the lungs nor the distance of the slices, so that crops of unknown distance can be learned from; and where
    a nodule ends through the slices, which the crops do not show, is not among them. Of those that were tried these have the
    least cross-validated loss; elongation, contrast, bright pixels, dense tissue and walls beside it and the mean probability added
    nothing.

    Returns:
        `size`: of the largest section; `fill`: share of the ellipsoid with the same moments of inertia; `density`: in hundreds of
        HU; `continued`: what is joined to it and about as dense, without walls, as a multiple of its volume; `spread`, `next`: what
        the network says, the heads' deviation, and at its largest section on the better slice beside it.
    """
    spacing_mm = np.array(windows.spacing_mm)
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    areas = np.count_nonzero(nodule.mask, axis=(1, 2))
    ellipsoid_mm3 = 4 / 3 * np.pi * half_axes_mm(nodule.mask, np.diag(spacing_mm)).prod()

    box = wider(nodule.box, np.ceil(AROUND_MM / spacing_mm).astype(int))
    hu = windows.volume.array[box].astype(np.float32)
    mask = np.zeros(hu.shape, bool)
    mask[within(nodule.box, box)] = nodule.mask
    mean_hu = float(hu[mask].mean())
    beside = ~mask & (hu >= (mean_hu + LUNG_HU) / 2)
    sections, _ = ndimage.label(beside, IN_PLANE)
    beside &= (np.bincount(sections.ravel()) < WALL_MM2 / pixel_mm2)[sections]
    joined, _ = ndimage.label(mask | beside, np.ones((3, 3, 3)))
    own = beside & np.isin(joined, np.unique(joined[mask]))

    inside, window = within(nodule.box[1:], (nodule.window.rows, nodule.window.columns)), nodule.window
    spread = [window.uncertainty[k][inside][s] for k, s in enumerate(nodule.mask, start=nodule.box[0].start)]
    largest = int(areas.argmax())
    k = nodule.box[0].start + largest
    slices = [each for each in (k - 1, k + 1) if each in window.probability] or [k]
    chances = [window.probability[each][inside][nodule.mask[largest]].astype(np.float32).mean() for each in slices]
    return {
        "size": float(np.log(2 * np.sqrt(areas.max() * pixel_mm2 / np.pi))),
        "fill": float(areas.sum() * spacing_mm.prod() / ellipsoid_mm3),
        "density": mean_hu / 100,
        "continued": float(np.log1p(np.count_nonzero(own) / areas.sum())),
        "spread": float(np.concatenate(spread).astype(np.float32).mean()),
        "next": float(max(chances)),
    }


def probability(decision: Decision, nodule: Nodule, windows: Windows) -> float:
    """How likely a finding is a nodule, 0…1."""
    of_it = features(nodule, windows)
    log_odds = decision.intercept + sum(weight * of_it[name] for name, weight in decision.weights.items())
    return float(1 / (1 + np.exp(-log_odds)))
