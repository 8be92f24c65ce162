"""Lungs: in digital chests and in real ones, whole or cut, however they lie."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from UNetPlusPlusSegmentLib.core.masks import distance_mm
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.files import read_volume
from UNetPlusPlusSegmentLib.nodule import lungs as lib

AIR, LUNG, TISSUE, BONE, FOAM, PADDING = -1000, -850, 40, 400, -900, -3024
SPACING_MM = np.array([2.5, 1.6, 1.6])  # slices, rows, columns
SHAPE = (40, 160, 220)
TRAINING_STEPS = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]]).T  # columns to Superior, Posterior, Left
SLICE, ROW, COLUMN = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True)), indexing="ij")


def ellipsoid(centre_mm: tuple, half_axes_mm: tuple) -> np.ndarray:
    """Centre and half axes along slices, rows and columns."""
    grid = zip((SLICE, ROW, COLUMN), centre_mm, half_axes_mm, strict=True)
    return sum(((axis - centre) / half) ** 2 for axis, centre, half in grid) <= 1


def digital_chest() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A chest from the diaphragm to the apex in axial order.

    Returns:
        HU with noise; the two lungs; and what else is in it.
    """
    body = ellipsoid((50, 128, 176), (1e6, 95, 150))
    right, left = (ellipsoid((40, 125, 176 + side * 66), (75, 70, 52)) for side in (-1, 1))
    parts = {
        "trachea": ellipsoid((50, 120, 176), (1e6, 8, 8)) & (SLICE > 20),
        "bowel": ellipsoid((0, 125, 110), (14, 18, 18)),
        "spine": ellipsoid((50, 195, 176), (1e6, 17, 17)),
        "dome": ellipsoid((-25, 125, 110), (60, 45, 45)),  # of the diaphragm, with the liver in it
        "nodule": ellipsoid((60, 90, 105), (6, 6, 6)),
        "nodule at the wall": ellipsoid((52, 130, 64), (9, 9, 9)),
        "mass at the wall": ellipsoid((45, 190, 250), (17, 17, 17)),
        "vessel": ellipsoid((60, 120, 225), (4, 4, 40)),
    }
    lungs = (right | left) & ~parts["dome"]
    hu = np.full(SHAPE, AIR)
    hu[body] = TISSUE
    hu[lungs] = LUNG
    for name in ("trachea", "bowel"):
        hu[parts[name]] = AIR
        lungs &= ~parts[name]
    hu[parts["spine"]] = BONE
    for name in ("nodule", "nodule at the wall", "mass at the wall", "vessel"):
        hu[parts[name] & body] = TISSUE
        lungs |= parts[name] & (right | left)
    table = (ROW > 228) & (ROW < 246) & (np.abs(COLUMN - 176) < 140)
    hu[table & ~body] = FOAM
    hu[((ROW > 228) & (ROW < 232) | (ROW > 242) & (ROW < 246)) & table & ~body] = 0  # its shells
    noise = np.random.default_rng(0).normal(0, 25, SHAPE)
    parts["table"] = table & ~body
    parts["outside"] = ~body
    return (hu + noise).astype(np.int16), lungs, parts


HU, LUNGS, PARTS = digital_chest()


def find_lungs(volume: Volume) -> np.ndarray:
    """True in them."""
    return lib.find_lungs(volume) > 0


def lying(array: np.ndarray, order: tuple = (0, 1, 2), flips: tuple = (False, False, False)) -> Volume:
    """A volume whose axial order gives `array` again, with its array axes in another order and flipped."""
    steps = (TRAINING_STEPS * SPACING_MM)[:, order] * np.where(flips, -1, 1)
    matrix = np.eye(4)
    matrix[:3, :3] = steps[:, ::-1]
    return Volume(turned(array, order, flips), matrix)


def turned(array: np.ndarray, order: tuple, flips: tuple) -> np.ndarray:
    return array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.fixture(scope="module")
def found() -> np.ndarray:
    return find_lungs(lying(HU))


def test_a_digital_chest_gives_its_two_lungs(found):
    assert found.shape == SHAPE
    assert dice(found, LUNGS) >= 0.96
    assert (found & LUNGS).sum() >= 0.99 * LUNGS.sum()


