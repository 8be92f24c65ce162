"""Reads slice folders (images/ masks/ slices.csv) into memory, and refuses what is wrong with them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from data.targets import Target


class DataError(ValueError):
    """A slice folder that cannot be used: which file, why, and the way out."""


@dataclass(frozen=True)
class Slice:
    """One image and its mask, as stored.

    Attributes:
        row: Its line of slices.csv.
        image: uint8 (height, width) or (height, width, 3).
        mask: bool (height, width).
        pixel_mm: Side of a pixel; 1 for images without one.
        beside: bool (height, width), what is easily mistaken for the organ; None where it is not marked.
    """

    row: dict[str, str]
    image: np.ndarray
    mask: np.ndarray
    pixel_mm: float
    beside: np.ndarray | None = None

    def in_window(self, stored_hu: tuple[float, float] | None, wanted_hu: tuple[float, float] | None) -> Slice:
        """The slice with grey values of another window; what the stored one cut off below stays cut off."""
        if stored_hu == wanted_hu:
            return self
        (low, high), (new_low, new_high) = stored_hu, wanted_hu
        hu = low + self.image.astype(np.float32) * ((high - low) / 255)
        image = ((hu - new_low) * (255 / (new_high - new_low))).round().clip(0, 255).astype(np.uint8)
        return replace(self, image=image * (self.image > 0))


def read_slices(folder: str | Path, target: Target, split: str) -> list[Slice]:
    """Read all slices of one split.

    Raises:
        DataError: slices.csv is missing or lacks a column, an image or mask is missing or unreadable, sizes differ, a patient is in two
            splits, the split is empty, or the images are of another kind than the target's.
    """
    folder = Path(folder)
    rows = _read_table(folder, target)
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        raise DataError(
            f"{folder / 'slices.csv'} has no row with split {split!r}; it has {sorted({r['split'] for r in rows})}."
        )
    return [_read_slice(folder, row, target) for row in chosen]


def _read_table(folder: Path, target: Target) -> list[dict[str, str]]:
    path = folder / "slices.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); training/prepare/ makes such folders.") from error
    for column in ("file", "split", target.group):
        if not rows or column not in rows[0]:
            raise DataError(f"{path} has no column {column!r}, or no rows; is the folder of another target?")
    split_of: dict[str, str] = {}
    for row in rows:
        group = row[target.group]
        if split_of.setdefault(group, row["split"]) != row["split"]:
            raise DataError(
                f"{path}: {target.group} {group} is in two splits, {split_of[group]} and {row['split']} (at {row['file']});"
                " give all its slices the same split."
            )
    return rows


def _read_slice(folder: Path, row: dict[str, str], target: Target) -> Slice:
    image_path = folder / "images" / row["file"]
    mask_path = folder / "masks" / row.get("mask", row["file"])
    image, mask = _read_picture(image_path), _read_picture(mask_path)
    if image.shape[:2] != mask.shape[:2]:
        raise DataError(f"{mask_path} is {mask.shape[:2]}, its image {image.shape[:2]}: sizes must be equal.")
    if mask.ndim != 2 or mask.max(initial=0) > target.most:
        raise DataError(f"{mask_path} holds the value {mask.max()}: labels must be 0…{target.most} in one channel.")
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.dtype != np.uint8 or channels != target.channels:
        raise DataError(
            f"{image_path} has {channels} channels of {image.dtype}, not {target.channels} of uint8: it is not of this target;"
            " check `target` and `data`."
        )
    try:
        pixel_mm = target.pixel_mm(row) or target.usual_pixel_mm
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{folder / 'slices.csv'}: the pixel size of {row['file']} cannot be read ({error})."
        ) from error
    return Slice(row, image, target.organ(mask), pixel_mm, target.beside(mask) if target.beside else None)


def _read_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def to_network_grid(item: Slice, target: Target, pixel_mm: float) -> tuple[Tensor, Tensor]:
    """A slice at the network's pixel size, values in the target's window as 0…1.

    Returns:
        float32 image (channels, height, width) and float32 mask (1, height, width).
    """
    channels = torch.from_numpy(np.array(item.image)).reshape(*item.image.shape[:2], -1).permute(2, 0, 1)
    image = channels.float() / 255
    mask = torch.from_numpy(item.mask).float()[None]
    factor = item.pixel_mm / pixel_mm if pixel_mm else 1.0
    if abs(factor - 1) > 0.01:
        size = [max(1, round(n * factor)) for n in item.image.shape[:2]]
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0].clamp_(0, 1)
        mask = (F.interpolate(mask[None], size, mode="bilinear", antialias=True)[0] >= 0.5).float()
    return image, mask


class SliceDataset(Dataset):
    """Slices at the network's pixel size; an item is drawn by (index, seed), so that the same draw is the same patch everywhere."""

    def __init__(self, slices: list[Slice], target: Target, pixel_mm: float, augment: Callable | None = None) -> None:
        self.slices = slices
        self.augment = augment
        self._cache = []
        for item in slices:
            image, mask = to_network_grid(item, target, pixel_mm)
            self._cache.append(((image * 255).round().byte(), mask.bool()))

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, draw: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, seed = draw if isinstance(draw, tuple) else (draw, 0)
        image, mask = self._cache[index]
        image, mask = image.float() / 255, mask.float()
        return self.augment(image, mask, seed) if self.augment else (image, mask)
