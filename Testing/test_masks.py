"""Masks: what stays of a mask, and what is measured in it, on arrays that can be checked by eye."""

import time

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from UNetPlusPlusSegmentLib.core.masks import (
    REGION_KEYS,
    boxes,
    components,
    distance_mm,
    fill_holes,
    largest_component,
    measure,
)
from UNetPlusPlusSegmentLib.core.volume import Volume, bounding_box


def picture(*rows: str) -> np.ndarray:
    """One slice drawn with # and dots, as a bool array (1, rows, columns)."""
    return np.array([[c == "#" for c in row] for row in rows])[None]


def test_the_largest_component_stays_and_a_corner_does_not_connect():
    drawn = picture(
        "##..#",
        "##..#",
        "..##.",
        ".###.",
    )
    expected = picture(
        ".....",
        ".....",
        "..##.",
        ".###.",
    )
    np.testing.assert_array_equal(largest_component(drawn), expected)


def test_components_connect_across_slices():
    mask = np.zeros((3, 4, 4), bool)
    mask[:, 1, 1] = True
    mask[0, 3, 2:4] = True
    assert largest_component(mask).sum() == 3
    assert largest_component(mask)[:, 1, 1].all()


def test_components_that_have_the_share_asked_for_stay_too():
    mask = picture("####.##.#")
    np.testing.assert_array_equal(largest_component(mask, at_least=0.5), picture("####.##.."))
    np.testing.assert_array_equal(largest_component(mask, at_least=0.1), mask)


def test_only_what_is_enclosed_in_space_is_a_hole():
    mask = np.ones((5, 5, 5), bool)
    mask[2, 2, 2] = False
    assert fill_holes(mask).all()
    mask[2:, 2, 2] = False  # now open to the outside
    np.testing.assert_array_equal(fill_holes(mask), mask)


def test_holes_of_any_mask_are_those_that_scipy_fills():
    draw = np.random.default_rng(0)
    for share in (0.3, 0.6, 0.8, 0.95):
        mask = np.pad(draw.random((7, 11, 13)) < share, ((2, 0), (0, 3), (1, 1)))  # reaches the end on some sides
        filled = ndimage.binary_fill_holes(mask)
        assert share < 0.7 or filled.sum() > mask.sum()
        np.testing.assert_array_equal(fill_holes(mask), filled)


@pytest.mark.parametrize("function", [largest_component, fill_holes])
def test_an_empty_mask_stays_empty_and_the_input_stays_as_it_was(function):
    empty = np.zeros((2, 3, 4), bool)
    assert not function(empty).any()
    full = picture("#.#", "###", "#.#")
    before = full.copy()
    function(full)
    np.testing.assert_array_equal(full, before)


def test_the_bounding_box_holds_every_voxel_and_nothing_more():
    mask = np.zeros((6, 7, 8), bool)
    mask[1, 2, 3] = mask[4, 5, 3] = True
    assert bounding_box(mask) == (slice(1, 5), slice(2, 6), slice(3, 4))
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None


