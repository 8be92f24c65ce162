"""Nodules from a point, in a box and in a chest, on a network whose answer is known: what is brighter than -300 HU."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from Testing.support.bodies import reorder
from Testing.support.bright import bright_nodule_bundle, segmented
from Testing.support.nodule_scans import (
    EVERYTHING,
    LUNG,
    MATRIX,
    SHAPE,
    SPACING_MM,
    TISSUE,
    A,
    B,
    ball,
    dice,
    lung_with,
    ras,
)
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.note import in_words
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, places_between


def test_a_point_in_a_nodule_gives_this_nodule_voxel_for_voxel(engine):
    result = segmented(engine, lung_with(A, B), points=[ras((10, 50, 40))])
    np.testing.assert_array_equal(result.labelmap == 1, A)
    (segment,) = result.segments
    assert segment.name == "Nodule 1"
    assert result.notes == ()
    np.testing.assert_allclose(segment.measurements["centroid_ras"], ras((10.5, 50, 40)), atol=0.1)
    assert segment.measurements["pleura_mm"] is None


def test_only_the_slices_of_the_nodule_and_a_few_beside_it_are_looked_at(engine):
    maps = engine.predict(lung_with(A, B), Request("nodule", points=[ras((10, 50, 40))]))
    assert 7 <= maps.slices <= 12
    assert not maps.probability()[B].any()


@settings(max_examples=8)
@given(
    centre=st.tuples(st.floats(6, 23), st.floats(9, 130), st.floats(9, 140)),
    half_axes_mm=st.tuples(st.floats(3, 6), st.floats(2.5, 6), st.floats(2.5, 6)),
    off=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_wherever_in_the_nodule_the_point_is_it_is_found_whole(engine, centre, half_axes_mm, off):
    nodule = ball(centre, half_axes_mm)
    at = tuple(c + o * h / mm for c, o, h, mm in zip(centre, off, half_axes_mm, SPACING_MM, strict=True))
    result = segmented(engine, lung_with(nodule), points=[ras(at)])
    assert dice(result.labelmap == 1, nodule) > 0.97


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_all_48_axis_orders_and_flips_of_a_volume_give_the_same_nodule(engine, axes):
    volume, point = lung_with(A, B), ras((11, 52, 38))
    for flips in product([False, True], repeat=3):
        turned, back = reorder(volume, axes, flips)
        result = segmented(engine, turned, points=[point])
        np.testing.assert_array_equal(back(result.labelmap) == 1, A)
        np.testing.assert_allclose(result.segments[0].measurements["centroid_ras"], ras((10.5, 50, 40)), atol=0.1)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_a_box_and_a_chest_give_the_same_nodules_in_any_orientation(engine, axes):
    volume = lung_with(A, B)
    turned, back = reorder(volume, axes, (True, False, True))
    result = segmented(engine, turned, **places_between(turned, ras((2, 20, 20)), ras((18, 80, 70))))
    np.testing.assert_array_equal(back(result.labelmap) == 1, A)
    np.testing.assert_allclose(result.segments[0].measurements["centroid_ras"], ras((10.5, 50, 40)), atol=0.1)


def test_a_point_beside_a_nodule_means_the_nearest_within_10_mm(engine):
    near, far = A, ball((10.5, 50, 75), 5.2)  # 35 voxels apart: from voxel 60 the edges are 8 and 5.5 mm away
    result = segmented(engine, lung_with(near, far), points=[ras((10, 50, 60))])
    np.testing.assert_array_equal(result.labelmap == 1, far)
    result = segmented(engine, lung_with(near, far), points=[ras((10, 50, 54))])
    np.testing.assert_array_equal(result.labelmap == 1, near)


@pytest.mark.parametrize("radius_mm", [7.5, 13.5])
@pytest.mark.parametrize("way", [1, -1])
def test_a_point_nearly_10_mm_beside_a_large_nodule_finds_it(engine, radius_mm, way):
    nodule = ball((10.5, 70, 75), radius_mm)
    away = round(way * (radius_mm + 9) / 0.7)
    for point in ((10, 70 + away, 75), (10, 70, 75 + away)):
        result = segmented(engine, lung_with(nodule), points=[ras(point)])
        assert dice(result.labelmap == 1, nodule) > 0.95


@pytest.mark.parametrize("slice_mm", [0.5, 2.0])
def test_a_lower_threshold_afterwards_finds_the_ends_that_a_run_with_it_finds(engine, slice_mm):
    spacing_mm = np.array([slice_mm, 0.7, 0.7])
    hard, soft = (ball((15, 40, 40), radius, (31, 80, 80), spacing_mm) for radius in (5.0, 6.0))
    hu = np.where(hard, TISSUE, np.where(soft, -307, LUNG)).astype(np.int16)  # sigmoid(40 · -0.005) = 0.45
    volume = Volume(hu, np.diag([-0.7, -0.7, slice_mm, 1.0]))
    point = [ras((15, 40, 40), volume.ijk_to_ras)]
    again = engine.predict(volume, Request("nodule", points=point)).at(0.4)
    np.testing.assert_array_equal(again.labelmap, segmented(engine, volume, points=point, threshold=0.4).labelmap)


def test_a_point_below_a_nodule_finds_it_on_other_slices(engine):
    result = segmented(engine, lung_with(A), points=[ras((4, 50, 40))])  # 12 mm below its middle, 6 mm below its edge
    np.testing.assert_array_equal(result.labelmap == 1, A)


def test_a_point_on_the_outer_face_of_the_volume_is_in_it(engine):
    at_the_edge = ball((29, 70, 145), 6)
    face = (29.5, 70, 149.5)  # rounded to even, the voxel after the last
    result = segmented(engine, lung_with(at_the_edge), points=[ras(face)])
    np.testing.assert_array_equal(result.labelmap == 1, at_the_edge)


def test_a_point_more_than_10_mm_away_finds_none_and_says_so(engine):
    result = segmented(engine, lung_with(A), points=[ras((10, 50, 65))])
    assert result.segments == ()
    assert not result.labelmap.any()
    assert len(result.notes) == 1
    assert result.notes[0].kind == "nothing-at-point"
    assert str(result.notes[0]).startswith(
        "No nodule of 3 mm or more was found at (6, -38, -180) or within 10 mm of it."
    )


def test_a_vessel_is_no_nodule_and_one_beside_it_is_taken(engine):
    through, within = ball((15, 60, 60), (100, 1.5, 1.5)), ball((10, 60, 60), (1.5, 1.5, 100))
    nodule = ball((10, 70, 60), 3.5)
    for vessel in (through, within):
        assert segmented(engine, lung_with(vessel), points=[ras((10, 60, 60))]).segments == ()
        result = segmented(engine, lung_with(vessel, nodule), points=[ras((10, 60, 60))])
        np.testing.assert_array_equal(result.labelmap == 1, nodule & ~vessel)


def test_a_nodule_does_not_leak_along_a_vessel_through_the_slices(engine):
    vessel = ball((15, 50, 40), (1000, 1.2, 1.2))
    volume = lung_with(A, vessel)
    for k in (8, 10, 12):
        result = segmented(engine, volume, points=[ras((k, 50, 40))])
        assert dice(result.labelmap == 1, A) > 0.95
        assert np.flatnonzero(result.labelmap.any(axis=(1, 2))).min() >= 7  # one slice of the vessel, at most
    assert result.slices < 25


def test_a_nodule_is_the_same_whichever_others_are_looked_at(tmp_path, monkeypatch):
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    run = engine._run

    def blind_at_the_edges(*given):
        chances = run(*given)
        seen = torch.zeros_like(chances)
        seen[..., 8:-8, 8:-8] = chances[..., 8:-8, 8:-8]
        return seen

    monkeypatch.setattr(engine, "_run", blind_at_the_edges)
    near, other = ball((10.5, 70, 60), 4), ball((10.5, 70, 89), 4)  # 20 mm apart: each window's edge cuts the other
    volume, points = lung_with(near, other), [ras((10, 70, 60)), ras((10, 70, 89))]
    alone = [segmented(engine, volume, points=[point]).segments[0].measurements["volume_mm3"] for point in points]
    both = [each.measurements["volume_mm3"] for each in segmented(engine, volume, points=points).segments]
    assert sorted(both) == pytest.approx(sorted(alone))


def test_points_give_a_table_by_size_and_two_points_in_one_nodule_one_row(engine):
    points = [ras((20, 100, 110)), ras((10, 50, 40)), ras((11, 52, 42))]
    result = segmented(engine, lung_with(A, B), points=points)
    assert [s.name for s in result.segments] == ["Nodule 1", "Nodule 2"]
    np.testing.assert_array_equal(result.labelmap == 1, A)
    np.testing.assert_array_equal(result.labelmap == 2, B)


def test_in_a_box_are_the_nodules_in_it_and_nothing_beyond(engine):
    volume = lung_with(A, B)
    result = segmented(engine, volume, **places_between(volume, ras((25, 130, 140)), ras((12, 85, 90))))
    np.testing.assert_array_equal(result.labelmap == 1, B)
    both = segmented(engine, volume, box=EVERYTHING)
    assert len(both.segments) == 2 and not both.notes
    half = segmented(engine, volume, box=np.s_[0:11, 0:140, 0:150])
    np.testing.assert_array_equal(half.labelmap == 1, A & (np.arange(30) <= 10)[:, None, None])


def test_a_nodule_that_the_box_cuts_is_named_in_a_note(engine):
    (note,) = segmented(engine, lung_with(A, B), box=np.s_[0:11, 0:140, 0:150]).notes
    assert note.kind == "cut-by-box"
    assert str(note).startswith(f"The nodule at {in_words(ras((10.5, 50, 40)))} reaches beyond the box")


def test_in_a_turned_box_are_the_nodules_in_it_and_nothing_beyond(engine):
    """The box runs along a diagonal of the slices: it has a half of A, and B beside it."""
    along, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])  # J and I
    turned = [
        (1 / 30, 0, 0, 0),
        (0, *along / 80, -along @ (50, 40) / 80),
        (0, *across / 12, -across @ (60, 40) / 12),
    ]
    result = segmented(engine, lung_with(A, B), box=EVERYTHING, turned=turned)
    k, j, i = np.indices(SHAPE)
    inside = np.all([np.abs(a * k + b * j + c * i + d) <= 1 for a, b, c, d in turned], axis=0)
    assert 0 < np.count_nonzero(A & inside) < np.count_nonzero(A) and not (B & inside).any()
    np.testing.assert_array_equal(result.labelmap == 1, A & inside)
    assert result.segments[0].measurements["volume_ml"] == pytest.approx(np.count_nonzero(A & inside) * 0.00098)
    assert [each.name for each in result.segments] == ["Nodule 1"]
    assert [note.kind for note in result.notes] == ["cut-by-box"]


def test_an_empty_box_is_a_result_with_a_note(engine):
    result = segmented(engine, lung_with(A), box=np.s_[20:30, 100:140, 100:140])
    assert result.segments == ()
    assert [str(note) for note in result.notes] == ["No nodules were found in the box."]


def test_another_threshold_needs_no_second_run_and_gives_the_same_as_one(engine):
    volume = lung_with(A, B)
    soft = Volume(np.where(A, -270, volume.array).astype(np.int16), volume.ijk_to_ras)  # sigmoid(40 · 0.021) = 0.70
    for where in ({"points": [ras((10, 50, 40)), ras((20, 100, 110))]}, {"box": EVERYTHING}):
        maps = engine.predict(soft, Request("nodule", **where))
        first, again = maps.at(), maps.at(0.9)
        assert len(first.segments) == 2
        np.testing.assert_array_equal(again.labelmap, segmented(engine, soft, **where, threshold=0.9).labelmap)
        assert len(again.segments) == 1
        np.testing.assert_array_equal(maps.at(0.5).labelmap, first.labelmap)
    notes = engine.predict(soft, Request("nodule", points=[ras((10, 50, 40))])).at(0.9).notes
    assert [note.kind for note in notes] == ["nothing-at-point"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"points": [(0, 0, 0)]}, "outside this volume.*LPS"),
        ({"box": np.s_[0:31, 0:140, 0:150]}, "0 to 31.* reaches beyond this volume of 30 × 140 × 150 voxels"),
    ],
)
def test_a_place_outside_is_refused_with_one_sentence(engine, where, words):
    with pytest.raises(VolumeError, match=words):
        segmented(engine, lung_with(A), **where)


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.6, 0.6), (2.5, 0.7, 0.7), (1.25, 0.9, 0.8)])
@pytest.mark.parametrize("radius_mm", [3.0, 6.0, 12.0])
def test_a_made_up_ball_keeps_its_diameters_and_volume_through_the_whole_engine(engine, spacing_mm, radius_mm):
    spacing_mm = np.array(spacing_mm)
    shape = tuple((2 * (radius_mm + 12) / spacing_mm).astype(int))
    finer = np.array([1, 5, 5])  # each pixel is the mean of 5 × 5; the slices are thin
    centre = np.array(shape) * finer / 2 + [0.2, -0.8, 2.2]
    fine = ball(tuple(centre), radius_mm, tuple(shape * finer), spacing_mm / finer)
    share = fine.reshape(shape[0], shape[1], 5, shape[2], 5).mean(axis=(2, 4))
    array = (-630 + share * 660).round().astype(np.int16)  # -300 HU is half way
    matrix = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    point = (matrix @ [*(n / 2 for n in shape[::-1]), 1])[:3]
    found = segmented(engine, Volume(array, matrix), points=[point]).segments[0].measurements
    if radius_mm > 3:  # smaller than that, making pixels of 0.7 mm of the voxels rounds it off
        assert found["volume_mm3"] == pytest.approx(4 / 3 * np.pi * radius_mm**3, rel=0.03)
    for axis in ("long_axis_mm", "short_axis_mm", "mean_diameter_mm"):
        assert found[axis] == pytest.approx(
            2 * radius_mm, abs=spacing_mm[1:].max() * (0.5 if axis.startswith("mean") else 0.6)
        )


def test_an_exception_in_progress_stops_the_run(engine):
    class Cancelled(Exception):
        pass

    def progress(done, total, phase):
        assert done <= total
        raise Cancelled

    with pytest.raises(Cancelled):
        engine.predict(lung_with(A), Request("nodule", points=[ras((10, 50, 40))]), progress)


def test_the_input_is_not_changed(engine):
    volume = lung_with(A)
    before = volume.array.copy()
    segmented(engine, volume, points=[ras((10, 50, 40))])
    np.testing.assert_array_equal(volume.array, before)


@pytest.mark.parametrize(("architecture", "depth"), [("unetpp_ds", 3), ("unetpp_ds", 1), ("unetpp", 4), ("unet", 4)])
def test_any_network_that_training_makes_can_look_at_points_and_through_a_chest(tmp_path, architecture, depth):
    bundle = bright_nodule_bundle(tmp_path / "nodule-v1.0.0", architecture=architecture, depth=depth)
    engine, volume = load_engine(bundle, "cpu"), lung_with(A, B)
    np.testing.assert_array_equal(segmented(engine, volume, points=[ras((10, 50, 40))]).labelmap == 1, A)
    everywhere = np.ones(volume.array.shape, bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("UNetPlusPlusSegmentLib.nodule.engine.find_lungs", lambda _: everywhere)
        result = segmented(engine, volume)
    np.testing.assert_array_equal(result.labelmap, A + 2 * B.astype(int))


def test_without_lungs_no_nodule_is_looked_for_and_a_note_says_so(engine):
    result = segmented(engine, Volume(np.full((5, 60, 60), 40, np.int16) - np.int16(200) * A[10:15, :60, :60], MATRIX))
    assert result.segments == ()
    assert "no-lungs" in [note.kind for note in result.notes]
    assert result.slices == 0
