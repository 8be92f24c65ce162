#!/usr/bin/env python
"""Makes a slice folder of cell nuclei from the Data Science Bowl 2018 (BBBC038), its stage1_train.

    python training/prepare/nuclei.py stage1_train -o data/nuclei --val 0.1 --test 0.2

The source holds a folder for each image, ID/images/ID.png, with a mask for each nucleus, ID/masks/*.png.
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
NAME_LENGTH = 16  # of the 64 characters of an ID, enough to tell them apart


def main(arguments: list[str] | None = None) -> int:
    """Prepare as the command line says; 0 done, 1 refused with one line on stderr."""
    return slicefolder.run(prepare, slicefolder.parser_of(__doc__), arguments)


def prepare(given: argparse.Namespace) -> None:
    """Make the folder.

    Raises:
        PrepareError: Something about the source, the splits or the folder is wrong.
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
    """Each image under a folder with the masks of its nuclei.

    Raises:
        PrepareError: There is none, or an image or masks lack their partner.
    """
    folders = {path.parent.parent for path in source.rglob("*.png") if path.parent.name in ("images", "masks")}
    if not folders:
        raise PrepareError(f"{source} holds no ID/images/*.png with ID/masks/*.png: give the unpacked stage1_train.")
    found = {}
    for folder in sorted(folders):
        images, masks = (sorted((folder / kind).glob("*.png")) for kind in ("images", "masks"))
        if len(images) != 1:
            raise PrepareError(f"{folder / 'images'} holds {len(images)} PNG images; there must be one to the masks.")
        if not masks:
            raise PrepareError(f"{images[0]} has no mask in {folder / 'masks'}: add them, or take the image away.")
        found[images[0]] = masks
    return found


def _name(image: Path) -> str:
    return image.stem[:NAME_LENGTH]


if __name__ == "__main__":
    sys.exit(main())
