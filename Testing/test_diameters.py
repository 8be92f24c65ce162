"""Diameters: digital spheres and ellipsoids measure what they are, however the volume lies."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from UNetPlusPlusSegmentLib.core.volume import Volume, axial_order
from UNetPlusPlusSegmentLib.files import read_volume
from UNetPlusPlusSegmentLib.nodule.measurements import NoduleMeasurements, measure_nodule

TISSUE_HU, LUNG_HU = 40, -850
LENGTHS = ("long_axis_mm", "short_axis_mm", "mean_diameter_mm", "equivalent_diameter_mm", "volume_ml", "mean_hu")


def grid(shape: tuple[int, int, int], steps_ras: np.ndarray) -> np.ndarray:
    """The 4 × 4 matrix of a grid whose centre is the origin; columns of `steps_ras` along I, J, K."""
    matrix = np.eye(4)
    matrix[:3, :3] = steps_ras
    matrix[:3, 3] = -steps_ras @ (np.array(shape[::-1]) - 1) / 2
    return matrix


def digital_ellipsoid(half_axes_mm: np.ndarray, tilt: np.ndarray, centre_ras: np.ndarray, steps_ras: np.ndarray):
    """A nodule of tissue in lung; a voxel belongs to it if its centre does.

    Returns:
        Its mask, the volume, and its form, the 3 × 3 matrix M of x' M x <= 1.
    """
    form = tilt @ np.diag(1 / half_axes_mm**2) @ tilt.T
    reach = (np.abs(np.linalg.inv(steps_ras)) * half_axes_mm.max()).sum(axis=1)
    shape = tuple(int(n) for n in 2 * np.ceil(reach[::-1]) + 5)
    matrix = grid(shape, steps_ras)
    ijk = np.indices(shape)[::-1].reshape(3, -1)
    offset = (matrix[:3, :3] @ ijk + matrix[:3, 3:]).T - centre_ras
    mask = (np.einsum("ni,ij,nj->n", offset, form, offset) <= 1).reshape(shape)
    return mask, Volume(np.where(mask, TISSUE_HU, LUNG_HU).astype(np.int16), matrix), form


def true_axes_mm(form: np.ndarray, centre_ras: np.ndarray, volume: Volume) -> tuple[float, float]:
    """Axes of the largest ellipse that an axial slice cuts out of the ellipsoid."""
    slices, rows, columns = axial_order(volume).axes
    step = lambda axis: volume.ijk_to_ras[:3, 2 - axis]  # noqa: E731
    plane, _ = np.linalg.qr(np.stack([step(rows), step(columns)], axis=1))
    within = plane.T @ form @ plane
    best = (0.0, 0.0)
    for k in range(volume.array.shape[slices]):
        offset = volume.ijk_to_ras[:3, 3] + k * step(slices) - centre_ras
        linear = plane.T @ form @ offset
        size = 1 - offset @ form @ offset + linear @ np.linalg.solve(within, linear)
        if size > 0:
            short, long = sorted(2 * np.sqrt(size / np.linalg.eigvalsh(within)))
            best = max(best, (long, short))
    return best


def random_case(seed: int, ratios: tuple[float, float]) -> tuple[NoduleMeasurements, tuple[float, float], float]:
    """Measurements of a nodule at a random place in a random oblique volume, its true axes, and the pixel size in mm."""
    chance = np.random.default_rng(seed)
    pixel_mm, slice_mm = chance.uniform(0.5, 0.9), chance.choice([0.6, 1.0, 1.25, 2.0, 2.5])
    tilt = Rotation.from_euler("xyz", chance.uniform(-25, 25, 3), degrees=True).as_matrix()  # K stays nearest to S
    steps_ras = tilt * [pixel_mm, pixel_mm, slice_mm]
    half_axes_mm = chance.uniform(4, 14) * np.array([1, *chance.uniform(*ratios, 2)])
    centre_ras = chance.uniform(-1, 1, 3)
    rotation = Rotation.random(random_state=seed).as_matrix()
    mask, volume, form = digital_ellipsoid(half_axes_mm, rotation, centre_ras, steps_ras)
    return measure_nodule(mask, volume), true_axes_mm(form, centre_ras, volume), pixel_mm


def errors_in_pixels(ratios: tuple[float, float]) -> np.ndarray:
    """Of 200 nodules: the errors of long axis, short axis and mean diameter, in pixels."""
    rows = []
    for seed in range(200):
        found, (long_mm, short_mm), pixel_mm = random_case(seed, ratios)
        true_mm = np.array([long_mm, short_mm, (long_mm + short_mm) / 2])
        rows.append((np.array([found.long_axis_mm, found.short_axis_mm, found.mean_diameter_mm]) - true_mm) / pixel_mm)
    return np.array(rows)


def test_the_axes_of_a_sphere_are_true_to_half_a_pixel_in_oblique_volumes_and_without_bias():
    errors = errors_in_pixels(ratios=(1, 1))
    long, short, mean = np.abs(errors).T
    assert long.max() <= 0.5
    assert mean.max() <= 0.5
    assert (short <= 0.5).mean() >= 0.98  # the short axis lies across the long one, wherever the pixels put that
    assert short.max() <= 0.75
    assert np.abs(errors[:, 2].mean()) <= 0.25


def test_the_axes_of_an_ellipsoid_are_true_to_half_a_pixel_but_for_a_few_tips_between_two_pixels():
    errors = errors_in_pixels(ratios=(0.5, 1))
    long, short, mean = np.abs(errors).T
    assert (long <= 0.5).mean() >= 0.95
    assert (short <= 0.5).mean() >= 0.95
    assert max(long.max(), short.max()) <= 1
    assert mean.max() <= 0.5
    assert np.abs(errors.mean(axis=0)).max() <= 0.3


def test_the_volume_of_ellipsoids_is_true_to_3_percent():
    for seed in range(60):
        chance = np.random.default_rng(seed)
        steps_ras = Rotation.random(random_state=seed).as_matrix() * chance.uniform([0.5, 0.5, 0.6], [0.8, 0.8, 1.5])
        half_axes_mm = chance.uniform(5, 12, 3)
        tilt = Rotation.random(random_state=seed + 1).as_matrix()
        mask, volume, _ = digital_ellipsoid(half_axes_mm, tilt, chance.uniform(-1, 1, 3), steps_ras)
        found = measure_nodule(mask, volume)
        true_mm3 = 4 / 3 * np.pi * half_axes_mm.prod()
        assert found.volume_mm3 == pytest.approx(true_mm3, rel=0.03)
        assert found.volume_ml == pytest.approx(found.volume_mm3 / 1000)
        assert found.equivalent_diameter_mm == pytest.approx(2 * half_axes_mm.prod() ** (1 / 3), rel=0.01)


angle = st.floats(-20, 20)


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(angle, angle, angle),
    st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_turning_and_moving_the_patient_changes_no_length(seed, angles, shift_mm):
    chance = np.random.default_rng(seed)
    mask = chance.random((4, 7, 9)) < 0.5
    mask[1, 3, 4] = True
    volume = Volume(chance.integers(-900, 300, mask.shape, dtype=np.int16), np.diag([0.7, 0.9, 2.5, 1]))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    move[:3, 3] = shift_mm
    before = measure_nodule(mask, volume)
    after = measure_nodule(mask, Volume(volume.array, move @ volume.ijk_to_ras))
    for name in LENGTHS:
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-5), name
    assert after.kind == before.kind
    np.testing.assert_allclose(after.centroid_ras, (move @ [*before.centroid_ras, 1])[:3], atol=1e-6)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
def test_all_48_orders_and_flips_of_the_voxels_give_the_same_measurements(order, flips):
    chance = np.random.default_rng(3)
    mask = chance.random((4, 8, 11)) < 0.4
    lungs = np.pad(np.ones((2, 6, 9), bool), 1) | mask
    volume = Volume(chance.integers(-900, 300, mask.shape, dtype=np.int16), np.diag([0.7, 0.8, 2.0, 1]))
    steps = np.s_[:: -1 if flips[0] else 1, :: -1 if flips[1] else 1, :: -1 if flips[2] else 1]
    turn = lambda array: array.transpose(order)[steps]  # noqa: E731
    matrix = np.eye(4)
    signs = np.where(flips, -1, 1)
    matrix[:3, :3] = (volume.ijk_to_ras[:3, 2::-1][:, order] * signs)[:, ::-1]
    far_corner = [(n - 1) * f for n, f in zip(turn(mask).shape, flips, strict=True)][::-1]
    matrix[:3, 3] = -matrix[:3, :3] @ far_corner
    before = measure_nodule(mask, volume, lungs)
    after = measure_nodule(turn(mask), Volume(turn(volume.array), matrix), turn(lungs))
    for name in (
        *LENGTHS,
        "kind",
        "solid_share",
        "solid_long_axis_mm",
        "solid_mean_diameter_mm",
        "centroid_ras",
        "pleura_mm",
    ):
        assert getattr(after, name) == pytest.approx(getattr(before, name)), name


def test_a_cross_drawn_by_hand_measures_what_the_eye_sees():
    mask = np.array([[
        [0, 0, 0, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 1, 0, 0, 0],
    ]], bool)  # fmt: skip
    found = measure_nodule(mask, Volume(np.zeros(mask.shape), np.diag([2.0, 1.0, 5.0, 1])))
    assert found.long_axis_mm == pytest.approx(6 * 2.0 + 0.5 * 2.0)  # centre to centre, and half a pixel
    assert found.short_axis_mm == pytest.approx(2 * 1.0 + 0.5 * 1.0)
    assert found.mean_diameter_mm == pytest.approx(7.75)
    assert found.mean_diameter_rounded_mm == 8
    assert found.volume_mm3 == pytest.approx(9 * 10)
    assert found.centroid_ras == pytest.approx((6.0, 1.0, 0.0))


def test_parts_that_touch_at_a_corner_are_one_piece():
    mask = np.zeros((2, 8, 8), bool)
    mask[0, :4, :4] = mask[1, 4:, 4:] = True  # on two slices: each is as long as the other
    assert measure_nodule(mask, Volume(np.zeros(mask.shape), np.eye(4))).centroid_ras == pytest.approx((3.5, 3.5, 0.5))
    mask[1, 4, 4] = False
    assert measure_nodule(mask, Volume(np.zeros(mask.shape), np.eye(4))).centroid_ras == pytest.approx((1.5, 1.5, 0))


@pytest.mark.parametrize("degrees", range(0, 45, 4))
def test_half_a_millimetre_is_rounded_up_however_the_volume_lies(degrees):
    mask = np.zeros((1, 7, 7), bool)
    mask[0, 3] = mask[0, :, 3] = True
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    found = measure_nodule(mask, Volume(np.zeros(mask.shape), turn))
    assert (found.mean_diameter_mm, found.mean_diameter_rounded_mm) == (6.5, 7)


def test_of_two_equally_long_axes_the_same_one_is_chosen_in_any_orientation():
    mask = np.zeros((1, 7, 13), bool)
    mask[0, 1:6] = True  # both diagonals of the rectangle are as long
    mask[0, 0, 1:3] = mask[0, 6, 10:12] = True  # the bumps reach out across only one of them
    lengths = set()
    for flip, degrees in itertools.product((1, -1), range(0, 40, 4)):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
        found = measure_nodule(mask[:, :, ::flip], Volume(np.zeros(mask.shape), turn))
        lengths.add((round(found.long_axis_mm, 4), round(found.short_axis_mm, 4)))
    assert len(lengths) == 1


@settings(max_examples=20)
@given(st.tuples(angle, angle, angle), st.tuples(*[st.floats(-500, 500)] * 3))
def test_half_a_millimetre_is_rounded_up_as_on_paper_however_the_patient_lies(angles, shift_mm):
    mask = np.ones((1, 1, 13), bool)  # 12.5 and 0.5 pixels: 6.5 of 1 mm
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    found = measure_nodule(mask, Volume(np.zeros(mask.shape), matrix))
    assert found.mean_diameter_mm == 6.5
    assert found.mean_diameter_rounded_mm == 7


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_voxels_apart_from_the_nodule_add_to_its_volume_and_to_nothing_else(seed, count):
    chance = np.random.default_rng(seed)
    steps_ras = Rotation.from_euler("xyz", chance.uniform(-25, 25, 3), degrees=True).as_matrix() * [0.7, 0.7, 1.5]
    mask, volume, _ = digital_ellipsoid(chance.uniform(3, 4, 3), np.eye(3), np.zeros(3), steps_ras)
    mask, hu = (np.pad(each, ((2, 2), (8, 8), (8, 8))) for each in (mask, volume.array))
    near = ndimage.binary_dilation(mask, np.ones((3, 3, 3)))
    stray = mask.copy()
    stray[tuple(chance.permutation(np.argwhere(~near))[:count].T)] = True  # as a slip of the brush leaves them
    volume = Volume(hu, grid(hu.shape, steps_ras))
    alone, found = asdict(measure_nodule(mask, volume)), asdict(measure_nodule(stray, volume))
    of_all = {"volume_ml", "volume_mm3", "equivalent_diameter_mm", "mean_hu"}
    assert {key for key in found if found[key] != alone[key]} <= of_all
    assert found["volume_ml"] == pytest.approx(np.count_nonzero(stray) * volume.voxel_volume_ml)


def test_the_axes_are_taken_on_the_slice_with_the_longest_one_not_on_the_largest():
    mask = np.zeros((3, 9, 15), bool)
    mask[0, :, 3:12] = True  # 81 pixels, 11.8 mm from corner to corner
    mask[1, 4, 3:12] = True  # what joins the two
    mask[2, 4, :] = True  # 15 pixels, 14.5 mm
    found = measure_nodule(mask, Volume(np.zeros(mask.shape), np.diag([1.0, 1.0, 3.0, 1])))
    assert found.long_axis_mm == pytest.approx(14.5)
    assert found.short_axis_mm == pytest.approx(0.5)
    np.testing.assert_allclose(np.array(found.long_axis_ras)[:, 2], 6.0)


def test_the_ends_of_the_axes_lie_on_one_axial_slice_as_far_apart_as_the_axes_are_long():
    for seed in range(20):
        chance = np.random.default_rng(seed)
        tilt = Rotation.from_euler("xyz", chance.uniform(-25, 25, 3), degrees=True).as_matrix()
        mask, volume, _ = digital_ellipsoid(
            np.array([9.0, 6.0, 5.0]), Rotation.random(random_state=seed).as_matrix(), np.zeros(3), tilt * [0.7, 0.7, 2]
        )
        found = measure_nodule(mask, volume)
        long, short = np.array(found.long_axis_ras), np.array(found.short_axis_ras)
        assert np.linalg.norm(long[1] - long[0]) == pytest.approx(found.long_axis_mm)
        assert np.linalg.norm(short[1] - short[0]) == pytest.approx(found.short_axis_mm)
        assert (long[1] - long[0]) @ (short[1] - short[0]) == pytest.approx(0, abs=1e-6)
        ijk = np.linalg.inv(volume.ijk_to_ras) @ np.column_stack([np.vstack([long, short]), np.ones(4)]).T
        assert np.ptp(ijk[2]) == pytest.approx(0, abs=1e-6)
        nearest = np.argwhere(mask[round(ijk[2, 0])])[:, ::-1]
        for end in ijk[:2, :2].T:
            assert np.linalg.norm(nearest - end, axis=1).min() <= 0.75  # at the outline, not beside the nodule


def test_on_a_slanted_grid_lengths_are_those_of_the_patient():
    steps_ras = np.array([[0.7, 0, 0], [0, 0.7, 0.8], [0, 0, 2.4]])  # gantry tilt: the slices are stacked askew
    mask, volume, form = digital_ellipsoid(np.full(3, 8.0), np.eye(3), np.array([0.2, 0.1, 0.3]), steps_ras)
    found = measure_nodule(mask, volume)
    long_mm, short_mm = true_axes_mm(form, np.array([0.2, 0.1, 0.3]), volume)
    assert found.long_axis_mm == pytest.approx(long_mm, abs=0.35)
    assert found.short_axis_mm == pytest.approx(short_mm, abs=0.35)
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * 512, rel=0.03)


def test_one_voxel_is_measured_and_none_is_nothing():
    mask = np.zeros((3, 4, 5), bool)
    volume = Volume(np.full(mask.shape, 30.0), np.diag([0.7, 0.7, 2.5, 1]))
    assert measure_nodule(mask, volume) is None
    mask[1, 2, 3] = True
    found = measure_nodule(mask, volume)
    assert (found.long_axis_mm, found.short_axis_mm) == pytest.approx((0.35, 0.35))
    assert found.volume_mm3 == pytest.approx(0.7 * 0.7 * 2.5)
    assert found.centroid_ras == pytest.approx((2.1, 1.4, 2.5))
    assert found.mean_hu == 30
    assert all(type(value) in (int, float, str, tuple, type(None)) for value in asdict(found).values())


def ball(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Mask and distance from the centre, in voxels."""
    distance = np.linalg.norm(np.indices((25, 25, 25)) - 12.0, axis=0)
    return distance <= radius, distance


