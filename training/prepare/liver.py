#!/usr/bin/env python
"""Makes a slice folder of liver CT from LiTS or from Task03_Liver of the Medical Segmentation Decathlon.

    python training/prepare/liver.py Task03_Liver -o data/liver --flip image
    python training/prepare/liver.py LITS17 -o data/liver --flip image --split splits.csv

LiTS: volume-N.nii and segmentation-N.nii, in any folders. Decathlon: imagesTr/liver_N.nii.gz and labelsTr/.
Their headers are often wrong about right and left, front and back: the Decathlon is said to call the order of DICOM
(Left, Posterior) Right and Anterior, and volumes 28 to 47 of LiTS have an empty header. A header that the image contradicts
is refused, until --flip says what to do. With --flip image the image decides: the liver lies on the right, the spine behind
it, the lungs above it. What was turned is told and kept in notes.txt. Other organs, and other layouts: pairs.py.
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
SOURCE_SIZE = 512  # pixels of a slice, in every scan of both data sets; a stored pixel is the mean of 2 × 2
AS_SHOWN = {"as the image shows"}
ONE_PATIENT = range(7, 11)  # these volumes of LiTS are four scans of one patient
LITS_NAMES = {"image": r"volume-(\d+)\.nii(\.gz)?", "mask": r"segmentation-(\d+)\.nii(\.gz)?"}
DECATHLON_NAMES = {"image": r"imagesTr/liver_(\d+)\.nii(\.gz)?", "mask": r"labelsTr/liver_(\d+)\.nii(\.gz)?"}


@dataclass(frozen=True)
class Scan:
    """One scan and its truth."""

    number: int
    image: Path
    mask: Path

    @property
    def name(self) -> str:
        """As in the column `volume`."""
        return f"lits{self.number:03d}"

    @property
    def patient(self) -> str:
        """As in the column `patient`."""
        return f"P{ONE_PATIENT.start if self.number in ONE_PATIENT else self.number}"


def main(arguments: list[str] | None = None) -> int:
    """Prepare as the command line says; 0 done, 1 refused with one line on stderr."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--every",
        type=int,
        default=2,
        metavar="N",
        help="keep every N-th slice with liver (%(default)s), 2 N-th up to 12 N slices from it, 6 N-th beyond",
    )
    parser.add_argument(
        "--flip",
        action="append",
        default=[],
        metavar="[N=]AXES",
        help="turn scan N, or all, against its header: as the image shows (image), along si,ap,lr, or not at all (none)",
    )
    return run(prepare, parser, arguments)


