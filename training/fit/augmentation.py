"""Augmentation with MONAI. The order of the steps matters: air in a CT must stay air."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from monai.transforms import (
    Affine,
    Compose,
    RandAdjustContrast,
    RandGaussianSharpen,
    RandGaussianSmooth,
)
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from data.lookalikes import Piece, shifted_organ, with_bowel, with_piece
from fit.settings import Settings
from UNetPlusPlusSegmentLib.network.resampling import onto_grid

if TYPE_CHECKING:
    from monai.data import MetaTensor


class Augment:
    """Turns a slice of any size into a patch; the same slice and seed always give the same patch.

    Zoom, rotation and shift are done in one resampling; outside the slice lies 0 (air). Stored CT is clipped, so a pixel of 0 may be fat
    or air: contrast, brightness and noise leave such pixels as they are.
    """

    def __init__(self, settings: Settings, window_hu: tuple[float, float] | None, pieces: Sequence[Piece] = ()) -> None:
        """Prepare the augmentation.

        Args:
            settings: Say how often each change is made, and how strong it is.
            window_hu: HU at image values 0 and 1 for CT; None for colour images.
            pieces: Sections of other organs, which are pasted beside the organ with probability `settings.paste`.
        """
        self.settings, self.pieces = settings, pieces
        self.width_hu = window_hu[1] - window_hu[0] if window_hu else None
        # In a window above soft tissue, the largest piece is no body but a bone or a vessel, and what lies behind it may be the organ.
        self.shows_body = window_hu is not None and window_hu[0] <= 0
        self.look = Compose([
            RandAdjustContrast(0.3, settings.gamma),
            RandGaussianSharpen((0.5, 1.0), (0.5, 1.0), sigma2_x=(0.5, 1.0), sigma2_y=(0.5, 1.0), alpha=(0.5, 2.0), prob=settings.sharpen),
            RandGaussianSmooth((0.3, 1.0), (0.3, 1.0), prob=0.2),
        ])  # fmt: skip

    def __call__(self, image: Tensor, mask: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Make a patch of `settings.patch` pixels from an image (channels, height, width) in 0…1 and its truth (labels, height, width)."""
        draw = np.random.default_rng(seed)
        if self.width_hu:
            if draw.random() < self.settings.no_table and self.shows_body:
                image = without_table(image)
            image = self._with_lookalikes(image, mask, self.width_hu, draw)
            gain, offset = (draw.uniform(-most, most) for most in (self.settings.gain, self.settings.offset))
            image = ((image - 0.5) * (1 + gain) + 0.5 + offset).clamp(0, 1) * (image > 0)
        image, mask = self._place(image, mask, draw)
        self.look.set_random_state(int(draw.integers(2**31)))
        image = self.look(image).as_tensor().float()
        if draw.random() < 0.15:
            image = coarsened(image, draw.uniform(0.5, 1))
        if draw.random() < 0.4:
            noise = image.new_tensor(draw.normal(0, draw.uniform(0, self.settings.noise), image.shape))
            image = image + (noise * (image > 0) if self.width_hu else noise)
        return image.clamp(0, 1), mask

    def _with_lookalikes(self, image: Tensor, mask: Tensor, width_hu: float, draw: np.random.Generator) -> Tensor:
        s = self.settings
        plane, organ, about = image[0].numpy(), (mask > 0).any(0).numpy(), (width_hu, s.pixel_mm or 1.0)
        if organ.any() and draw.random() < s.recolour:
            plane = shifted_organ(plane, _some_label(mask, draw).numpy(), *about, draw)
        if draw.random() < s.bowel:
            for _ in range(int(draw.integers(1, 4))):
                plane = with_bowel(plane, organ, *about, draw)
        if self.pieces and draw.random() < s.paste:
            piece = self.pieces[int(draw.integers(len(self.pieces)))]
            plane = with_piece(plane, organ, piece, about[1], draw)
        return torch.from_numpy(plane)[None]

    def _place(self, image: Tensor, mask: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        s = self.settings
        if s.flips:
            turns, mirror = int(draw.integers(4)), [[], [-1]][int(draw.integers(2))]
            image, mask = (x.rot90(turns, (-2, -1)).flip(mirror) for x in (image, mask))
        zoom = math.exp(draw.uniform(math.log(s.scale[0]), math.log(s.scale[1])))
        stretch = math.exp(draw.uniform(-0.08, 0.08))
        turn = math.radians(draw.uniform(-s.rotation_degrees, s.rotation_degrees))
        move = [draw.uniform(-s.shift, s.shift) * n for n in s.patch]
        if s.roam and draw.random() < s.roam:
            down, right = _some_pixel(image, mask, draw)
            move = [math.cos(turn) * down + math.sin(turn) * right, math.cos(turn) * right - math.sin(turn) * down]
        place = Affine(  # MONAI transforms the sampling grid, with the rotation last, so its scale is the inverse of the image's
            rotate_params=turn,
            translate_params=move,
            scale_params=(1 / (zoom * stretch), stretch / zoom),
            padding_mode="zeros",
            image_only=True,
        )
        image, mask = (
            cast("MetaTensor", place(each, spatial_size=s.patch, mode=mode)).as_tensor()
            for each, mode in ((image, "bilinear"), (mask, "nearest"))
        )
        return image, mask


def _some_pixel(image: Tensor, mask: Tensor, draw: np.random.Generator) -> tuple[float, float]:
    """Offset (rows, columns) from the middle of a slice to a random pixel: in half of the draws one of a label, if there is one;
    otherwise any pixel that is not air.
    """
    shown = image[0] > 0
    wanted = (
        _some_label(mask, draw)
        if draw.random() < 0.5 and (mask > 0).any()
        else shown
        if shown.any()
        else torch.ones_like(shown)
    )
    pixels = wanted.nonzero()
    row, column = pixels[int(draw.integers(len(pixels)))].tolist()
    rows, columns = wanted.shape
    return row - (rows - 1) / 2, column - (columns - 1) / 2


def _some_label(mask: Tensor, draw: np.random.Generator) -> Tensor:
    """bool (height, width): one of the labels that a mask (labels, height, width) shows, each with the same probability."""
    there = (mask > 0).flatten(1).any(1).nonzero()
    return mask[there[int(draw.integers(len(there))) if len(there) > 1 else 0, 0]] > 0


def coarsened(image: Tensor, zoom: float) -> Tensor:
    """An image (channels, height, width) as if acquired with larger pixels; `zoom` is the old pixel size divided by the larger one.

    MONAI's RandSimulateLowResolution takes the nearest pixel, or averages bins of unequal size. Both shift the image by up to half a
    pixel against its mask.
    """
    coarse = [max(1, round(n * zoom)) for n in image.shape[1:]]
    small = onto_grid(image[None], coarse)
    return F.interpolate(small, image.shape[1:], mode="bilinear")[0]


def without_table(image: Tensor) -> Tensor:
    """A CT slice without table, cushion or arm rest: all rows posterior to the body become air.

    The body is the largest connected region above 0.

    Args:
        image: (1, height, width) in 0…1; rows run to posterior.
    """
    pieces, count = ndimage.label(image[0].numpy() > 0)
    if not count:
        return image
    body = np.bincount(pieces.ravel())[1:].argmax() + 1
    last = np.flatnonzero((pieces == body).any(axis=1))[-1]
    image = image.clone()
    image[:, last + 1 :] = 0
    return image