@pytest.mark.parametrize(
    ("kind", "inner_hu", "outer_hu"),
    [
        ("solid", 40, 40),
        ("solid", -150, -150),
        ("ground-glass", -600, -600),
        ("ground-glass", -350, -350),
        ("part-solid", 40, -600),
    ],
)
def test_solid_part_solid_and_ground_glass_are_told_apart_by_hu(kind, inner_hu, outer_hu):
    mask, distance = ball(10)
    hu = np.where(distance <= 6, inner_hu, np.where(mask, outer_hu, LUNG_HU)).astype(np.int16)
    assert measure_nodule(mask, Volume(hu, np.eye(4))).kind == kind


def part_solid(solid: np.ndarray, mask: np.ndarray) -> Volume:
    """A nodule of ground glass with solid voxels, in voxels of 0.7 × 0.7 × 1 mm."""
    hu = np.where(solid, TISSUE_HU, np.where(mask, -600, LUNG_HU)).astype(np.int16)
    return Volume(hu, np.diag([0.7, 0.7, 1, 1]))


@pytest.mark.parametrize("off_centre", [0, 4])  # 4: the solid part reaches the edge of the nodule
def test_the_solid_part_of_a_part_solid_nodule_has_the_axes_that_it_would_have_alone(off_centre):
    mask, _ = ball(10)
    solid = np.roll(ball(6)[0], off_centre, axis=2)
    volume = part_solid(solid, mask)
    found, alone = measure_nodule(mask, volume), measure_nodule(solid, volume)
    assert found.kind == "part-solid"
    assert found.solid_long_axis_mm == alone.long_axis_mm == pytest.approx(12 * 0.7, abs=0.7)
    assert found.solid_mean_diameter_mm == alone.mean_diameter_mm < found.mean_diameter_mm


