"""Segments: the named regions of a label map. NumPy only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_SEGMENTS = np.iinfo(np.uint8).max  # as many as a label map tells apart


@dataclass(frozen=True)
class Segment:
    """A named region of a label map, as Slicer shows it.

    Attributes:
        value: Its value in the label map.
        name: Name shown to the user.
        terminology: Slicer's seven-part terminology string.
        color: Red, green, blue, 0…255.
        measurements: `volume_ml`, `mean_hu` (None if empty), …
    """

    value: int
    name: str
    terminology: str
    color: tuple[int, int, int]
    measurements: Mapping[str, Any]


def plain_name(name: str) -> str:
    """A name as it is compared with what users type: case is ignored, and `_` and `-` count as spaces."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def overlapping(before: np.ndarray, after: np.ndarray) -> dict[int, int]:
    """Match the regions of two label maps on the same voxels.

    Returns:
        For each matched value in `after`, the value in `before` with which it shares the most voxels; each value is matched at
        most once.
    """
    both = (before > 0) & (after > 0)
    pairs, counts = np.unique(np.stack([before[both], after[both]]), axis=1, return_counts=True)
    found: dict[int, int] = {}
    for old, new in pairs.T[np.argsort(-counts, kind="stable")].tolist():
        if new not in found and old not in found.values():
            found[new] = old
    return found
