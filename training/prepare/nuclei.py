#!/usr/bin/env python
"""Makes a slice folder of cell nuclei from stage1_train of the Data Science Bowl 2018 (BBBC038).

    python training/prepare/nuclei.py stage1_train -o data/nuclei --val 0.1 --test 0.2

The source has a folder for each image: the image is ID/images/ID.png, and each nucleus has a mask in ID/masks/*.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import slicefolder
from slicefolder import PrepareError, SliceFolder

COLUMNS = ("file", "split", "source_width", "source_height", "nuclei_px")
SIZE = 128  # pixels, both ways
NAME_LENGTH = 16  # of the 64 characters of an ID: enough to tell images apart


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; returns 0, or 1 after printing the reason to stderr."""
    return slicefolder.run(prepare, slicefolder.parser_of(__doc__), arguments)


def prepare(given: argparse.Namespace) -> None:
    """Make the folder.

    Raises:
        PrepareError: The source, the splits or the output folder cannot be used.
    """
    pictures = find_pictures(given.source)
    split_of = slicefolder.assign_splits([_name(image) for image in pictures], given)
    with SliceFolder(given.output, COLUMNS, given.force) as folder:
        for image, masks in pictures.items():
            rgb = slicefolder.read_rgb(image)
            nuclei = np.logical_or.reduce([slicefolder.read_mask(mask, rgb) for mask in masks])
            nuclei = slicefolder.area_majority(nuclei, SIZE)
            row = {
                "file": f"{_name(image)}.png",
                "split": split_of[_name(image)],
                "source_width": rgb.shape[1],
                "source_height": rgb.shape[0],
                "nuclei_px": nuclei.sum(),
            }
            folder.add(row, slicefolder.area_average(rgb, SIZE), nuclei)


def find_pictures(source: Path) -> dict[Path, list[Path]]:
    """Each image under a folder, with the masks of its nuclei.

    Raises:
        PrepareError: There are no images, or an image has no masks or masks have no image.
    """
    folders = {path.parent.parent for path in source.rglob("*.png") if path.parent.name in ("images", "masks")}
    if not folders:
        raise PrepareError(f"{source} holds no ID/images/*.png with ID/masks/*.png: give the unpacked stage1_train.")
    found = {}
    for folder in sorted(folders):
        images, masks = (sorted((folder / kind).glob("*.png")) for kind in ("images", "masks"))
        if len(images) != 1:
            raise PrepareError(f"{folder / 'images'} holds {len(images)} PNG images; it must hold exactly one.")
        if not masks:
            raise PrepareError(f"{images[0]} has no mask in {folder / 'masks'}: add the masks, or remove the image.")
        found[images[0]] = masks
    return found


def _name(image: Path) -> str:
    return image.stem[:NAME_LENGTH]


if __name__ == "__main__":
    sys.exit(main())
