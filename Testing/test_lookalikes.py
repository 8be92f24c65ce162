"""Lookalikes: drawing beside an organ does not change the organ, and pixels below the window stay 0."""

import numpy as np
import pytest

from data.lookalikes import Piece, pieces_of, shifted_organ, with_bowel, with_piece

WINDOW_HU, PIXEL_MM = 200.0, 2.0
ROWS, COLUMNS = np.mgrid[:90, :110]
BODY = ((ROWS - 45) / 40) ** 2 + ((COLUMNS - 55) / 50) ** 2 <= 1
ORGAN = ((ROWS - 40) / 20) ** 2 + ((COLUMNS - 35) / 18) ** 2 <= 1
IMAGE = np.where(BODY, np.where(ORGAN, 0.7, 0.5), 0).astype(np.float32)
PIECE = Piece(np.full((12, 16), 0.95, np.float32), np.ones((12, 16), bool))
BESIDE = {
    "bowel": lambda draw: with_bowel(IMAGE, ORGAN, WINDOW_HU, PIXEL_MM, draw),
    "piece": lambda draw: with_piece(IMAGE, ORGAN, PIECE, PIXEL_MM, draw),
}


@pytest.mark.parametrize("what", BESIDE)
def test_what_is_drawn_beside_the_organ_leaves_organ_and_air_as_they_were(what):
    changed = [BESIDE[what](np.random.default_rng(seed)) for seed in range(20)]
    for image in changed:
        np.testing.assert_array_equal(image[ORGAN | ~BODY], IMAGE[ORGAN | ~BODY])
        assert image.dtype == np.float32 and 0 <= image.min() <= image.max() <= 1
    assert np.mean([(np.abs(image - IMAGE) > 0.05).sum() > 20 for image in changed]) > 0.8


@pytest.mark.parametrize("what", BESIDE)
def test_the_same_draw_gives_the_same_look_alike_and_another_draw_another(what):
    same, again, other = (BESIDE[what](np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


def test_nothing_is_drawn_where_there_is_no_tissue_beside_the_organ():
    everywhere = np.ones_like(ORGAN)
    draw = np.random.default_rng(0)
    assert with_bowel(IMAGE, everywhere, WINDOW_HU, PIXEL_MM, draw) is IMAGE
    assert with_piece(IMAGE, everywhere, PIECE, PIXEL_MM, draw) is IMAGE


def test_the_noise_of_lung_and_air_does_not_count_as_tissue():
    noise = (np.random.default_rng(0).random(IMAGE.shape) < 0.3) * np.float32(0.4)
    assert with_bowel(noise, np.zeros_like(ORGAN), WINDOW_HU, PIXEL_MM, np.random.default_rng(1)) is noise


def test_a_piece_as_large_as_the_slice_can_be_pasted():
    piece = Piece(np.full(IMAGE.shape, 0.9, np.float32), np.ones(IMAGE.shape, bool))
    for seed in range(8):
        image = with_piece(IMAGE, ORGAN, piece, PIXEL_MM, np.random.default_rng(seed))
        assert image.shape == IMAGE.shape and (image[BODY & ~ORGAN] > 0.8).any()


def test_another_contrast_changes_the_organ_evenly_within_the_range_and_nothing_far_from_it():
    shifts = []
    for seed in range(30):
        change = shifted_organ(IMAGE, ORGAN, WINDOW_HU, PIXEL_MM, np.random.default_rng(seed)) - IMAGE
        assert not change[:, 70:].any()
        shifts.append(float(np.median(change[ORGAN])) * WINDOW_HU)
    assert -80 <= min(shifts) < -40 and 20 < max(shifts) <= 50


def test_pieces_are_the_connected_regions_of_at_least_two_square_centimetres():
    mask = np.zeros((40, 40), bool)
    mask[2:10, 2:10] = mask[20:23, 20:23] = True  # 256 mm² and 36 mm²
    (piece,) = pieces_of(np.arange(1600, dtype=np.float32).reshape(40, 40), mask, PIXEL_MM)
    assert piece.mask.shape == (8, 8) and piece.mask.all() and piece.image[0, 0] == 2 * 40 + 2
