"""The overlay: the right slices, the right way up, in true proportions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.sample_files import SEGMENTS
from UNetPlusPlusSegmentLib import files
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.files.lettering import letters
from UNetPlusPlusSegmentLib.files.overlay import CLOSE_UP_PIXELS, FRAME_COLOR, GAP_PIXELS, write_close_ups


def picture(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(path)).astype(int)


def head_phantom() -> tuple[np.ndarray, np.ndarray]:
    """In training order: a body 60 mm wide and 40 mm high, with a mark at the patient's right and front, marked 1."""
    hu = np.full((9, 50, 70), -1000, np.int16)
    hu[:, 5:45, 5:65] = 40
    labelmap = np.zeros(hu.shape, np.uint8)
    labelmap[2:7, 8:18, 8:23] = 1
    return hu, labelmap


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
def test_the_overlay_shows_anterior_at_the_top_right_at_the_left_and_true_proportions(tmp_path, flips):
    hu, labelmap = (a[:, ::2][:: flips[0], :: flips[1], :: flips[2]] for a in head_phantom())  # rows 2 mm, columns 1 mm
    matrix = np.diag([-flips[2], -2 * flips[1], 3 * flips[0], 1])
    files.write_overlay(tmp_path / "o.png", Volume(hu, matrix), labelmap, SEGMENTS[:1])
    row = picture(tmp_path / "o.png")
    assert row.ndim == 3 and row.shape[2] == 3
    tile = row[:, : (row.shape[1] - 4 * 6) // 5]
    body = tile.sum(axis=2) > 0
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    assert np.ptp(columns) / np.ptp(rows) == pytest.approx(60 / 40, rel=0.05)
    assert rows[0] == pytest.approx(tile.shape[0] - 1 - rows[-1], abs=2), "the margin is the same on every side"
    colored = np.argwhere(tile[..., 0] - tile[..., 2] > 20)
    centre = (colored.mean(axis=0) - [rows[0], columns[0]]) / [np.ptp(rows), np.ptp(columns)]
    assert centre == pytest.approx([(13 - 5) / 40, (15.5 - 5) / 60], abs=0.04)
    line = (np.abs(tile - SEGMENTS[0].color).max(axis=2) < 3).any()
    assert line, "the outline has the very colour of the segment"


def test_the_overlay_spreads_over_the_organ_and_over_the_volume_if_there_is_none(tmp_path):
    hu, labelmap = head_phantom()
    hu[:, 30:40, 30:60] = (np.arange(9) * 20)[:, None, None]  # a grey that tells the slice
    place = Volume(hu, np.diag([-1.0, -1, 3, 1]))

    def slices_shown():
        row = picture(tmp_path / "o.png")
        tiles = np.array_split(row, 5, axis=1) if row.shape[1] > row.shape[0] * 3 else [row]
        return [round((t[int(t.shape[0] * 0.7), int(t.shape[1] * 0.6), 0] / 255 * 400 - 160) / 20) for t in tiles]

    files.write_overlay(tmp_path / "o.png", place, labelmap, SEGMENTS[:1])
    assert slices_shown() == [2, 3, 4, 5, 6]
    files.write_overlay(tmp_path / "o.png", place, np.zeros_like(labelmap), SEGMENTS[:1])
    assert slices_shown() == [0, 2, 4, 6, 8]
    labelmap[3:] = labelmap[:2] = 0
    files.write_overlay(tmp_path / "o.png", place, labelmap, SEGMENTS[:1])
    assert slices_shown() == [2]


def test_the_overlay_of_a_volume_without_anybody_in_it_is_written_too(tmp_path):
    nobody = np.full((3, 20, 30), -1000.0)
    nobody[0, 0, 0] = np.nan
    files.write_overlay(tmp_path / "o.png", Volume(nobody, np.eye(4)), np.zeros(nobody.shape, np.uint8), SEGMENTS)
    assert picture(tmp_path / "o.png").max() == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", [files.write_overlay, files.write_close_ups])
@pytest.mark.parametrize("padding", [np.nan, np.inf, -np.inf, -3024])
def test_what_was_not_measured_is_drawn_as_air(tmp_path, draw, padding):
    hu, labelmap = head_phantom()
    around, pictures = ((0, 0), (40, 40), (40, 40)), []
    for value in (-1024, padding):
        volume = Volume(np.pad(hu.astype(float), around, constant_values=value), np.diag([-1.0, -1, 3, 1]))
        draw(tmp_path / "o.png", volume, np.pad(labelmap, around), SEGMENTS[:1])
        pictures.append(picture(tmp_path / "o.png"))
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize("flip", [1, -1])
def test_the_most_doubtful_slices_are_drawn_in_a_frame_after_the_others(tmp_path, flip):
    hu, labelmap = (array[::flip] for array in head_phantom())
    hu[:, 30:40, 30:60] = (np.arange(9)[::flip] * 20)[:, None, None]  # a grey that tells the slice, from the lowest
    doubtful = [6, 3] if flip > 0 else [2, 5]  # of the array as it is
    segment = replace(SEGMENTS[0], measurements={"doubtful_slices": [{"k": k, "s_mm": 0.0} for k in doubtful]})
    files.write_overlay(tmp_path / "o.png", Volume(hu, np.diag([-1.0, -1, 3 * flip, 1])), labelmap, [segment])
    row = picture(tmp_path / "o.png")
    framed = (np.abs(row - FRAME_COLOR).max(axis=2) == 0).all(axis=0)
    sides = np.flatnonzero(np.diff(np.pad(framed, 1).astype(int)))
    assert len(sides) == 8, "two tiles with a left and a right side"
    for tile, k in ((row[:, sides[0] : sides[3]], 3), (row[:, sides[4] : sides[7]], 6)):
        grey = tile[int(tile.shape[0] * 0.7), int(tile.shape[1] * 0.6), 0]
        assert round((grey / 255 * 400 - 160) / 20) == k
    assert sides[0] > row.shape[1] * 5 / 7 - 10


def close_ups(tmp_path, count: int, known: dict) -> np.ndarray:
    """The close-ups of balls in a row, each with these measurements, as an array (row, column, RGB)."""
    labels = np.zeros((3, 60, 30 * count), np.uint8)
    for number in range(count):
        labels[1, 25:35, 30 * number + 10 : 30 * number + 20] = number + 1
    volume = Volume(np.where(labels > 0, 0, -850).astype(np.int16), np.diag([-1.0, -1.0, 2.0, 1.0]))
    segments = [Segment(n, f"Nodule {n}", "", (255, 0, 0), known) for n in range(1, count + 1)]
    write_close_ups(tmp_path / "o.png", volume, labels, segments)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o.png")))


def test_close_ups_show_every_segment_in_rows_of_five(tmp_path):
    side, gap = CLOSE_UP_PIXELS, GAP_PIXELS
    page = close_ups(tmp_path, 12, {})
    assert page.shape[:2] == (3 * side + 2 * gap, 5 * side + 4 * gap)
    for number in range(15):
        top, left = (n * (side + gap) for n in divmod(number, 5))
        tile = page[top : top + side, left : left + side]
        assert (tile == (255, 0, 0)).all(axis=-1).any() == (number < 12)


def test_more_than_thirty_close_ups_take_further_pages(tmp_path):
    first = close_ups(tmp_path, 32, {})
    second = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o-2.png")))
    side, gap = CLOSE_UP_PIXELS, GAP_PIXELS
    assert first.shape[:2] == (6 * side + 5 * gap, 5 * side + 4 * gap)
    assert second.shape[:2] == (side, 2 * side + gap)
    assert [each.name for each in sorted(tmp_path.iterdir())] == ["o-2.png", "o.png"]


def test_a_close_up_has_its_title_and_a_bar_of_10_mm(tmp_path):
    known = {"mean_diameter_rounded_mm": 7, "centroid_ras": (1.0, 2.0, -156.4), "probability": 0.914}
    page = close_ups(tmp_path, 1, known)
    white = (page == 255).all(axis=-1)
    ink = letters("Nodule 1 · 7 mm · S −156 · 0.91").repeat(2, axis=0).repeat(2, axis=1)
    top, left = np.argwhere(white)[:, 0].min(), (CLOSE_UP_PIXELS - ink.shape[1]) // 2
    np.testing.assert_array_equal(white[top : top + 14, left : left + ink.shape[1]], ink)
    bar = white[-GAP_PIXELS - 1].sum()
    assert bar == pytest.approx(10 * CLOSE_UP_PIXELS / 50, abs=1)  # the square is 50 mm wide
    assert page[CLOSE_UP_PIXELS // 2, 90].tolist() == [85] * 3  # -850 HU in a window from -1350 to 150
