#!/usr/bin/env python
"""Makes a slice folder of liver CT from LiTS or from Task03_Liver of the Medical Segmentation Decathlon.

    python training/prepare/liver.py Task03_Liver -o data/liver --flip image
    python training/prepare/liver.py LITS17 -o data/liver --flip image --split splits.csv

LiTS has volume-N.nii and segmentation-N.nii, in any folders; the Decathlon has imagesTr/liver_N.nii.gz and labelsTr/.
Their headers often confuse right and left, or front and back: the Decathlon is said to label DICOM's order (Left, Posterior)
as Right and Anterior, and volumes 28 to 47 of LiTS have an empty header. A scan whose image contradicts its header is refused
until --flip says what to do. With --flip image the image decides: the liver lies on the right, the spine behind it, the lungs
above it. Flipped axes are printed and kept in notes.txt. For other organs and other layouts, use pairs.py.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatomy import AXES, share_of_soft_tissue, wrong_axes
from slicefolder import (
    LIVER_WINDOW_HU,
    PrepareError,
    SliceFolder,
    area_average,
    assign_splits,
    chosen_slices,
    parser_of,
    run,
    to_8_bit,
)
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, axial_order, check_ct, clean_hu
from UNetPlusPlusSegmentLib.files import FileError, read_volume

COLUMNS = [
    "file", "volume", "patient", "slice", "split", "source_pixel_mm", "source_slice_mm", "size_from", "liver_px",
    "tumour_px",
]  # fmt: skip
SOURCE_SIZE = 512  # rows and columns of every scan in both data sets; a stored pixel is the mean of 2 × 2
AS_SHOWN = {"as the image shows"}
# Volumes of LiTS that show one patient, by the number that the patient gets.
SAME_PATIENT = {0: {0, 1}, 7: {6, 7, 8, 9, 10}, 14: {14, 15}, 18: {17, 18}, 19: {19, 20}, 26: {26, 27}}
LITS_NAMES = {"image": r"volume-(\d+)\.nii(\.gz)?", "mask": r"segmentation-(\d+)\.nii(\.gz)?"}
DECATHLON_NAMES = {"image": r"imagesTr/liver_(\d+)\.nii(\.gz)?", "mask": r"labelsTr/liver_(\d+)\.nii(\.gz)?"}


@dataclass(frozen=True)
class Scan:
    """One scan and its mask."""

    number: int
    image: Path
    mask: Path

    @property
    def name(self) -> str:
        """Its name in the column `volume`."""
        return f"lits{self.number:03d}"

    @property
    def patient(self) -> str:
        """Its patient in the column `patient`."""
        return f"P{next((patient for patient, scans in SAME_PATIENT.items() if self.number in scans), self.number)}"


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; returns 0, or 1 after printing the reason to stderr."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--every",
        type=int,
        default=2,
        metavar="N",
        help="keep every N-th slice with liver (%(default)s), every 2 N-th up to 12 N slices from it, every 6 N-th beyond",
    )
    parser.add_argument(
        "--flip",
        action="append",
        default=[],
        metavar="[N=]AXES",
        help="correct the orientation of scan N, or of all: as the image shows (image), by flipping si, ap or lr, or not at all (none)",
    )
    return run(prepare, parser, arguments)


def prepare(given: argparse.Namespace) -> None:
    """Make the folder.

    Raises:
        PrepareError: The source, the splits or the output folder cannot be used.
    """
    if given.every < 1:
        raise PrepareError(f"--every {given.every} must be 1 or more.")
    scans = find_scans(given.source)
    flips = read_flips(given.flip, scans)
    split_of = assign_splits([scan.patient for scan in scans], given)
    with SliceFolder(given.output, COLUMNS, given.force) as folder:
        for done, scan in enumerate(scans, 1):
            before = len(folder.rows)
            add_scan(folder, scan, split_of[scan.patient], given.every, flips.get(scan.number, flips.get(None)))
            print(f"{scan.name}: {len(folder.rows) - before} slices ({done} of {len(scans)} scans)", file=sys.stderr)


def find_scans(source: Path) -> list[Scan]:
    """All scans under a folder, each with its mask, sorted by number.

    Raises:
        PrepareError: There are no scans, two have the same number, or an image has no mask or a mask no image.
    """
    found: dict[str, dict[int, Path]] = {"image": {}, "mask": {}}
    for path in sorted(source.rglob("*.nii*")):
        for kind, numbered in found.items():
            match = re.fullmatch(LITS_NAMES[kind], path.name)
            match = match or re.fullmatch(DECATHLON_NAMES[kind], f"{path.parent.name}/{path.name}")
            if match and numbered.setdefault(int(match[1]), path) != path:
                raise PrepareError(f"{numbered[int(match[1])]} and {path} have the same number: remove one of them.")
    images, masks = found["image"], found["mask"]
    if not images and not masks:
        raise PrepareError(
            f"{source} holds no volume-N.nii(.gz) with segmentation-N.nii(.gz), and no imagesTr/liver_N.nii.gz with"
            " labelsTr/liver_N.nii.gz: give the folder of the unpacked data set. For other layouts, such as case.nrrd with"
            " case.seg.nrrd, use training/prepare/pairs.py."
        )
    for number in sorted(images.keys() ^ masks.keys()):
        path, lacking = (images[number], "mask") if number in images else (masks[number], "image")
        raise PrepareError(f"{path} has no {lacking}: add the {lacking}, or remove the file.")
    return [Scan(number, images[number], masks[number]) for number in sorted(images)]


def read_flips(texts: list[str], scans: list[Scan]) -> dict[int | None, set[str]]:
    """The axes to flip, or `AS_SHOWN`, by scan number; None stands for all other scans."""
    flips: dict[int | None, set[str]] = {}
    for text in texts:
        number, _, axes = text.rpartition("=")
        chosen = {"none": set(), "image": AS_SHOWN}.get(axes, set(axes.split(",")))
        if not chosen <= {*AXES, *AS_SHOWN}:
            raise PrepareError(
                f"--flip {text}: give image, none, or axes out of {', '.join(AXES)}, separated by commas."
            )
        if number and number not in {str(scan.number) for scan in scans}:
            raise PrepareError(f"--flip {text}: there is no scan {number} in the source.")
        flips[int(number) if number else None] = chosen
    return flips


def add_scan(folder: SliceFolder, scan: Scan, split: str, every: int, flip: set[str] | None) -> None:
    """Read one scan and add its slices to the folder; `flip` as in `turned`."""
    volume = _read(scan.image)
    try:
        check_ct(volume, hint="")
    except VolumeError as error:
        raise PrepareError(f"{scan.image}: {error}") from error
    order = axial_order(volume)
    hu, odd = clean_hu(order.apply(volume.array))
    notes = [*map(str, odd)]
    labels = matching_labels(scan, hu, volume, _read(scan.mask), notes)
    hu, labels = turned(scan, hu, labels, flip, notes)
    for note in notes:
        folder.note(f"{scan.name}: {note}")
    for k in chosen_slices(np.any(labels > 0, axis=(1, 2)), every):
        mask = halved_labels(labels[k])
        row = {
            "file": f"{scan.name}_{k:04d}.png",
            "volume": scan.name,
            "patient": scan.patient,
            "slice": k,
            "split": split,
            **_sizes(order.spacing_mm),
            "liver_px": (mask > 0).sum(),
            "tumour_px": (mask == 2).sum(),
        }
        # Averaged after clipping to the window, as in the folders on which the networks were trained.
        folder.add(row, area_average(to_8_bit(hu[k], LIVER_WINDOW_HU), SOURCE_SIZE // 2), mask)


def matching_labels(scan: Scan, hu: np.ndarray, volume: Volume, mask: Volume, notes: list[str]) -> np.ndarray:
    """The mask in training order, on the image's voxels.

    If the two headers disagree about the position, image and mask are assumed to store their voxels in the same order,
    provided that this puts the mask on soft tissue.

    Args:
        scan: For the file names in messages.
        hu: The image in training order.
        volume: The image as read.
        mask: The mask as read.
        notes: A note is appended if the headers disagree.

    Returns:
        uint8 with the shape of `hu`: 0 background, 1 liver, 2 tumour.

    Raises:
        PrepareError: The mask has other values or another size, or does not lie on the liver.
    """
    least, most = mask.array.min(), mask.array.max()
    if not (least >= 0 and most <= 2) or (mask.array.dtype.kind == "f" and (mask.array % 1).any()):
        raise PrepareError(
            f"{scan.mask} holds values from {least:g} to {most:g}; they must be 0 (background), 1 (liver) and 2 (tumour)."
        )
    apart = not np.allclose(_bounds_mm(volume), _bounds_mm(mask), atol=volume.spacing_mm.min() / 2)
    labels = axial_order(volume if apart else mask).apply(mask.array).astype(np.uint8, copy=False)
    if labels.shape != hu.shape:
        raise PrepareError(
            f"{scan.mask} has {_by(labels)} voxels, but its image has {_by(hu)}: they must have the same size."
        )
    if hu.shape[1:] != (SOURCE_SIZE, SOURCE_SIZE):
        raise PrepareError(f"{scan.image} has {_by(hu)} voxels; its slices must be {SOURCE_SIZE} × {SOURCE_SIZE}.")
    share = share_of_soft_tissue(hu, labels > 0)
    if share < (0.99 if apart else 0.9):
        raise PrepareError(
            f"{scan.mask} does not lie on the liver of its image: only {share:.1%} of it is soft tissue"
            f"{', and the headers of the two disagree about the position' if apart else ''}. Correct the files, or remove the scan."
        )
    if apart:
        notes.append(
            "the headers of image and mask disagree about the position; the mask was laid on the image voxel by voxel."
        )
    return labels


def turned(
    scan: Scan, hu: np.ndarray, labels: np.ndarray, flip: set[str] | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask, flipped to the right orientation.

    Args:
        scan: For the file names in messages.
        hu, labels: In training order according to the header.
        flip: The axes to flip; `AS_SHOWN`: those that are wrong in the image; None: none, and a header that the image
            contradicts is refused.
        notes: A note is appended about whatever was flipped or is uncertain.

    Raises:
        PrepareError: The header is wrong and `flip` is None, or the image shows only a part of what is wrong.
    """
    wrong, unclear = wrong_axes(hu, labels > 0)
    if flip is None and wrong:
        raise PrepareError(
            f"{scan.image}: its header is wrong about {_listed(wrong)}, if what is marked is a liver. Look at the scan, then"
            f" add --flip image to follow the image, or --flip {scan.number}=none to follow the header."
        )
    if flip == AS_SHOWN:
        if wrong & {"ap", "lr"} and unclear & {"ap", "lr"}:  # flipping only one of them may give a mirror image
            raise PrepareError(
                f"{scan.image}: its header is wrong about {_listed(wrong)}, but the image does not show whether {_listed(unclear)}"
                f" is right. Look at the scan, then name all axes to flip, for example --flip {scan.number}=lr,ap."
            )
        if wrong:
            notes.append(f"the header is wrong about {_listed(wrong)}, as the image shows; flipped.")
    if flip in (None, AS_SHOWN):
        if unclear:
            notes.append(f"the image does not show which way {_listed(unclear)} runs; the header was followed.")
        flip = wrong
    elif contradicted := wrong ^ (flip - unclear):
        notes.append(f"the image contradicts --flip about {_listed(contradicted)}: look at the slices.")
    axes = tuple(AXES.index(axis) for axis in flip)
    return np.flip(hu, axes), np.flip(labels, axes)


