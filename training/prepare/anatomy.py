"""Checks the orientation of a liver CT from the image itself, because headers of public data sets are often wrong. NumPy only.

The liver lies on the patient's right, in front of the spine and below the lungs. All arrays here are in training order:
axis 0 should run to Superior, axis 1 to Posterior, axis 2 to the patient's Left.
"""

from __future__ import annotations

import numpy as np

AXES = ("si", "ap", "lr")  # names of the three axes, in array order
# Evidence beyond which an axis is certain. Scans of LiTS have at least 0.09, 0.35 and 0.46, but for the ap of one.
CLEAR = (0.05, 0.2, 0.2)
SOFT_TISSUE_HU = -50.0  # fat, lung and air lie below
BONE_HU = 250.0
LUNG_HU = -500.0
FEWEST_SLICES = 8  # with liver, needed to tell its upper end from its lower end


def evidence(hu: np.ndarray, liver: np.ndarray) -> tuple[float, float, float]:
    """How strongly the image suggests that each axis runs the right way.

    Args:
        hu: CT in HU, shape (slices, rows, columns).
        liver: bool, the same shape; may be empty.

    Returns:
        A number each for si, ap and lr: positive if the axis runs as it should, negative if it runs the other way, NaN if the
        image does not show it.
        si: the share of lung in the body in the highest quarter of the liver's slices, minus that in the lowest; plus the
        distance of the liver's centre above the middle of its slices, as a share of their number (it is widest near its top).
        ap: how far the spine lies behind the liver's centre; lr: how far the liver's centre lies to the right of the body's.
        Both are in standard deviations of the body.
    """
    chosen = np.flatnonzero(liver.any(axis=(1, 2)))
    if not chosen.size:
        return np.nan, np.nan, np.nan
    chosen = chosen[:: max(1, len(chosen) // 40)]  # about 40 slices and every second pixel suffice
    hu, liver = hu[chosen, ::2, ::2], liver[chosen, ::2, ::2]
    body = hu > SOFT_TISSUE_HU
    row_spread = _centre_and_spread(body.sum(axis=(0, 2)))[1]
    column, column_spread = _centre_and_spread(body.sum(axis=(0, 1)))
    liver_slice, liver_row, liver_column = (
        _centre_and_spread(liver.sum(axis=others))[0] for others in ((1, 2), (0, 2), (0, 1))
    )
    often_bone = (hu > BONE_HU).mean(axis=0) ** 3  # ribs and bowel move between slices, the spine does not
    middle = np.abs(np.arange(hu.shape[2]) - column) < 0.7 * column_spread
    spine_row = _centre_and_spread(often_bone[:, middle].sum(axis=1))[0]
    superior = np.nan
    if len(hu) >= FEWEST_SLICES:
        lung, quarter = _share_of_lung(hu, body), len(hu) // 4
        superior = lung[-quarter:].mean() - lung[:quarter].mean() + liver_slice / (len(hu) - 1) - 0.5
    return float(superior), float((spine_row - liver_row) / row_spread), float((column - liver_column) / column_spread)


def wrong_axes(hu: np.ndarray, liver: np.ndarray) -> tuple[set[str], set[str]]:
    """The axes that clearly run the wrong way, and those for which the image gives no clear answer; arguments as in `evidence`."""
    found = list(zip(AXES, evidence(hu, liver), CLEAR, strict=True))
    wrong = {axis for axis, value, limit in found if value < -limit}
    unclear = {axis for axis, value, limit in found if not abs(value) > limit}  # NaN too
    return wrong, unclear


def share_of_soft_tissue(hu: np.ndarray, liver: np.ndarray) -> float:
    """Share of the mask that lies on soft tissue: at least 0.998 in LiTS, below 0.99 if the mask is flipped."""
    return float((hu[liver] > SOFT_TISSUE_HU).mean()) if liver.any() else 1.0


def _centre_and_spread(weights: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the indices of a line of weights; NaN if all are 0."""
    index, total = np.arange(len(weights)), weights.sum()
    if not total:
        return np.nan, np.nan
    mean = (weights * index).sum() / total
    return mean, np.sqrt((weights * (index - mean) ** 2).sum() / total)


def _share_of_lung(hu: np.ndarray, body: np.ndarray) -> np.ndarray:
    """For each slice, the share of lung in the area that soft tissue encloses along both rows and columns."""
    inside = np.ones_like(body)
    for axis in (1, 2):
        ahead = np.maximum.accumulate(body, axis=axis)
        behind = np.flip(np.maximum.accumulate(np.flip(body, axis), axis=axis), axis)
        inside &= ahead & behind
    return (inside & (hu < LUNG_HU)).sum(axis=(1, 2)) / np.maximum(1, inside.sum(axis=(1, 2)))
