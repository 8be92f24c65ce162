#!/usr/bin/env python
"""Makes a slice folder of polyps in colonoscopy from Kvasir-SEG.

    python training/prepare/polyp.py Kvasir-SEG -o data/polyp --val 0.1 --test 0.1

The source holds images/NAME.jpg and masks/NAME.jpg. As JPEGs the masks are not quite black and white, so they are thresholded.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import slicefolder
from slicefolder import PrepareError, SliceFolder

COLUMNS = ("file", "mask", "split", "polyp_px")
SIZE = 256  # pixels, both ways


def main(arguments: list[str] | None = None) -> int:
    """Make the folder; returns 0, or 1 after printing the reason to stderr."""
    return slicefolder.run(prepare, slicefolder.parser_of(__doc__), arguments)


def prepare(given: argparse.Namespace) -> None:
    """Make the folder.

    Raises:
        PrepareError: The source, the splits or the output folder cannot be used.
    """
    pairs = find_pairs(given.source)
    split_of = slicefolder.assign_splits([image.stem for image, _ in pairs], given)
    with SliceFolder(given.output, COLUMNS, given.force) as folder:
        for image, mask in pairs:
            rgb = slicefolder.read_rgb(image)
            polyp = slicefolder.area_majority(slicefolder.read_mask(mask, rgb), SIZE)
            row = {
                "file": f"{image.stem}.jpg",
                "mask": f"{image.stem}.png",
                "split": split_of[image.stem],
                "polyp_px": polyp.sum(),
            }
            folder.add(row, slicefolder.area_average(rgb, SIZE), polyp)


def find_pairs(source: Path) -> list[tuple[Path, Path]]:
    """The images of a folder, each with the mask of the same name.

    Raises:
        PrepareError: There are no images, or an image has no mask or a mask no image.
    """
    images, masks = (
        {path.stem: path for path in sorted((source / kind).glob("*.jpg"))} for kind in ("images", "masks")
    )
    if not images and not masks:
        raise PrepareError(f"{source} holds no images/NAME.jpg with masks/NAME.jpg: give the unpacked Kvasir-SEG.")
    for name in sorted(images.keys() ^ masks.keys()):
        path, lacking = (images[name], "mask") if name in images else (masks[name], "image")
        raise PrepareError(f"{path} has no {lacking}: add the {lacking}, or remove the file.")
    return [(images[name], masks[name]) for name in images]


if __name__ == "__main__":
    sys.exit(main())
