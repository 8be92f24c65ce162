"""Draws into CT slices what makes an organ hard to recognise: other contrast, and structures that look like it. NumPy and SciPy only.

Images are float32 (rows, columns) in 0…1 of the window, masks are bool of the same shape. Pixels of 0 lay below the window and stay 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

ORGAN_SHIFT_HU = (-80.0, 50.0)  # from a fatty organ, or one without contrast, to a late arterial phase
ORGAN_EDGE_MM = (0.9, 2.4)  # standard deviations of the edge's blur
# Half axes of a loop of bowel, and of a colon or stomach as wide as the liver.
SMALL_MM, LARGE_MM = (9.0, 45.0), (22.0, 90.0)
SMALL_SHARE = 0.6  # of the ellipses
ALIKE_HU = 40.0  # a small loop fills only pixels within this distance of its first one
CONTRAST_SHARE = 0.6  # of the loops are filled with contrast medium, the others with fluid
CONTRAST, FLUID = (0.75, 1.4), (0.15, 0.6)  # grey values as shares of the window; above 1 they are saturated
NOISE = 0.08  # largest standard deviation of the filling
EDGE_MM = 1.2  # standard deviation of the blurred edge of what is drawn
GAP_MM = 3.0  # between the organ and what is drawn beside it
LEAST_PIECE_MM2 = 200.0


@dataclass(frozen=True, eq=False)
class Piece:
    """A section of an organ from another slice: its grey values, and the mask of the pixels that belong to it."""

    image: np.ndarray
    mask: np.ndarray


def shifted_organ(
    image: np.ndarray, organ: np.ndarray, window_hu: float, pixel_mm: float, draw: np.random.Generator
) -> np.ndarray:
    """The slice with a brighter or darker organ.

    Args:
        image, organ: The slice and the organ's mask.
        window_hu: Width of the window.
        pixel_mm: Side of a pixel.
        draw: Random generator.
    """
    edge = draw.uniform(*ORGAN_EDGE_MM) / pixel_mm
    soft = ndimage.gaussian_filter(organ.astype(np.float32), edge)
    return _kept((image + soft * np.float32(draw.uniform(*ORGAN_SHIFT_HU) / window_hu)), image)


def with_bowel(
    image: np.ndarray, organ: np.ndarray, window_hu: float, pixel_mm: float, draw: np.random.Generator
) -> np.ndarray:
    """The slice with an ellipse drawn beside the organ, filled like bowel with contrast medium or fluid; arguments as above."""
    free = _free(image, organ, pixel_mm)
    if not free.any():
        return image
    row, column = _some(free, draw)
    small = draw.random() < SMALL_SHARE
    axes = draw.uniform(*(SMALL_MM if small else LARGE_MM), size=2) / pixel_mm
    turn = draw.uniform(0, np.pi)
    down, right = np.ogrid[-row : image.shape[0] - row, -column : image.shape[1] - column]
    along, across = np.cos(turn) * right + np.sin(turn) * down, np.cos(turn) * down - np.sin(turn) * right
    inside = free & ((along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1)
    if small:
        inside &= np.abs(image - image[row, column]) < ALIKE_HU / window_hu
    level = draw.uniform(*(CONTRAST if draw.random() < CONTRAST_SHARE else FLUID))
    filling = draw.normal(level, draw.uniform(0, NOISE), image.shape).astype(np.float32)
    return _blended(image, filling, inside, organ, pixel_mm)


def with_piece(
    image: np.ndarray, organ: np.ndarray, piece: Piece, pixel_mm: float, draw: np.random.Generator
) -> np.ndarray:
    """The slice with a section of another organ, rotated by a multiple of 90°, laid on tissue beside the organ; arguments as above."""
    free = _free(image, organ, pixel_mm)
    if not free.any():
        return image
    row, column = _some(free, draw)
    turns = int(draw.integers(4))
    grey, mask = np.rot90(piece.image, turns), np.rot90(piece.mask, turns)
    rim = max(mask.shape)  # padding, so that a piece may reach over the edge
    here = tuple(
        slice(rim + at - n // 2, rim + at - n // 2 + n) for at, n in zip((row, column), mask.shape, strict=True)
    )
    filling, inside = np.pad(np.zeros_like(image), rim), np.pad(np.zeros_like(organ), rim)
    filling[here], inside[here] = grey, mask
    filling, inside = (x[rim:-rim, rim:-rim] for x in (filling, inside))
    return _blended(image, filling, inside & free, organ, pixel_mm)


def pieces_of(image: np.ndarray, mask: np.ndarray, pixel_mm: float) -> list[Piece]:
    """The connected regions of at least 2 cm² that a mask marks in a slice."""
    labels, _ = ndimage.label(mask)
    found = []
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == value
        if inside.sum() * pixel_mm**2 >= LEAST_PIECE_MM2:
            found.append(Piece(image[box].copy(), inside))
    return found


def _free(image: np.ndarray, organ: np.ndarray, pixel_mm: float) -> np.ndarray:
    """bool (rows, columns): tissue at least `GAP_MM` away from the organ."""
    tissue = ndimage.binary_opening(image > 0, np.ones((3, 3), bool))  # opening removes the noise of lung and air
    if not organ.any():
        return tissue
    return tissue & (ndimage.distance_transform_edt(~organ) * pixel_mm > GAP_MM)


def _some(mask: np.ndarray, draw: np.random.Generator) -> tuple[int, int]:
    pixels = np.argwhere(mask)
    row, column = pixels[int(draw.integers(len(pixels)))].tolist()
    return row, column


def _blended(
    image: np.ndarray, filling: np.ndarray, inside: np.ndarray, organ: np.ndarray, pixel_mm: float
) -> np.ndarray:
    """`filling` where `inside` is, with a soft edge that does not reach into the organ."""
    soft = ndimage.gaussian_filter(inside.astype(np.float32), EDGE_MM / pixel_mm) * ~organ
    return _kept(image + soft * (filling - image), image)


def _kept(changed: np.ndarray, image: np.ndarray) -> np.ndarray:
    return changed.clip(0, 1) * (image > 0)