def test_a_voxel_is_as_deep_as_the_edge_is_far_to_2_mm(found):
    depth_mm = lib.find_lungs(lying(HU))
    assert depth_mm.dtype == np.uint8
    middle = (18, 78, 69)  # of the right lung, whose half axes are 70 and 52 mm
    to_the_edge_mm = distance_mm(~found, SPACING_MM)
    assert depth_mm[middle] == pytest.approx(to_the_edge_mm[middle], abs=2)
    assert np.abs(depth_mm[found] - to_the_edge_mm[found]).max() <= 2.5


@pytest.mark.parametrize("part", ["nodule", "nodule at the wall", "mass at the wall", "vessel"])
def test_nodules_and_vessels_are_inside_also_at_the_wall(found, part):
    inside_chest = PARTS[part] & LUNGS
    assert inside_chest.any()
    assert found[inside_chest].mean() >= 0.99


@pytest.mark.parametrize("part", ["trachea", "bowel", "spine", "table", "outside"])
def test_what_is_no_lung_stays_outside(found, part):
    assert found[PARTS[part]].mean() <= 0.02


def test_the_top_of_the_diaphragm_is_no_lung(found):
    assert found[PARTS["dome"]].mean() <= 0.15


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3)))


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS[1::5])
def test_every_orientation_gives_the_same_lungs(found, order, flips):
    np.testing.assert_array_equal(find_lungs(lying(HU, order, flips)), turned(found, order, flips))


@pytest.mark.parametrize("padding", [PADDING, np.nan, -2000, -1024])
def test_padding_round_the_field_changes_nothing(found, padding):
    hu = HU.astype(np.float32)
    hu[np.hypot(ROW - 128, COLUMN - 176) > 165] = padding  # beyond the patient
    np.testing.assert_array_equal(find_lungs(lying(hu)), found)


def test_a_patient_cut_out_of_the_picture_has_lungs(found):
    masked = np.where(PARTS["outside"], -1024, HU)
    assert dice(find_lungs(lying(masked)), found) >= 0.99


@pytest.mark.parametrize(
    "cut",
    [np.s_[:, :, 50:], np.s_[:, :, 50:170], np.s_[:, 25:, 60:], np.s_[8:30, 50:110, 45:100]],
    ids=["one side", "both sides", "a corner", "a piece of one lung"],
)
def test_lungs_at_the_edge_of_a_small_field_are_found(found, cut):
    part = find_lungs(lying(HU[cut]))
    assert dice(part, LUNGS[cut]) >= 0.95


def test_lungs_cut_by_a_round_field_are_found():
    field = np.hypot(ROW - 128, COLUMN - 176) < 105
    part = find_lungs(lying(np.where(field, HU, PADDING).astype(np.int16)))
    assert (part & LUNGS & field).sum() >= 0.95 * (LUNGS & field).sum()
    assert part[~field].mean() <= 0.02


@pytest.mark.parametrize("slices", [np.s_[10:26], np.s_[:8], np.s_[20:21]], ids=["16 slices", "the base", "one slice"])
def test_a_part_of_the_slices_gives_that_part_of_the_lungs(slices):
    part = find_lungs(lying(HU[slices]))
    assert dice(part, LUNGS[slices]) >= 0.92


def test_thin_slices_and_small_pixels_give_the_same_lungs(found):
    finer = lying(HU.repeat(3, axis=0).repeat(2, axis=1).repeat(2, axis=2))
    matrix = finer.ijk_to_ras @ np.diag([1 / 2, 1 / 2, 1 / 3, 1])
    fine = find_lungs(Volume(finer.array, matrix))
    assert fine.shape == tuple(np.multiply(SHAPE, (3, 2, 2)))
    assert dice(fine[1::3, ::2, ::2], found) >= 0.97


@pytest.mark.parametrize(
    "hu",
    [
        np.full((6, 40, 50), AIR),
        np.full((6, 40, 50), TISSUE),
        np.where(LUNGS | PARTS["trachea"], TISSUE, HU)[:12],
        np.full((1, 1, 1), AIR),
        np.full((2, 3, 4), LUNG),
        np.full((5, 64, 64), np.nan),
    ],
    ids=["air", "tissue", "an abdomen with gas in it", "one voxel", "a few voxels", "nothing"],
)
def test_where_there_is_no_lung_nothing_is_found(hu):
    lungs = find_lungs(lying(hu))
    assert lungs.shape == hu.shape
    assert not lungs.any()