def test_of_several_solid_parts_the_largest_is_measured():
    mask, _ = ball(12)
    large, small = np.roll(ball(4)[0], -5, axis=2), np.roll(ball(3)[0], 6, axis=2)
    volume = part_solid(large | small, mask)
    assert measure_nodule(mask, volume).solid_long_axis_mm == measure_nodule(large, volume).long_axis_mm


@pytest.mark.parametrize("hu", [40, -600])
def test_a_solid_nodule_and_one_of_ground_glass_have_no_solid_part(hu):
    mask, _ = ball(6)
    found = measure_nodule(mask, Volume(np.where(mask, hu, LUNG_HU).astype(np.int16), np.eye(4)))
    assert (found.solid_long_axis_mm, found.solid_mean_diameter_mm) == (None, None)


def kind_and_share(core_hu: np.ndarray) -> tuple[str, float]:
    """Of a flat nodule with these 10 × 10 HU inside its outermost pixels."""
    found = measure_nodule(np.ones((1, 12, 12), bool), Volume(np.pad(core_hu, 1, constant_values=500)[None], np.eye(4)))
    return found.kind, found.solid_share


@pytest.mark.parametrize(
    ("solid", "kind"),
    [(0, "ground-glass"), (5, "ground-glass"), (6, "part-solid"), (39, "part-solid"), (40, "solid"), (100, "solid")],
)
def test_from_6_percent_of_solid_voxels_on_a_nodule_is_part_solid_and_from_40_on_solid(solid, kind):
    core_hu = np.full((10, 10), -301)
    core_hu.flat[:solid] = -300
    assert kind_and_share(core_hu) == (kind, solid / 100)


