"""The decision: how likely a finding is a nodule, from what the network and the scan show of it. NumPy only.

A logistic regression, fitted by training/decide.py on the readers' nodules and on what else is found beside them; its weights
stand in the model's card.
"""

from __future__ import annotations

import numpy as np

from ..core.masks import components, distance_mm
from ..network.card import Decision
from .candidates import Nodule
from .segments import half_axes_mm
from .windows import Windows

AROUND_MM = 1.5, 5.0  # distance of what is looked at around a nodule; its blurred rim is nearer
LUNG_HU = -850.0
MOST_MM = 12.0  # diameter beyond which size says nothing
DENSE_HU, BRIGHT_HU = -450.0, 160.0  # of vessels and walls, and of bone, calcium and contrast medium, at least
WALL_MM2 = 300.0  # a larger dense section beside a nodule is not a vessel; as far as it lies in
BESIDE_MM = 12.0  # this distance on the slice


def features(nodule: Nodule, windows: Windows) -> dict[str, float]:
    """Numbers about a finding, each of which a decision may weigh.

    They need neither the lungs nor the distance of the slices, so that crops of unknown distance can be learned from; and where
    a nodule ends through the slices, which the crops do not show, is not among them.

    Returns:
        `size`, `elongation`: of the largest section; `fill`: of the ellipsoid with the same moments of inertia; `density`,
        `contrast`: in hundreds of HU; `bright`: a share; `wall`, `beside`, `continued`: shares of what lies around it; `chance`,
        `spread`, `next`: what the network says of it, and at the place of its largest section on the slices beside it.
    """
    spacing_mm = np.array(windows.spacing_mm)
    section = nodule.mask[np.count_nonzero(nodule.mask, axis=(1, 2)).argmax()]
    area_mm2 = np.count_nonzero(section) * spacing_mm[1] * spacing_mm[2]
    _, narrow, wide = half_axes_mm(section[None], np.diag(spacing_mm))
    short, middle, long = half_axes_mm(nodule.mask, np.diag(spacing_mm))
    mask, hu = _around(nodule, windows)
    away_mm = distance_mm(mask, spacing_mm)
    shell = (away_mm > AROUND_MM[0]) & (away_mm <= max(AROUND_MM[1], spacing_mm[0] + 0.01))  # the next slice, at least
    wall = _walls(hu, mask, spacing_mm)
    inside, free = hu[mask], shell & ~wall
    dense_hu = float(np.percentile(inside, 80))
    as_dense = ~wall & (hu >= (dense_hu + LUNG_HU) / 2) & (shell | (away_mm <= AROUND_MM[0]))
    reached = components(mask | as_dense, corners=True)
    own = np.isin(reached, np.unique(reached[mask]))
    chance, spread = (_planes(known, nodule) for known in (nodule.window.probability, nodule.window.uncertainty))
    return {
        "size": float(np.log(min(2 * np.sqrt(area_mm2 / np.pi), MOST_MM))),
        "elongation": float(np.log(wide / narrow)),
        "fill": float(len(inside) * spacing_mm.prod() / (4 / 3 * np.pi * short * middle * long)),
        "density": float(inside.mean()) / 100,
        "contrast": (dense_hu - (float(np.median(hu[free])) if free.any() else LUNG_HU)) / 100,
        "bright": float((inside >= BRIGHT_HU).mean()),
        "wall": float(wall[shell].mean()) if shell.any() else 0.0,
        "beside": float((hu[free] >= DENSE_HU).mean()) if free.any() else 0.0,
        "continued": float(np.log1p(np.count_nonzero(own & shell) / len(inside))),
        "chance": float(chance[nodule.mask].mean()),
        "next": _next(nodule),
        "spread": float(spread[nodule.mask].mean()),
    }


def probability(decision: Decision, nodule: Nodule, windows: Windows) -> float:
    """How likely a finding is a nodule, 0…1."""
    of_it = features(nodule, windows)
    log_odds = decision.intercept + sum(weight * of_it[name] for name, weight in decision.weights.items())
    return float(1 / (1 + np.exp(-log_odds)))


def _around(nodule: Nodule, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """The nodule's mask and the HU in a box with a margin for all that is looked at."""
    spacing_mm, array = windows.spacing_mm, windows.volume.array
    reach_mm = max(AROUND_MM[1], spacing_mm[0]), BESIDE_MM, BESIDE_MM
    margins = [int(np.ceil((reach + 0.01) / mm)) for reach, mm in zip(reach_mm, spacing_mm, strict=True)]
    box = tuple(slice(max(0, b.start - m), b.stop + m) for b, m in zip(nodule.box, margins, strict=True))
    hu = array[box].astype(np.float32)
    mask = np.zeros(hu.shape, bool)
    mask[tuple(slice(n.start - b.start, n.stop - b.start) for n, b in zip(nodule.box, box, strict=True))] = nodule.mask
    return mask, hu


def _walls(hu: np.ndarray, mask: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """bool (slices, rows, columns): dense sections beside the nodule that are too large for a vessel."""
    least = WALL_MM2 / (spacing_mm[1] * spacing_mm[2])
    return np.stack([components(dense, least=least) > 0 for dense in (hu >= DENSE_HU) & ~mask])


def _planes(known: dict[int, np.ndarray], nodule: Nodule) -> np.ndarray:
    """The part of a map in the box of a nodule, float32."""
    rows, columns = (
        slice(n.start - w.start, n.stop - w.start)
        for n, w in zip(nodule.box[1:], (nodule.window.rows, nodule.window.columns), strict=True)
    )
    return np.stack([known[k][rows, columns] for k in range(nodule.box[0].start, nodule.box[0].stop)]).astype(
        np.float32
    )


def _next(nodule: Nodule) -> float:
    """The mean probability at the pixels of the largest section on one of the slices beside it, the higher one; or on its own."""
    largest = int(np.count_nonzero(nodule.mask, axis=(1, 2)).argmax())
    k, known = nodule.box[0].start + largest, nodule.window.probability
    rows, columns = (
        slice(n.start - w.start, n.stop - w.start)
        for n, w in zip(nodule.box[1:], (nodule.window.rows, nodule.window.columns), strict=True)
    )
    slices = [each for each in (k - 1, k + 1) if each in known] or [k]
    return max(float(known[each][rows, columns][nodule.mask[largest]].astype(np.float32).mean()) for each in slices)
