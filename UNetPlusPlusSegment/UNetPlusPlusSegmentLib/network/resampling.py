"""Resampling of slices to the pixels of a network; the same for training and use."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def onto_grid(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resample images (n, channels, rows, columns) to `size`, rows and columns, over the same field; larger pixels are weighted means."""
    rows, columns = size
    if columns == 1 and rows > 1:  # there, torch 2.13 repeats the first row on a processor
        return onto_grid(image.mT, (columns, rows)).mT
    return F.interpolate(image, (rows, columns), mode="bilinear", antialias=True)
