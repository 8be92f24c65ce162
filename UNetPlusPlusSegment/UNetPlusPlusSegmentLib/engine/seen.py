"""Segments as the network saw them: at its own pixels, with their probability and the spread of the heads. torch and NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..core.volume import bounding_box
from .maps import Around, PixelMaps

# A pixel is doubtful if its probability lies nearer to the threshold than this share of the way to certainty, or if the heads'
# standard deviation is larger: half of the way, and half of the largest deviation that there is.
UNSURE, AT_ODDS = 0.5, 0.25
NEAR_MM = 20.0  # round a segment; beyond it nothing counts as doubtful
LEAST_SHARE = 1e-3  # of a sign: smaller ones say nothing


@dataclass(frozen=True, eq=False)
class Seen:
    """A segment, and what lies round it.

    Attributes:
        part: The answers of the network there.
        inside: bool (slices, rows, columns) at its pixels, True in the segment.
        first: The first slice, as an index in axial order.
        slice_mm: From slice to slice.
        threshold: Least probability of the segment.
        everywhere: Sum of the probability on all slices, not only round the segment.
    """

    part: Around
    inside: np.ndarray
    first: int
    slice_mm: float
    threshold: float
    everywhere: float

    @cached_property
    def doubtful(self) -> np.ndarray:
        """bool: pixels of which the network was not sure, in the segment or not."""
        t = self.threshold
        probability = self.part.probability
        near = (probability < t + UNSURE * (1 - t)) & (probability > t - UNSURE * t)
        return near | (self.part.uncertainty > AT_ODDS)

    @property
    def doubtful_share(self) -> float:
        """Share of the segment that is doubtful, 0…1."""
        return float(self.doubtful[self.inside].mean())

    def signs(self) -> dict[str, float]:
        """Numbers that tell a good segment from a bad one: natural logarithms of shares, the smaller the better.

        `unlikely`: what is missing to the Dice that the segment would have if the probabilities were true. `doubtful`: doubtful
        pixels, in the segment or near it, for each pixel of the segment. `at_odds`: mean deviation of the heads in the segment.
        `ragged`: difference between neighbouring slices, 1 − Dice.
        """
        pixels = np.count_nonzero(self.inside)
        likely = 2 * float(self.part.probability[self.inside].sum(dtype=np.float64)) / (pixels + self.everywhere)
        shares = {
            "unlikely": 1 - likely,
            "doubtful": np.count_nonzero(self.doubtful) / pixels,
            "at_odds": float(self.part.uncertainty[self.inside].mean(dtype=np.float64)),
            "ragged": np.count_nonzero(self.inside[1:] ^ self.inside[:-1]) / (2 * pixels),
        }
        return {name: math.log(max(share, LEAST_SHARE)) for name, share in shares.items()}

    def worst_slices(self, most: int, apart_mm: float) -> list[tuple[int, float, float]]:
        """Up to `most` slices with the most doubtful pixels, the worst first, at least so far apart.

        Returns:
            Slice, row and column of the middle of these pixels, as indices of voxels in axial order.
        """
        doubtful = self.doubtful
        counts = doubtful.sum(axis=(1, 2))
        found: list[tuple[int, float, float]] = []
        for k in np.argsort(-counts, kind="stable").tolist():
            if len(found) == most or not counts[k]:
                break
            if all(abs(self.first + k - other) * self.slice_mm >= apart_mm for other, _, _ in found):
                row, column = (
                    float(np.average(voxels, weights=doubtful[k].sum(axis=across)))
                    for voxels, across in ((self.part.rows, 1), (self.part.columns, 0))
                )
                found.append((self.first + k, row, column))
        return found


def seen(
    pixels: PixelMaps, number: int, mask: np.ndarray, threshold: float, box: Sequence[slice] | None = None
) -> Seen | None:
    """Look at a segment at the network's pixels.

    Args:
        pixels: The answers of the network.
        number: The place of the label in the card.
        mask: bool (slices, rows, columns), the segment on the volume's voxels in axial order.
        threshold: The least probability of a voxel of it.
        box: The smallest box that contains it, if that is known.

    Returns:
        None if it lies between the pixels, or is empty.
    """
    box = box or bounding_box(mask)
    if box is None:
        return None
    near = [
        slice(max(0, int(along.start - NEAR_MM / mm)), int(along.stop + NEAR_MM / mm) + 1)
        for along, mm in zip(box, pixels.order.spacing_mm, strict=True)
    ]
    part = pixels.around(number, near, mask.shape[1:])
    inside = mask[near[0]][:, part.rows][:, :, part.columns]
    if not inside.any():
        return None
    everywhere = torch.from_numpy(pixels.of_label(number)).sum(dtype=torch.float32)
    return Seen(part, inside, near[0].start, pixels.order.spacing_mm[0], threshold, float(everywhere))


def weights_of_parts(
    pixels: PixelMaps, threshold: float, number: int, parts: np.ndarray, corner: Sequence[int], size: tuple[int, int]
) -> np.ndarray:
    """Sum over the pixels of each part of what their probability exceeds the threshold by.

    Args:
        pixels: The answers of the network.
        threshold: The least probability of a voxel in a part.
        number: The place of the label in the card.
        parts: Integers (slices, rows, columns), voxels in axial order: 0, and 1…n in the parts.
        corner: The slice, row and column at which this array begins.
        size: Rows and columns of a whole slice.

    Returns:
        n + 1 numbers, the first for what lies in no part.
    """
    ranges = [slice(start, start + length) for start, length in zip(corner, parts.shape, strict=True)]
    part = pixels.around(number, ranges, size)
    at = parts[:, part.rows - corner[1]][:, :, part.columns - corner[2]]
    hit = at > 0
    excess = np.maximum(part.probability[hit] - threshold, 0)
    return np.bincount(at[hit], weights=excess, minlength=int(parts.max()) + 1)
