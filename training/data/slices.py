"""Reads slice folders (images/, masks/, slices.csv) into memory, and checks them."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from data.kinds import Kind
from data.provenance import counted
from data.targets import Target
from UNetPlusPlusSegmentLib.network.card import Source
from UNetPlusPlusSegmentLib.network.resampling import onto_grid

UNKNOWN = -1  # value of the truth where a label may or may not be present


class DataError(ValueError):
    """A slice folder that cannot be used. The message names the file, the reason and what to do."""


@dataclass(frozen=True)
class Slice:
    """One image and its masks.

    Attributes:
        row: Its line of slices.csv.
        group: Whose it is: its patient or, where each image is its own, its file.
        image: uint8 (height, width) or (height, width, 3), in the target's window; uint16 if not yet brought into that window.
        mask: bool (labels, height, width).
        pixel_mm: Side of a pixel; 1 for images without a size in mm.
        known: bool (labels,): the labels whose masks are complete; the masks of the others must not be trusted. None: all are.
        unsure: bool (labels, height, width): pixels that may or may not belong to a label. None: there are none.
        beside: bool (height, width): structures that are easily mistaken for a label; None where they are not marked.
    """

    row: dict[str, str]
    group: str
    image: np.ndarray
    mask: np.ndarray
    pixel_mm: float
    known: np.ndarray | None = None
    unsure: np.ndarray | None = None
    beside: np.ndarray | None = None

    @property
    def shown(self) -> np.ndarray:
        """bool (height, width): the union of all labels."""
        return np.logical_or.reduce(self.mask)

    def knows(self, label: int) -> bool:
        """True if the mask of this label is complete."""
        return self.known is None or bool(self.known[label])

    @property
    def knows_any(self) -> bool:
        """True if the mask of at least one label is complete."""
        return self.known is None or bool(self.known.any())

    def in_window(self, stored_hu: tuple[float, float] | None, wanted_hu: tuple[float, float] | None) -> Slice:
        """The slice with its grey values moved from the stored window to the wanted one; pixels of 0 stay 0."""
        is_8_bit = self.image.dtype == np.uint8
        if stored_hu is None or wanted_hu is None or (is_8_bit and stored_hu == wanted_hu):
            return self
        (low, high), (new_low, new_high) = stored_hu, wanted_hu
        hu = low + self.image.astype(np.float32) * ((high - low) / np.iinfo(self.image.dtype).max)
        image = ((hu - new_low) * (255 / (new_high - new_low))).round().clip(0, 255).astype(np.uint8)
        return replace(self, image=image * (self.image > 0))


def read_slices(folder: str | Path, target: Target, split: str, kind: Kind | None = None) -> list[Slice]:
    """Read all slices of one split.

    Args:
        folder: The slice folder.
        target: The target whose labels are read from the masks.
        split: The rows to read: a split such as `train`; the first of three folds of its people, `train:1/3`; or all but that fold,
            `train:-1/3`.
        kind: How to read the folder; None: as `target.slices` says.

    Raises:
        DataError: slices.csv is missing or lacks a column, an image or mask is missing or unreadable, sizes differ, a patient is in two
            splits, the split is empty, or the images are of another kind.
    """
    folder, kind = Path(folder), kind or target.slices
    return [_read_slice(folder, row, target, kind) for row in read_rows(folder, kind, split)]


def read_rows(folder: str | Path, kind: Kind, split: str) -> list[dict[str, str]]:
    """The lines of slices.csv of one split.

    Raises:
        DataError: slices.csv is missing or lacks a column, a patient is in two splits, or the split is empty.
    """
    path = Path(folder) / "slices.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): give a slice folder, as the scripts in training/prepare/ make them."
        ) from error
    for column in ("file", "split", kind.group):
        if not rows or column not in rows[0]:
            raise DataError(
                f"{path} has no rows, or no column {column!r}: check that the folder belongs to this target."
            )
    split_of = _split_of(path, rows, kind)
    name, _, fold = split.partition(":")
    people = [group for group, its in split_of.items() if its == name]
    if fold:
        people = _of_fold(people, fold)
    chosen = [row for row in rows if row[kind.group] in set(people)]
    if not chosen and fold and name in split_of.values():
        count = sum(its == name for its in split_of.values())
        raise DataError(f"{path} has too few people in {name!r} ({count}) for {fold}: add people, or make fewer folds.")
    if not chosen:
        hint = " Give fold=1/3 to train without it." if split == "val" else ""
        raise DataError(
            f"{path} has no row with split {split!r}; its splits are {', '.join(sorted(set(split_of.values())))}.{hint}"
        )
    return chosen


def _split_of(path: Path, rows: list[dict[str, str]], kind: Kind) -> dict[str, str]:
    """The split that each patient is in."""
    split_of: dict[str, str] = {}
    for row in rows:
        group = row[kind.group]
        if split_of.setdefault(group, row["split"]) != row["split"]:
            raise DataError(
                f"{path}: {kind.group} {group} is in two splits, {split_of[group]} and {row['split']} (at {row['file']});"
                " give all its slices the same split."
            )
    return split_of


def _of_fold(people: list[str], fold: str) -> list[str]:
    """The people of fold `k/n`, or with `-k/n` of all other folds. Folds follow a hash of the names, so row order does not matter."""
    match = re.fullmatch(r"(-?)(\d+)/(\d+)", fold)
    number, folds = (int(match[2]), int(match[3])) if match else (0, 0)
    if not match or not 1 <= number <= folds or folds < 2:
        raise DataError(f"{fold!r} is not a fold: write 1/3 for the first of three, or -1/3 for all but that one.")
    dealt = sorted(people, key=lambda name: hashlib.sha256(name.encode()).digest())
    held_out = set(dealt[number - 1 :: folds])
    return [name for name in people if (name in held_out) != bool(match[1])]


def sources_of(folder: str | Path, kind: Kind, split: str) -> list[Source]:
    """The sources of a split's images, as a card lists them, each with its number of patients or images.

    Raises:
        DataError: As for `read_rows`; or a row comes from none of the kind's sources.
    """
    rows = read_rows(folder, kind, split)
    for row in rows:
        if not any(source.gave(row) for source in kind.sources):
            raise DataError(
                f"{Path(folder) / 'slices.csv'}: the target names no source of {row['file']} (volume {row.get('volume', '')!r})."
                " Add the source, with its licence and citation, to the target's YAML file."
            )
    used = [(source, [row for row in rows if source.gave(row)]) for source in kind.sources]
    group = "image" if kind.group == "file" else kind.group
    return [
        counted(Source(source.name, source.licence, source.citation), len({row[kind.group] for row in given}), group)
        for source, given in used
        if given
    ]


def _read_slice(folder: Path, row: dict[str, str], target: Target, kind: Kind) -> Slice:
    image_path = folder / "images" / row["file"]
    mask_path = folder / "masks" / row.get("mask", row["file"])
    image = _read_picture(image_path)
    mask = _read_picture(mask_path) if kind.structures else np.zeros(image.shape[:2], np.uint8)
    if image.shape[:2] != mask.shape[:2]:
        raise DataError(
            f"{mask_path} has {_by(mask)} pixels, but its image has {_by(image)}: they must have the same size."
        )
    strange = set(np.flatnonzero(np.bincount(mask.ravel())).tolist()).difference(kind.values)
    if mask.ndim != 2 or strange:
        raise DataError(
            f"{mask_path} holds the value {max(strange, default=mask.max(initial=0))}; a mask must have one channel with the values"
            f" {', '.join(map(str, kind.values))}."
        )
    _check_image(image_path, image, target, kind)
    try:
        pixel_mm = kind.pixel_mm.known(row) or kind.pixel_mm.usual
        if pixel_mm is None:
            raise ValueError("it is empty")
    except (KeyError, ValueError) as error:
        reason = "there is no such column" if isinstance(error, KeyError) else error
        raise DataError(
            f"{folder / 'slices.csv'}: the pixel size of {row['file']} cannot be read from column {kind.pixel_mm.column!r} ({reason})."
        ) from error
    try:
        known = target.known(row, kind)
    except KeyError as error:
        raise DataError(
            f"{folder / 'slices.csv'} has no column {error}, which `unknown` of the target refers to."
        ) from error
    stored = mask.astype(np.uint8)  # a PNG with two values is read as bool
    masks, beside = target.masks(stored, kind), target.beside_in(stored, kind)
    item = Slice(row, row[kind.group], image, masks, pixel_mm, known, beside=beside)
    return item.in_window(kind.window_hu, target.window_hu)


def _check_image(image_path: Path, image: np.ndarray, target: Target, kind: Kind) -> None:
    channels = 1 if image.ndim == 2 else image.shape[2]
    is_16_bit = image.dtype == np.uint16
    fits = target.window_hu != kind.window_hu if is_16_bit else image.dtype == np.uint8
    if not fits or channels != kind.channels:
        hint = " For HU in 16 bits, give the target a window_hu of its own, other than that of its slices." * is_16_bit
        raise DataError(
            f"{image_path} has {channels} channel(s) of {image.dtype} instead of {kind.channels} of uint8, so it does not belong to"
            f" this target: check `target` and `data`.{hint}"
        )


def _by(array: np.ndarray) -> str:
    return f"{array.shape[0]} × {array.shape[1]}"


def _read_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            is_16_bit = picture.mode.startswith("I")  # older versions of Pillow read 16 bits as 32
            return np.asarray(picture).astype(np.uint16) if is_16_bit else np.asarray(picture)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def to_network_grid(item: Slice, pixel_mm: float) -> tuple[Tensor, Tensor]:
    """Resample a slice to the network's pixel size in mm; with 0 it keeps its own.

    Returns:
        float32 image (channels, height, width) in 0…1, and its truth (labels, height, width), int8: 1 where a label covers at least half
        of a pixel, `UNKNOWN` where it would if it had what is unsure, else 0.
    """
    channels = torch.from_numpy(np.array(item.image)).reshape(*item.image.shape[:2], -1).permute(2, 0, 1)
    image = channels.float() / 255
    both = [item.mask] if item.unsure is None else [item.mask, item.mask | item.unsure]
    masks = [torch.from_numpy(each).float() for each in both]
    factor = item.pixel_mm / pixel_mm if pixel_mm else 1.0
    if abs(factor - 1) > 0.01:
        size = [max(1, round(n * factor)) for n in item.image.shape[:2]]
        image = onto_grid(image[None], size)[0].clamp_(0, 1)
        masks = [onto_grid(each[None], size)[0] for each in masks]
    mask, *possible = (each >= 0.5 for each in masks)
    truth = mask.to(torch.int8)
    return image, truth.masked_fill_(possible[0] & ~mask, UNKNOWN) if possible else truth


class SliceDataset(Dataset):
    """Slices at the network's pixel size. Items are asked for by (index, seed), so that the same draw gives the same patch everywhere.

    An item is an image (channels, height, width) in 0…1 and its truth (labels, height, width): 1, 0 or `UNKNOWN`.
    """

    def __init__(self, slices: list[Slice], pixel_mm: float, augment: Callable | None = None) -> None:
        self.slices = slices
        self.augment = augment
        self._cache = []
        for item in slices:
            image, truth = to_network_grid(item, pixel_mm)
            self._cache.append(((image * 255).round().byte(), truth))

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, draw: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, seed = draw if isinstance(draw, tuple) else (draw, 0)
        image, truth = (each.float() for each in self._cache[index])
        image = image / 255
        if self.augment:
            image, truth = self.augment(image, truth, seed)
        known = self.slices[index].known
        if known is not None:
            truth[torch.from_numpy(~known)] = UNKNOWN
        return image, truth
