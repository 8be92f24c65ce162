"""Region growing: which pixels of the next slice belong to an object."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from UNetPlusPlusSegmentLib.nodule.region_growing import Spots, follow, near

MASKS = arrays(bool, (2, 6, 7))


@given(MASKS, st.integers(0, 5), st.integers(0, 6))
def test_a_pixel_touches_whole_spots_at_its_sides_and_corners_and_nothing_round_the_end_of_a_row(masks, row, column):
    spots = Spots(lambda k: masks[k].astype(float) if k in (0, 1) else None, 7, 0.5)
    mine = np.zeros((6, 7), bool)
    mine[row, column] = True
    labels, _ = ndimage.label(masks[1], np.ones((3, 3)))
    beside = ndimage.binary_dilation(mine, np.ones((3, 3)))
    expected = np.isin(labels, labels[beside & (labels > 0)])
    found = np.zeros((6, 7), bool)
    found[np.divmod(spots.touching(1, np.array([row * spots.stride + column])), spots.stride)] = True
    np.testing.assert_array_equal(found, expected)
    assert not len(spots.touching(2, np.arange(40)))  # which is not known


def test_an_object_is_followed_until_a_section_is_a_small_part_of_the_largest():
    sides = [0, 9, 3, 8, 0]  # 3 × 3 of 9 × 9 pixels is the last: what comes after it is another object
    masks = [np.pad(np.ones((side, side)), ((0, 12 - side), (0, 12 - side))) for side in sides]
    spots = Spots(lambda k: masks[k] if 0 <= k < 5 else None, 12, 0.5)
    sections = follow(spots, 1, spots.on(1)[0], slice_mm=1.0)
    assert {k: len(pixels) for k, pixels in sections.items()} == {1: 81, 2: 9}


def test_the_spots_near_a_point_come_from_its_own_slice_on_and_the_nearest_first_on_each():
    places = {4: [(20, 20)], 5: [(2, 5), (2, 23)], 6: [(2, 16)]}  # by slices, which are 3 mm apart; pixels are of 1 mm

    def plane(k: int) -> np.ndarray:
        probability = np.zeros((30, 30))
        for at in places.get(k, ()):
            probability[at] = 1
        return probability

    found = near(Spots(plane, 30, 0.5), np.array([5, 2, 15]), 10.0, np.diag([3.0, 1.0, 1.0]))
    assert [(k, *divmod(int(pixels[0]), 31)) for k, pixels in found] == [(5, 2, 23), (5, 2, 5), (6, 2, 16)]
    farther = near(Spots(plane, 30, 0.5), np.array([5, 2, 15.1]), 10.0, np.diag([3.0, 1.0, 1.0]))
    assert [(k, *divmod(int(pixels[0]), 31)) for k, pixels in farther] == [(5, 2, 23), (6, 2, 16)], "5 is 10.1 mm away"
