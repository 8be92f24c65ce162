"""Signs of how good a segment is, from the probability and the spread of the heads at the network's own pixels. torch and NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..core.volume import bounding_box
from .maps import LabelRegion, PixelMaps

SIGNS = ("unlikely", "doubtful", "at_odds", "ragged")  # see `SegmentPixels.signs`

# A pixel is doubtful if its probability is closer to the threshold than this share of the way to 0 or 1, or if the standard deviation
# of the heads is larger than AT_ODDS. Both are half of what is possible.
UNSURE, AT_ODDS = 0.5, 0.25
NEAR_MM = 20.0  # doubtful pixels count up to this distance from a segment
LEAST_SHARE = 1e-3  # smaller shares mean nothing, and their logarithm would be too large


@dataclass(frozen=True, eq=False)
class SegmentPixels:
    """A segment and its surroundings at the network's pixels.

    Attributes:
        region: The output of the network there.
        inside: bool (slices, rows, columns), True for the pixels in the segment.
        first: Index of the first slice, in axial order.
        slice_mm: Distance between slices.
        threshold: Lowest probability of a voxel in the segment.
        everywhere: Sum of the probability over the whole volume, not only around the segment.
    """

    region: LabelRegion
    inside: np.ndarray
    first: int
    slice_mm: float
    threshold: float
    everywhere: float

    @cached_property
    def doubtful(self) -> np.ndarray:
        """The pixels that the network was not sure of (bool), inside the segment or not."""
        t = self.threshold
        probability = self.region.probability
        near = (probability < t + UNSURE * (1 - t)) & (probability > t - UNSURE * t)
        return near | (self.region.uncertainty > AT_ODDS)

    @property
    def doubtful_share(self) -> float:
        """Share of the segment that is doubtful, 0…1."""
        return float(self.doubtful[self.inside].mean())

    def signs(self) -> dict[str, float]:
        """Numbers that tell good segments from bad ones: natural logarithms of shares, the smaller the better.

        `unlikely`: 1 − the Dice that the segment would have if the probabilities were right. `doubtful`: number of doubtful pixels
        in or near the segment, divided by its own number of pixels. `at_odds`: mean standard deviation of the heads in the segment.
        `ragged`: difference between neighbouring slices, 1 − Dice.
        """
        pixels = np.count_nonzero(self.inside)
        likely = 2 * float(self.region.probability[self.inside].sum(dtype=np.float64)) / (pixels + self.everywhere)
        shares = (
            1 - likely,
            np.count_nonzero(self.doubtful) / pixels,
            float(self.region.uncertainty[self.inside].mean(dtype=np.float64)),
            np.count_nonzero(self.inside[1:] ^ self.inside[:-1]) / (2 * pixels),
        )
        return {name: math.log(max(share, LEAST_SHARE)) for name, share in zip(SIGNS, shares, strict=True)}

    def worst_slices(self, most: int, apart_mm: float) -> list[tuple[int, float, float]]:
        """Up to `most` slices with the most doubtful pixels, the worst first, at least `apart_mm` apart.

        Returns:
            For each, slice, row and column of the centre of its doubtful pixels, as voxel indices in axial order.
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
                    for voxels, across in ((self.region.rows, 1), (self.region.columns, 0))
                )
                found.append((self.first + k, row, column))
        return found


def segment_pixels(
    pixels: PixelMaps, number: int, mask: np.ndarray, threshold: float, box: Sequence[slice] | None = None
) -> SegmentPixels | None:
    """Find a segment at the network's pixels.

    Args:
        pixels: The output of the network.
        number: The number of the label in the card, from 0.
        mask: bool (slices, rows, columns), the segment on the volume's voxels in axial order.
        threshold: Lowest probability of a voxel in the segment.
        box: The smallest box that contains it, if known.

    Returns:
        None if the segment is empty, or so small that it contains no pixel's centre.
    """
    box = box or bounding_box(mask)
    if box is None:
        return None
    near = [
        slice(max(0, int(along.start - NEAR_MM / mm)), int(along.stop + NEAR_MM / mm) + 1)
        for along, mm in zip(box, pixels.order.spacing_mm, strict=True)
    ]
    region = pixels.region(number, near, mask.shape[1:])
    inside = mask[near[0]][:, region.rows][:, :, region.columns]
    if not inside.any():
        return None
    everywhere = torch.from_numpy(pixels.of_label(number)).sum(dtype=torch.float32)
    return SegmentPixels(region, inside, near[0].start, pixels.order.spacing_mm[0], threshold, float(everywhere))


def weights_of_parts(
    pixels: PixelMaps, threshold: float, number: int, parts: np.ndarray, corner: Sequence[int], size: tuple[int, int]
) -> np.ndarray:
    """Weigh each part of a label: the sum, over its pixels, of probability minus threshold.

    Args:
        pixels: The output of the network.
        threshold: Lowest probability of a voxel in a part.
        number: The number of the label in the card, from 0.
        parts: Integers (slices, rows, columns) on voxels in axial order: 1…n in the parts, 0 elsewhere.
        corner: Slice, row and column of the first voxel of this array.
        size: Rows and columns of a whole slice.

    Returns:
        n + 1 weights; the first is that of the background.
    """
    ranges = [slice(start, start + length) for start, length in zip(corner, parts.shape, strict=True)]
    region = pixels.region(number, ranges, size)
    at = parts[:, region.rows - corner[1]][:, :, region.columns - corner[2]]
    hit = at > 0
    excess = np.maximum(region.probability[hit] - threshold, 0)
    return np.bincount(at[hit], weights=excess, minlength=int(parts.max()) + 1)
