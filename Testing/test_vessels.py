"""Vessels: what they are told from nodules by, on digital tubes and balls and on LIDC-IDRI's nodules."""

from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from UNetPlusPlusSegmentLib.core.volume import Volume, bounding_box
from UNetPlusPlusSegmentLib.nodule.candidates import Nodule
from UNetPlusPlusSegmentLib.nodule.vessel_rejection import Vessels, continues_as_vessel

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
    return Vessels(hu, np.ones(hu.shape, bool)).contain(taken(mask))


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
    assert not Vessels(hu, around).contain(taken(TUBE & around))
    assert not Vessels(hu, np.zeros(hu.shape, bool)).contain(taken(TUBE))


def as_volume(hu: np.ndarray, spacing_mm=(1.0, 1.0, 1.0)) -> Volume:
    """Of slices, rows and columns so far apart."""
    slice_mm, row_mm, column_mm = spacing_mm
    return Volume(hu.astype(np.float32), np.diag([-column_mm, -row_mm, slice_mm, 1]))


@pytest.mark.parametrize("filled", ["tissue", "contrast"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_piece_of_a_vessel_continues_whichever_way_it_runs(filled, axes):
    hu, piece = chest(**{filled: TUBE}).transpose(axes), (TUBE & (abs(KK - 15) < 4)).transpose(axes)
    assert continues_as_vessel(taken(piece), as_volume(hu), np.ones(hu.shape, bool))


@pytest.mark.parametrize("slice_mm", [0.6, 2.5, 6.0])
def test_it_continues_through_thin_and_thick_slices(slice_mm):
    spacing_mm = (slice_mm, 0.7, 0.7)
    piece = TUBE & (abs(KK - 15) * slice_mm < 4)
    assert continues_as_vessel(taken(piece), as_volume(chest(tissue=TUBE), spacing_mm), np.ones(KK.shape, bool))
    assert not continues_as_vessel(taken(piece), as_volume(chest(tissue=piece), spacing_mm), np.ones(KK.shape, bool))


def test_of_ground_glass_it_is_not_said():
    hu = np.random.default_rng(0).normal(-720, 40, KK.shape)
    assert not continues_as_vessel(taken(BALL), as_volume(np.where(BALL, hu + 120, hu)), np.ones(KK.shape, bool))


def test_a_nodule_does_not_go_on_alone_or_where_a_thin_vessel_passes_through_it():
    thin = (JJ - 30) ** 2 + (II - 30) ** 2 <= 1
    for hu in (chest(tissue=BALL), chest(tissue=BALL | thin)):
        assert not continues_as_vessel(taken(BALL), as_volume(hu), np.ones(hu.shape, bool))


def test_a_nodule_at_the_wall_of_the_lungs_does_not_go_on_into_it():
    wall = JJ > 32
    for thought in (wall, JJ > 34):  # the lungs are known to 2 mm or so
        assert not continues_as_vessel(taken(BALL & ~wall), as_volume(chest(tissue=BALL | wall)), ~thought)


def test_a_nodule_at_a_corner_of_the_volume_is_looked_at_as_far_as_it_is_there():
    for corner in ((KK < 4) & (JJ < 4) & (II < 4), (KK > 25) & (JJ > 55) & (II > 55)):
        assert not continues_as_vessel(taken(corner), as_volume(chest(tissue=corner)), np.ones(KK.shape, bool))


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


@pytest.mark.parametrize(("split", "most"), [("val", 0.02), pytest.param("train", 0.025, marks=pytest.mark.slow)])
def test_few_nodules_that_two_readers_marked_go_on_in_their_slices(shared_data, split, most):
    folder = shared_data("nodule")
    files, pixel_mm = defaultdict(list), {}
    with (folder / "slices.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                files[row["patient"], row["nodule"]].append(row["file"])
                pixel_mm[row["patient"], row["nodule"]] = float(row["pixel_mm"])
    held = []
    for key, names in files.items():
        mask, mm = stacked(folder / "masks", names) >= 2, pixel_mm[key]
        hu = stacked(folder / "images", names) / 255 * 1400 - 1000
        if mask.any():
            lungs = ~np.stack([wall(*each, mm) for each in zip(hu, mask, strict=True)])
            # How far apart the slices are is not known of the crops, nor what lies beyond the first and the last one.
            held.append(continues_as_vessel(taken(mask), as_volume(hu, (2.5, mm, mm)), lungs))
    assert np.mean(held) <= most


def wall(hu: np.ndarray, mask: np.ndarray, mm: float) -> np.ndarray:
    """What of a crop's slice is no lung: dense pieces of 300 mm² and more beside the nodule."""
    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray(((hu >= -450) & ~mask).view(np.uint8)))
    return sitk.GetArrayFromImage(sitk.RelabelComponent(pieces, minimumObjectSize=int(300 / mm**2))) > 0


def stacked(folder, names: list[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / name)) for name in sorted(names)])