def halved_labels(labels: np.ndarray) -> np.ndarray:
    """Labels at half the rows and columns: liver where at least half of the 2 × 2 pixels are liver (tumour included), and tumour
    where at least half of those are tumour.
    """
    cells = labels.reshape(labels.shape[0] // 2, 2, labels.shape[1] // 2, 2)
    liver, tumour = (cells > 0).sum(axis=(1, 3)), (cells == 2).sum(axis=(1, 3))
    return np.where(liver >= 2, np.where(2 * tumour >= liver, 2, 1), 0).astype(np.uint8)


def _read(path: Path) -> Volume:
    try:
        return read_volume(path)[0]
    except FileError as error:  # names the file
        raise PrepareError(str(error)) from error
    except VolumeError as error:
        raise PrepareError(f"{path}: {error}") from error


def _bounds_mm(volume: Volume) -> np.ndarray:
    """The bounding box of a volume's voxel centres: (2, 3), lowest and highest R, A, S in mm."""
    last = np.array(volume.array.shape[::-1]) - 1
    corners = np.array(np.meshgrid(*([0, end] for end in last))).reshape(3, -1)
    ras = volume.ijk_to_ras[:3, :3] @ corners + volume.ijk_to_ras[:3, 3:]
    return np.stack([ras.min(axis=1), ras.max(axis=1)])


def _sizes(spacing_mm: tuple[float, float, float]) -> dict[str, object]:
    """The columns with the voxel size; a header of 1 × 1 × 1 mm was never filled in, so the size is unknown."""
    known = any(abs(size - 1) > 1e-6 for size in spacing_mm)
    return {
        "source_pixel_mm": round(spacing_mm[2], 4) if known else "",
        "source_slice_mm": round(spacing_mm[0], 2) if known else "",
        "size_from": "header" if known else "",
    }


def _by(array: np.ndarray) -> str:
    return " × ".join(map(str, array.shape))


def _listed(axes: set[str]) -> str:
    return ", ".join(axis for axis in AXES if axis in axes)


if __name__ == "__main__":
    sys.exit(main())
