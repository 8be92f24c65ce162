"""Vessels full of contrast medium: what they are told from nodules by, on digital tubes and balls and on LIDC-IDRI's nodules."""

from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from UNetPlusPlusSegmentLib.nodule_targets import Nodule
from UNetPlusPlusSegmentLib.regions import bounding_box
from UNetPlusPlusSegmentLib.vessels import Vessels

LUNG, TISSUE, CONTRAST = -850, 30, 300
KK, JJ, II = np.indices((30, 60, 60))
BALL = (KK - 15) ** 2 + (JJ - 30) ** 2 + (II - 30) ** 2 <= 5**2
TUBE = (JJ - 30) ** 2 + (II - 30) ** 2 <= 3**2  # through all slices


def chest(**hu: np.ndarray) -> np.ndarray:
    """Lung, with masks by what fills them."""
    volume = np.full(KK.shape, LUNG, np.int16)
    for what, mask in hu.items():
        volume[mask] = {"tissue": TISSUE, "contrast": CONTRAST}[what]
    return volume


def taken(mask: np.ndarray) -> Nodule:
    box = bounding_box(mask)
    return Nodule(box, mask[box])


def are_vessel(hu: np.ndarray, mask: np.ndarray) -> bool:
    return Vessels(hu, np.ones(hu.shape, bool)).hold(taken(mask))


def test_a_piece_of_a_vessel_full_of_contrast_medium_is_one():
    assert are_vessel(chest(contrast=TUBE), TUBE & (abs(KK - 15) < 4))


def test_a_calcified_nodule_is_none():
    assert not are_vessel(chest(contrast=BALL), BALL)


def test_a_nodule_of_soft_tissue_that_a_bright_vessel_enters_is_none():
    assert not are_vessel(chest(tissue=BALL, contrast=TUBE & (KK < 12)), BALL)


def test_without_contrast_medium_nothing_is():
    assert not are_vessel(chest(tissue=TUBE), TUBE & (abs(KK - 15) < 4))


def test_what_is_bright_outside_the_box_of_the_lungs_does_not_count():
    hu = chest(contrast=TUBE)
    around = abs(KK - 15) < 4
    assert not Vessels(hu, around).hold(taken(TUBE & around))
    assert not Vessels(hu, np.zeros(hu.shape, bool)).hold(taken(TUBE))


@pytest.mark.parametrize(
    ("split", "nodules", "most"), [("val", 108, 2), pytest.param("train", 782, 3, marks=pytest.mark.slow)]
)
def test_hardly_any_nodule_that_two_readers_marked_is_taken_for_a_vessel(shared_data, split, nodules, most):
    folder = shared_data("nodule")
    files = defaultdict(list)
    with (folder / "slices.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                files[row["patient"], row["nodule"]].append(row["file"])
    masks = {key: stacked(folder / "masks", names) >= 2 for key, names in files.items()}
    held = [
        key
        for key, mask in masks.items()
        if mask.any() and are_vessel(stacked(folder / "images", files[key]) / 255 * 1400 - 1000, mask)
    ]
    assert sum(mask.any() for mask in masks.values()) == nodules
    assert len(held) <= most, held


def stacked(folder, names: list[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name)) for name in sorted(names)])
