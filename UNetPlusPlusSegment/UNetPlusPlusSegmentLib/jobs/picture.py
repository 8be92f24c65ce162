"""The picture of a case for the report of its cohort: three slices with the outlines. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import files
from ..core.segment import Segment
from ..core.volume import AxialOrder, Volume, axial_order
from ..files.overlay import LUNG_WINDOW_HU, ORGAN_WINDOW_HU, spread_slices

PICTURES = "pictures"  # folder next to the report
SLICES = 3


def write_picture(
    path: Path, volume: Volume, labelmap: np.ndarray, segments: Sequence[Segment], nodules: bool
) -> list[str]:
    """Draw the three largest nodules, or three slices of the organs, including the most doubtful one.

    Args:
        path: The JPEG; its folder is created if needed.
        volume: CT in HU.
        labelmap: uint8 (K, J, I).
        segments: With `doubtful_slices` in their measurements, if known.
        nodules: True if the model finds nodules, even if there are none.

    Returns:
        A caption for each part of the picture, from left to right.

    Raises:
        FileError: It cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise files.FileError(f"{path.parent} cannot be created ({error.strerror}): choose another folder.") from error
    if nodules and segments:
        files.write_close_ups(path, volume, labelmap, segments[:SLICES])
        return [segment.name for segment in segments[:SLICES]]
    order = axial_order(volume)
    spread = spread_slices(order.apply(labelmap), SLICES)
    worst = _most_doubtful(segments, order, volume.array.shape)
    if worst is not None:
        spread[np.abs(spread - worst).argmin()] = worst
    chosen = sorted({*spread.tolist()})
    files.write_overlay(path, volume, labelmap, segments, LUNG_WINDOW_HU if nodules else ORGAN_WINDOW_HU, chosen)
    return [f"S {_superior(volume, order, k):.0f} mm" + ", most doubtful" * (k == worst) for k in chosen]


def _most_doubtful(segments: Sequence[Segment], order: AxialOrder, shape: tuple[int, ...]) -> int | None:
    """Index, in axial order, of the worst slice of the most doubtful segment; None if no segment has doubtful slices."""
    known = [s.measurements for s in segments if s.measurements.get("doubtful_slices")]
    if not known:
        return None
    k = max(known, key=lambda found: found.get("doubtful_share") or 0)["doubtful_slices"][0]["k"]
    return shape[order.axes[0]] - 1 - k if order.flips[0] else k


def _superior(volume: Volume, order: AxialOrder, k: int) -> float:
    """Position towards Superior, in mm, of the centre of slice `k` in axial order."""
    middle = (np.array(volume.array.shape) - 1) / 2
    axis = order.axes[0]
    middle[axis] = volume.array.shape[axis] - 1 - k if order.flips[0] else k
    return float(volume.ijk_to_ras[2] @ [*middle[::-1], 1])
