"""Reads a pair of CT and segmentation, and cuts it into slices as they are stored: their choice, the size of their pixels, their values."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pairs_target import HU_16_BIT
from slicefolder import PrepareError, chosen_slices, to_8_bit
from UNetPlusPlusSegmentLib.core.volume import Volume, axial_order, check_ct, clean_hu
from UNetPlusPlusSegmentLib.files import read_volume
from UNetPlusPlusSegmentLib.files.pairs import Pair, Wanted, names_in_words
from UNetPlusPlusSegmentLib.files.segmentations import Stored, check_orientation, masks_of

SQUARE = 0.01  # relative difference in size up to which pixels are not resampled
APART_MM = 2.0  # distance of the kept slices; closer ones look alike


@dataclass(frozen=True)
class StoredSlice:
    """One slice as it is stored: its number in the scan, its image (uint8 or uint16) and mask, and the side of their pixels."""

    number: int
    image: np.ndarray
    mask: np.ndarray
    pixel_mm: float


@dataclass(frozen=True)
class Scan:
    """One case as read.

    Attributes:
        hu, labels: (slices, rows, columns) in training order; in `labels`, 0 is background and 1 the first label.
        spacing_mm: Spacing of slices, rows and columns.
        notes: What was unusual about the case.
    """

    hu: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]
    notes: tuple[str, ...]


def read_scan(pair: Pair, parts: dict[str, list[Stored]], wanted: Sequence[Wanted]) -> Scan:
    """Read an image and its labels.

    Raises:
        PrepareError: A label is missing, all labels are empty, or two of them overlap.
        FileError, VolumeError: A file cannot be read, is not a CT, gives no orientation, or has other voxels than the image.
    """
    missing = [each.name for each in wanted if not parts[each.name]]
    if missing:
        raise PrepareError(f"it has no segment {missing[0]}; it has {names_in_words(pair.segments)}.")
    volume, notes = read_volume(pair.image, pair.series)
    check_orientation(pair.image, notes)
    notes += map(str, check_ct(volume, hint=""))
    labels = _labels(volume, parts, wanted)
    counts = np.bincount(labels.ravel(), minlength=len(wanted) + 1)[1:]
    empty = [each.name for each, count in zip(wanted, counts, strict=True) if not count]
    if len(empty) == len(wanted):
        first = parts[empty[0]][0]
        value = f": {first.path.name} has no voxel of value {first.values[0]}" if first.values else ""
        raise PrepareError(f"its segment {' and '.join(empty)} is empty{value}.")
    if empty:
        notes.append(f"{', '.join(empty)} has no marked voxel, so it counts as absent.")
    order = axial_order(volume)
    hu, odd = clean_hu(order.apply(volume.array))
    return Scan(hu, order.apply(labels), order.spacing_mm, (*notes, *map(str, odd)))


def slices_of(scan: Scan, given: argparse.Namespace) -> list[StoredSlice]:
    """The slices of a case that are kept, as they are stored.

    Raises:
        PrepareError: The pixels are larger than the slices.
    """
    slice_mm, row_mm, column_mm = scan.spacing_mm
    pixel_mm = given.pixel or min(row_mm, column_mm)
    side_mm = min(scan.hu.shape[1] * row_mm, scan.hu.shape[2] * column_mm)
    if pixel_mm > side_mm:
        raise PrepareError(f"--pixel {pixel_mm:g} is larger than its slices, {side_mm:.4g} mm: give a smaller one.")
    every = given.every or max(1, round(APART_MM / slice_mm))
    # Chosen by what is stored: coarse pixels may leave nothing of an outline that the scan shows.
    masks = [to_pixels(plane, (row_mm, column_mm), pixel_mm) for plane in scan.labels]
    areas = [np.bincount(mask.ravel(), minlength=scan.labels.max() + 1)[1:] for mask in masks]
    slices = []
    for k in chosen_slices(np.stack(areas, axis=1), every):
        # Clipped before pixels are averaged, as for the network.
        hu = scan.hu[k].astype(np.float32).clip(*(given.window or HU_16_BIT))
        image = to_pixels(hu, (row_mm, column_mm), pixel_mm)
        stored = to_8_bit(image, given.window) if given.window else to_16_bit(image)
        slices.append(StoredSlice(k, stored, masks[k], pixel_mm))
    return slices


def lost_labels(scan: Scan, slices: Sequence[StoredSlice], wanted: Sequence[Wanted]) -> list[str]:
    """A note about the labels that have voxels in a scan and no pixel in its slices, if there are any.

    Of a label with a pixel on any slice one is kept (`chosen_slices`), so such labels fill half of no pixel of the whole scan.

    Raises:
        PrepareError: No pixel of any label is left.
    """
    stored = {int(value) for each in slices for value in np.unique(each.mask)}
    lost_values = {*np.unique(scan.labels).tolist()} - stored - {0}
    if not lost_values:
        return []
    names = " and ".join(wanted[value - 1].name for value in sorted(lost_values))
    lost = f"{names} fills half of no pixel of {slices[0].pixel_mm:g} mm"
    if not stored - {0}:
        raise PrepareError(f"{lost}, so nothing is left of it: give a smaller --pixel.")
    return [f"{lost}, so it counts as absent: give a smaller --pixel to keep it."]


def to_pixels(plane: np.ndarray, spacing_mm: tuple[float, float], pixel_mm: float) -> np.ndarray:
    """Resample a slice to square pixels about the same centre; pixels that would reach beyond the slice are left out.

    Args:
        plane: (rows, columns) of HU (float32), or of labels (uint8): a new pixel is marked if at least half of its area is, with
            the label that has the largest share.
        spacing_mm: Spacing of rows and columns.
        pixel_mm: Side of the new pixels; if the old ones have that size, `plane` is returned unchanged.
    """
    step = np.array([pixel_mm / mm for mm in spacing_mm])  # side of a new pixel, in old pixels
    if (np.abs(step - 1) < SQUARE).all():
        return plane
    if plane.dtype == np.uint8:
        values = np.arange(1, plane.max(initial=0) + 1)
        if not len(values):
            return np.zeros(_size(plane, step), np.uint8)
        shares = np.stack([to_pixels((plane == value).astype(np.float32), spacing_mm, pixel_mm) for value in values])
        return np.where(shares.sum(axis=0) >= 0.5, values[shares.argmax(axis=0)], 0).astype(np.uint8)
    size = _size(plane, step)
    top, left = (np.array(plane.shape) - size * step) / 2
    bottom, right = np.array(plane.shape) - (top, left)
    picture = Image.fromarray(plane).resize(
        (size[1], size[0]), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
    )
    return np.asarray(picture)


def to_16_bit(hu: np.ndarray) -> np.ndarray:
    """HU, rounded to whole numbers, as uint16: all values that a CT can have fit."""
    return np.rint(hu - HU_16_BIT[0]).astype(np.uint16)


def _size(plane: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.maximum(1, np.floor(np.array(plane.shape) / step + 1e-6)).astype(int)


def _labels(volume: Volume, parts: dict[str, list[Stored]], wanted: Sequence[Wanted]) -> np.ndarray:
    """uint8 (K, J, I): the number of each voxel's label, from 1 in the order of `wanted`; 0 is background."""
    labels = np.zeros(volume.array.shape, np.uint8)
    masks = masks_of([segment for each in wanted for segment in parts[each.name]], volume)
    for number, each in enumerate(wanted, 1):
        mask = np.logical_or.reduce([next(masks) for _ in parts[each.name]])
        shared = labels[mask]
        if shared.any():
            other = wanted[int(shared.max()) - 1].name
            raise PrepareError(
                f"{other} and {each.name} overlap in {np.count_nonzero(shared)} voxels, but a voxel can have only one label:"
                " subtract one from the other, for example with Logical operators in the Segment Editor."
            )
        labels[mask] = number
    return labels