def test_air_is_no_part_of_the_tissue_that_is_solid_or_not():
    core_hu = np.full((10, 10), -749)
    core_hu.flat[:50], core_hu.flat[50:53] = -750, 0
    assert kind_and_share(core_hu) == ("part-solid", 3 / 50)


def test_a_cavity_does_not_make_a_nodule_part_solid():
    mask, distance = ball(10)
    hu = np.where(distance <= 8.5, -1000, np.where(mask, TISSUE_HU, LUNG_HU))
    assert measure_nodule(mask, Volume(hu, np.eye(4))).kind == "solid"


def test_the_blurred_rim_of_a_small_solid_nodule_is_no_ground_glass():
    mask, distance = ball(2.3)
    hu = np.interp(distance, [1.5, 2.5], [TISSUE_HU, LUNG_HU])
    assert (hu[mask] < -300).mean() > 0.5  # by all its voxels it would be part-solid
    found = measure_nodule(mask, Volume(hu, np.eye(4)))
    assert found.kind == "solid"
    assert found.mean_hu == pytest.approx(hu[mask].mean())


def test_the_pleura_is_as_far_as_the_voxel_nearest_to_it():
    mask, _ = ball(3)
    volume = Volume(np.zeros(mask.shape), np.diag([1.5, 1.0, 2.0, 1]))
    depth_mm = np.broadcast_to(np.arange(mask.shape[2]).clip(0, 255), mask.shape)
    assert measure_nodule(mask, volume).pleura_mm is None
    assert measure_nodule(mask, volume, depth_mm).pleura_mm == np.flatnonzero(mask.any(axis=(0, 1)))[0]
    at_the_wall = np.where(mask, 4, 0)  # all round the nodule, in the corners of its box too
    assert measure_nodule(mask, volume, at_the_wall).pleura_mm == 4


def test_a_real_nodule_and_a_real_mass_have_the_diameters_seen_on_the_screen(shared_data):
    ct, _ = read_volume(shared_data("volumes/LIDC-IDRI-0001_ct.nii.gz"))
    nodule, _ = read_volume(shared_data("volumes/LIDC-IDRI-0001_nodule.nii.gz"))
    found = measure_nodule((nodule.array > 0) & (nodule.array < 100), ct)
    assert (found.kind, found.mean_diameter_rounded_mm) == ("solid", 28)
    assert found.long_axis_mm == pytest.approx(31.4, abs=0.1)
    assert found.centroid_ras == pytest.approx((-56.4, -86.3, -116.0), abs=0.1)
    ct, _ = read_volume(shared_data("volumes/chest_lesion_ct.nrrd"))
    label, _ = read_volume(shared_data("volumes/chest_lesion_label.nrrd"))
    found = measure_nodule(label.array > 0, ct)
    assert found.kind == "solid"
    assert found.long_axis_mm == pytest.approx(55.6, abs=0.1)
    assert found.short_axis_mm == pytest.approx(36.1, abs=0.1)