def test_volume_and_hu_come_from_the_voxels_of_the_region_on_a_sheared_grid_too():
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    matrix = np.array([[-2.0, 0, 0.7, 0], [0, -3, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    measured = measure(array >= 20, Volume(array, matrix))
    assert measured["volume_ml"] == pytest.approx(4 * 2 * 3 * 5 / 1000)
    assert (measured["mean_hu"], measured["median_hu"]) == (21.5, 21.5)
    assert measured["sd_hu"] == pytest.approx(np.sqrt(1.25))
    assert (measured["p5_hu"], measured["p95_hu"]) == pytest.approx((20.15, 22.85))
    assert measured["extent_ras"] == pytest.approx([4 * 2 + 0.7, 3, 5])


def test_the_extent_follows_the_patient_s_axes_on_a_turned_grid():
    mask = np.zeros((5, 6, 7), bool)
    mask[1:4, 2:4, 3] = True
    mask[2, 1, 3] = True
    turned = np.array([[0, -3.0, 0, 40], [2, 0, 0, -7], [0, 0, 5, 1], [0, 0, 0, 1]])  # I towards A, J towards L
    assert measure(mask, Volume(np.zeros(mask.shape), turned))["extent_ras"] == [9, 2, 15]


@pytest.mark.parametrize(("radius_mm", "rel"), [(6.0, 0.06), (40.0, 0.01)])
def test_the_surface_of_a_ball_is_that_of_a_ball_also_where_the_mask_fills_the_volume(radius_mm, rel):
    spacing_mm = np.array([0.8, 0.7, 2.5])
    size = np.ceil(2 * radius_mm / spacing_mm).astype(int)
    i, j, k = (spacing * (np.arange(n) - (n - 1) / 2) for spacing, n in zip(spacing_mm, size, strict=True))
    ball = k[:, None, None] ** 2 + j[:, None] ** 2 + i**2 < radius_mm**2
    found = measure(ball, Volume(np.zeros(ball.shape), np.diag([*spacing_mm, 1])))["surface_cm2"]
    assert found == pytest.approx(4 * np.pi * radius_mm**2 / 100, rel=rel)


@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2)])
def test_a_grid_has_a_surface_if_it_is_turned_but_not_if_it_is_sheared(axes):
    mask, matrix = np.ones((3, 4, 5), bool), np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [20, -30, 40], degrees=True).as_matrix() * (-0.7, 0.7, 2)
    array = np.zeros(mask.shape, np.int16)
    straight = np.diag([0.7, 0.7, 2, 1])
    ours, theirs = (measure(mask, Volume(array, each))["surface_cm2"] for each in (matrix, straight))
    assert ours == pytest.approx(theirs)
    matrix[:3, axes[0]] += 0.2 * matrix[:3, axes[1]]
    assert measure(mask, Volume(array, matrix))["surface_cm2"] is None, "the formula assumes right angles"


def test_an_empty_region_has_a_volume_and_nothing_else():
    volume = Volume(np.zeros((2, 3, 4), np.int16), np.eye(4))
    assert measure(volume.array > 0, volume) == {"volume_ml": 0, **dict.fromkeys(REGION_KEYS)}


DIAGONAL = np.zeros((3, 6, 7), bool)
DIAGONAL[0, 0, 0] = DIAGONAL[1, 1, 1] = DIAGONAL[1, 1, 2] = True  # these touch at a corner
DIAGONAL[2, 4:6, 4:7] = True


def test_components_are_numbered_in_array_order_or_by_size():
    faces, corners = components(DIAGONAL), components(DIAGONAL, corners=True)
    assert [faces[0, 0, 0], faces[1, 1, 1], faces[1, 1, 2], faces[2, 5, 6]] == [1, 2, 2, 3]
    assert [corners[0, 0, 0], corners[1, 1, 2], corners[2, 5, 6]] == [1, 1, 2]
    by_size = components(DIAGONAL, least=2)
    assert [by_size[0, 0, 0], by_size[1, 1, 1], by_size[2, 5, 6]] == [0, 2, 1]
    np.testing.assert_array_equal(components(DIAGONAL, least=1.5), by_size)
    assert not faces[~DIAGONAL].any() and not by_size[~DIAGONAL].any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64])
def test_the_box_of_each_value_is_the_smallest_one_and_a_value_that_is_not_there_has_none(dtype):
    labels = np.where(DIAGONAL, 3, 0).astype(dtype)
    labels[2] //= 3
    assert boxes(labels) == {1: np.s_[2:3, 4:6, 4:7], 3: np.s_[0:2, 0:2, 0:3]}
    assert boxes(np.zeros((2, 3, 4), dtype)) == {}


def test_distances_are_in_mm_along_each_axis():
    mask = np.zeros((5, 6, 7), bool)
    mask[2, 3, 4] = True
    distance = distance_mm(mask, (2.5, 0.7, 0.9))
    k, j, i = np.ogrid[:5, :6, :7]
    expected = np.sqrt(((k - 2) * 2.5) ** 2 + ((j - 3) * 0.7) ** 2 + ((i - 4) * 0.9) ** 2)
    np.testing.assert_allclose(distance, expected, atol=1e-5)


@pytest.mark.parametrize("step", [components, lambda mask: distance_mm(mask, (1, 1, 1))])
def test_a_step_does_its_work_in_the_thread_that_calls_it(step):
    """Threads of its own would wait for each other, which takes many times as long beside another program."""
    mask = np.zeros((60, 120, 120), bool)
    mask[10:50, 20:100, 20:100] = True
    own, both = -time.thread_time(), -time.process_time()
    for _ in range(5):
        step(mask)
    own, both = own + time.thread_time(), both + time.process_time()
    assert both <= 1.2 * own