def test_a_lung_full_of_emphysema_stays_though_most_of_it_is_as_dark_as_air():
    hu = np.where(LUNGS & (HU < -700), HU - 100, HU)  # -950 HU
    clumps = np.random.default_rng(1).random(tuple(n // 4 + 1 for n in SHAPE)) < 0.25
    septa = clumps.repeat(4, 0).repeat(4, 1).repeat(4, 2)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    hu = np.where(LUNGS & septa & (HU < -700), HU, hu)
    assert find_lungs(lying(hu))[LUNGS].mean() >= 0.97


def test_the_mediastinum_stays_outside_though_the_lungs_touch_in_front_of_it():
    across = np.abs(COLUMN - 176)
    joined = (ROW > 65) & (ROW < 85) & (across < 35) & (SLICE > 20) & (SLICE < 80)
    hu = np.where(joined, np.where(across < 2, -500, LUNG), HU)  # the membrane between them is blurred
    mediastinum = (across < 10) & (ROW > 100) & (ROW < 170) & ~PARTS["trachea"]
    assert find_lungs(lying(hu))[mediastinum].mean() <= 0.02


def test_lung_that_hangs_dark_under_the_ribs_is_not_taken_for_an_airway():
    dark = LUNGS & (ROW < 78) & (COLUMN > 176) & (SLICE > 25)
    hu = np.where(dark, -970, HU)
    assert 20 <= dark.sum() * SPACING_MM.prod() / 1000 <= 150
    assert find_lungs(lying(hu))[dark].mean() >= 0.97


def test_a_mass_too_large_for_the_ball_is_filled_where_lung_is_all_round_it():
    mass = ellipsoid((55, 125, 242), (34, 34, 34))
    assert find_lungs(lying(np.where(mass, TISSUE, HU)))[mass].all()


@pytest.mark.parametrize(("slices", "edge"), [(np.s_[18:34], 0), (np.s_[4:19], -1)], ids=["first", "last"])
@pytest.mark.parametrize(("part", "at_least"), [("nodule at the wall", 0.95), ("mass at the wall", 0.75)])
def test_what_the_scan_cuts_at_the_wall_is_inside_up_to_the_last_slice(slices, edge, part, at_least):
    nodule = (PARTS[part] & LUNGS)[slices]
    assert nodule[edge].any()
    assert find_lungs(lying(HU[slices]))[edge][nodule[edge]].mean() >= at_least


@pytest.mark.parametrize(
    ("ct", "label"),
    [("LIDC-IDRI-0001_ct.nii.gz", "LIDC-IDRI-0001_nodule.nii.gz"), ("chest_lesion_ct.nrrd", "chest_lesion_label.nrrd")],
)
def test_a_real_nodule_and_a_real_mass_lie_inside(shared_data, ct, label):
    volume, _ = read_volume(shared_data(f"volumes/{ct}"))
    truth = read_volume(shared_data(f"volumes/{label}"))[0].array
    lungs = find_lungs(volume)
    assert lungs[(truth > 0) & (truth < 100)].mean() >= 0.95
    check_plausible(lungs, volume)


def test_the_real_chest_with_padding_gives_lungs_without_the_table(shared_data):
    volume, _ = read_volume(shared_data("volumes/chest_clean_ct.nrrd"))
    lungs = find_lungs(volume)
    check_plausible(lungs, volume)
    assert 2300 <= lungs.sum() * volume.voxel_volume_ml <= 2700
    assert not lungs[:, 400:].any()  # the table, of foam as thin as lung
    assert volume.array[25, 242, 360] > -100 and lungs[25, 242, 360]  # in the spiculated nodule at the left chest wall
    assert not lungs[30:, 247:259, 236:244].any()  # the trachea


def check_plausible(lungs: np.ndarray, volume: Volume) -> None:
    """Most of it is as thin as lung, all that is clearly lung is in it, and it fills a fair part of the body."""
    hu = volume.array
    assert np.median(hu[lungs]) == pytest.approx(-850, abs=50)
    assert (hu[lungs] < -400).mean() >= 0.8
    body = np.count_nonzero(hu > -400) + np.count_nonzero(lungs & (hu <= -400))
    assert 0.1 <= np.count_nonzero(lungs) / body <= 0.5


def test_a_real_abdomen_has_no_lungs_and_the_lung_bases_over_another_are_found_without_its_bowel(shared_data):
    abdomen, _ = read_volume(shared_data("volumes/abdomen_dicom"))
    assert not find_lungs(abdomen).any()
    volume, _ = read_volume(shared_data("volumes/abdomen_3mm_ct.nii.gz"))
    lungs = find_lungs(volume)
    assert 100 <= lungs.sum() * volume.voxel_volume_ml <= 140
    assert not lungs[:90].any()  # bowel gas, 300 ml
