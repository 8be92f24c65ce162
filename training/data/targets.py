"""What each data set's pixels mean: the one place where stored grey values become the network's input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

AIR_HU = -1000.0


@dataclass(frozen=True)
class Target:
    """How to read a slice folder of one kind.

    Attributes:
        window_hu: HU at stored 0 and 255 for CT; None for colour images.
        organ: From a stored mask to the pixels to be found.
        most: The highest value of a stored mask.
        pixel_mm: From a row of slices.csv to the side of a stored pixel in mm, None where it is not known.
        group: Column of slices.csv that must not be in two splits.
        usual_pixel_mm: Taken where `pixel_mm` is not known.
        beside: From a stored mask to the pixels of what is easily mistaken for the organ; None where it is not marked.
    """

    window_hu: tuple[float, float] | None
    organ: Callable[[np.ndarray], np.ndarray]
    most: int
    pixel_mm: Callable[[Mapping[str, str]], float | None]
    group: str
    usual_pixel_mm: float = 1.0
    beside: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return 3 if self.window_hu is None else 1

    def to_hu(self, stored: np.ndarray) -> np.ndarray:
        """Stored 8-bit CT pixels as float32 HU; stored 0 is what lay below the window, so it becomes air."""
        low, high = self.window_hu
        hu = low + stored.astype(np.float32) * np.float32((high - low) / 255)
        hu[stored == 0] = AIR_HU
        return hu


TARGETS = {
    "liver": Target(
        window_hu=(-40.0, 160.0),
        organ=lambda mask: mask > 0,  # tumour (2) lies inside the liver
        most=2,
        pixel_mm=lambda row: 2 * float(row["source_pixel_mm"]) if row["source_pixel_mm"] else None,  # 512² made 256²
        group="patient",
        usual_pixel_mm=1.5,
    ),
    "nodule": Target(
        window_hu=(-1000.0, 400.0),
        organ=lambda mask: mask >= 2,  # marked by two readers or more
        most=4,
        pixel_mm=lambda row: float(row["pixel_mm"]),
        group="patient",
    ),
    "nuclei": Target(None, lambda mask: mask > 0, 1, lambda row: None, "file"),
    "polyp": Target(None, lambda mask: mask > 0, 1, lambda row: None, "file"),
    "organs": Target(
        window_hu=(-125.0, 275.0),
        organ=lambda mask: mask == 5,  # the liver
        most=8,
        pixel_mm=lambda row: None,
        group="patient",
        usual_pixel_mm=1.56,
        beside=lambda mask: np.isin(mask, (4, 6, 8)),  # gallbladder, stomach, pancreas
    ),
}