def prepare(given: argparse.Namespace) -> None:
    """Make the folder.

    Raises:
        PrepareError: Something about the source, the splits or the folder is wrong.
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
    """All scans under a folder, each with its mask, by number.

    Raises:
        PrepareError: There is none, one is there twice, or an image or a mask lacks its partner.
    """
    found: dict[str, dict[int, Path]] = {"image": {}, "mask": {}}
    for path in sorted(source.rglob("*.nii*")):
        for kind, numbered in found.items():
            match = re.fullmatch(LITS_NAMES[kind], path.name)
            match = match or re.fullmatch(DECATHLON_NAMES[kind], f"{path.parent.name}/{path.name}")
            if match and numbered.setdefault(int(match[1]), path) != path:
                raise PrepareError(f"{numbered[int(match[1])]} and {path} have the same number: keep one of them.")
    images, masks = found["image"], found["mask"]
    if not images and not masks:
        raise PrepareError(
            f"{source} holds no volume-N.nii(.gz) with segmentation-N.nii(.gz), and no imagesTr/liver_N.nii.gz with"
            " labelsTr/liver_N.nii.gz: give the folder of the unpacked data set. For images and segmentations that are laid"
            " otherwise, such as case.nrrd with case.seg.nrrd, there is training/prepare/pairs.py."
        )
    for number in sorted(images.keys() ^ masks.keys()):
        path, lacking = (images[number], "mask") if number in images else (masks[number], "image")
        raise PrepareError(f"{path} has no {lacking}: add it, or take it away.")
    return [Scan(number, images[number], masks[number]) for number in sorted(images)]


def read_flips(texts: list[str], scans: list[Scan]) -> dict[int | None, set[str]]:
    """The axes to turn by scan number, or `AS_SHOWN`; under None, those of all other scans."""
    flips: dict[int | None, set[str]] = {}
    for text in texts:
        number, _, axes = text.rpartition("=")
        chosen = {"none": set(), "image": AS_SHOWN}.get(axes, set(axes.split(",")))
        if not chosen <= {*AXES, *AS_SHOWN}:
            raise PrepareError(
                f"--flip {text}: the axes must be of {', '.join(AXES)}, with commas between, or it is image or none."
            )
        if number and number not in {str(scan.number) for scan in scans}:
            raise PrepareError(f"--flip {text}: there is no scan {number} in the source.")
        flips[int(number) if number else None] = chosen
    return flips


def add_scan(folder: SliceFolder, scan: Scan, split: str, every: int, flip: set[str] | None) -> None:
    """Read one scan and add its slices to the folder; `flip` as of `turned`."""
    volume = _read(scan.image)
    try:
        check_ct(volume)
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
        # Averaged after the window has clipped it, as in the folders the networks were trained on.
        folder.add(row, area_average(to_8_bit(hu[k], LIVER_WINDOW_HU), SOURCE_SIZE // 2), mask)


def matching_labels(scan: Scan, hu: np.ndarray, volume: Volume, mask: Volume, notes: list[str]) -> np.ndarray:
    """The mask in training order, voxel on voxel with the image.

    Where the two headers place them apart, they are taken to hold the scan in one order, if that lays the mask on soft
    tissue.

    Args:
        scan: To name the files.
        hu: The image in training order.
        volume: The image as read.
        mask: The mask as read.
        notes: Grows by what was found odd.

    Returns:
        uint8, 0 background, 1 liver, 2 tumour, of the shape of `hu`.
    """
    least, most = mask.array.min(), mask.array.max()
    if not (least >= 0 and most <= 2) or (mask.array.dtype.kind == "f" and (mask.array % 1).any()):
        raise PrepareError(
            f"{scan.mask} holds values from {least:g} to {most:g}; labels must be 0 background, 1 liver, 2 tumour."
        )
    apart = not np.allclose(_bounds_mm(volume), _bounds_mm(mask), atol=volume.spacing_mm.min() / 2)
    labels = axial_order(volume if apart else mask).apply(mask.array).astype(np.uint8, copy=False)
    if labels.shape != hu.shape:
        raise PrepareError(f"{scan.mask} has {_by(labels)} voxels, its image {_by(hu)}: sizes must be equal.")
    if hu.shape[1:] != (SOURCE_SIZE, SOURCE_SIZE):
        raise PrepareError(f"{scan.image} has {_by(hu)} voxels; its slices must be {SOURCE_SIZE} × {SOURCE_SIZE}.")
    share = share_of_soft_tissue(hu, labels > 0)
    if share < (0.99 if apart else 0.9):
        raise PrepareError(
            f"{scan.mask} does not lie on the liver of its image: {share:.1%} of it are soft tissue"
            f"{', and the headers of the two place them apart' if apart else ''}. Correct them, or leave the scan out."
        )
    if apart:
        notes.append("the headers of image and mask place them apart; the mask was laid on the image voxel by voxel.")
    return labels


def turned(
    scan: Scan, hu: np.ndarray, labels: np.ndarray, flip: set[str] | None, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask the right way round.

    Args:
        scan: To name the files.
        hu, labels: In training order, as the header says.
        flip: The axes to turn; `AS_SHOWN`: what the image shows; None: none, and a header that the image contradicts is refused.
        notes: Grows by what was found odd.

    Raises:
        PrepareError: Nobody said what to do about a wrong header, or the image shows only a part of what is wrong.
    """
    wrong, unclear = wrong_axes(hu, labels > 0)
    if flip is None and wrong:
        raise PrepareError(
            f"{scan.image}: by the image its header is wrong about {_listed(wrong)}, if what is marked is a liver: look at it, and"
            f" add --flip image to turn what the image shows, or --flip {scan.number}=none to keep to the header."
        )
    if flip == AS_SHOWN:
        if wrong & {"ap", "lr"} and unclear & {"ap", "lr"}:  # one turned without the other may make a mirror image
            raise PrepareError(
                f"{scan.image}: by the image its header is wrong about {_listed(wrong)}, but {_listed(unclear)} cannot"
                f" be told: look at it, and add --flip {scan.number}=lr,ap or what else is right."
            )
        if wrong:
            notes.append(f"the header is wrong about {_listed(wrong)}, as the image shows; turned.")
    if flip in (None, AS_SHOWN):
        if unclear:
            notes.append(f"the image does not show which way {_listed(unclear)} runs; taken from the header.")
        flip = wrong
    elif contradicted := wrong ^ (flip - unclear):
        notes.append(f"the image contradicts --flip about {_listed(contradicted)}: look at the slices.")
    axes = tuple(AXES.index(axis) for axis in flip)
    return np.flip(hu, axes), np.flip(labels, axes)


def halved_labels(labels: np.ndarray) -> np.ndarray:
    """Labels of half as many rows and columns: liver where half of the 2 × 2 is, tumour where half of that liver is."""
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
    """The box round a volume's voxel centres in RAS, 2 × 3."""
    last = np.array(volume.array.shape[::-1]) - 1
    corners = np.array(np.meshgrid(*([0, end] for end in last))).reshape(3, -1)
    ras = volume.ijk_to_ras[:3, :3] @ corners + volume.ijk_to_ras[:3, 3:]
    return np.stack([ras.min(axis=1), ras.max(axis=1)])


def _sizes(spacing_mm: tuple[float, float, float]) -> dict[str, object]:
    """Columns on the size of a voxel; a header of 1 × 1 × 1 mm is one that was never filled in."""
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
