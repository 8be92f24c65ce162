"""Maps: what the network said of a volume, at its own pixel size. torch and NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..core.volume import AxialOrder
from .pixel_box import Box


@dataclass(frozen=True)
class Maps:
    """What the network said, in axial order at its own pixel size: enough to threshold again without running it.

    Attributes:
        probability: float16 (slices, rows, columns), mean over the heads that the model averages; every slice, and of it
            what lies in `box`; outside it is 0.
        spread: the same for the standard deviation of all heads: the uncertainty.
    """

    probability: np.ndarray
    spread: np.ndarray
    order: AxialOrder
    box: Box

    @classmethod
    def empty(cls, slices: int, order: AxialOrder, box: Box) -> Maps:
        """Nothing known yet; memory is taken as slices are filled in."""
        return cls(*(np.zeros((slices, *box.size), np.float16) for _ in range(2)), order, box)

    def on_voxels(self, part: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """One slice of a map, float32 (rows, columns) at the volume's own pixels."""
        whole = np.zeros(self.box.grid, np.float32)
        whole[self.box.inside] = part
        if self.box.grid == size:
            return whole
        image = torch.from_numpy(whole)[None, None]
        return F.interpolate(image, size, mode="bilinear", antialias=False)[0, 0].numpy()  # both cover the same field
