"""Nodules from a point, in a box and in a chest, on a network whose answer is known: what is brighter than -300 HU."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from bright import bright_nodule_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import reorder

from UNetPlusPlusSegmentLib import nodule_engine
from UNetPlusPlusSegmentLib.engines import load_engine
from UNetPlusPlusSegmentLib.nodule_engine import NoduleEngine
from UNetPlusPlusSegmentLib.nodule_targets import Nodule, label_apart
from UNetPlusPlusSegmentLib.volumes import Volume, VolumeError, box_between

LUNG, TISSUE = -850, 30
SHAPE, SPACING_MM = (30, 140, 150), np.array([2.0, 0.7, 0.7])  # K, J, I
MATRIX = np.diag([-0.7, -0.7, 2.0, 1.0])  # array axes run to S, P and L
MATRIX[:3, 3] = (52, -3, -200)


EVERYTHING = np.s_[0:30, 0:140, 0:150]


def ball(centre: tuple, half_axes_mm: float | tuple, shape=SHAPE, spacing_mm=SPACING_MM) -> np.ndarray:
    """Centre in voxels, half axes in mm, along K, J, I."""
    offset_mm = (np.indices(shape).T - centre) * spacing_mm
    return (((offset_mm / half_axes_mm) ** 2).sum(axis=-1) <= 1).T


def lung_with(*spots: np.ndarray, matrix=MATRIX) -> Volume:
    return Volume(np.where(np.logical_or.reduce(spots), TISSUE, LUNG).astype(np.int16), matrix)


def ras(index: tuple, matrix=MATRIX) -> list[float]:
    """Of a voxel (k, j, i)."""
    return (matrix @ [*index[::-1], 1])[:3].tolist()


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> NoduleEngine:
    return load_engine(bright_nodule_bundle(tmp_path_factory.mktemp("models") / "nodule-v1.0.0"), "cpu")


A, B = ball((10.5, 50, 40), 6), ball((20.5, 100, 110), (6, 5, 4))


def test_a_point_in_a_nodule_gives_this_nodule_voxel_for_voxel(engine):
    result = engine.segment(lung_with(A, B), points=[ras((10, 50, 40))])
    np.testing.assert_array_equal(result.labelmap == 1, A)
    (segment,) = result.segments
    assert segment.name == "Nodule 1"
    assert result.notes == ()
    np.testing.assert_allclose(segment.measurements["centroid_ras"], ras((10.5, 50, 40)), atol=0.1)
    assert segment.measurements["pleura_mm"] is None


def test_only_the_slices_of_the_nodule_and_a_few_beside_it_are_looked_at(engine):
    result = engine.segment(lung_with(A, B), points=[ras((10, 50, 40))])
    assert 7 <= result.slices <= 12
    assert not result.probability()[B].any()


@settings(max_examples=8, deadline=None)
@given(
    centre=st.tuples(st.floats(6, 23), st.floats(9, 130), st.floats(9, 140)),
    half_axes_mm=st.tuples(st.floats(3, 6), st.floats(2.5, 6), st.floats(2.5, 6)),
    off=st.tuples(*[st.floats(-0.5, 0.5)] * 3),
)
def test_wherever_in_the_nodule_the_point_is_it_is_found_whole(engine, centre, half_axes_mm, off):
    nodule = ball(centre, half_axes_mm)
    at = tuple(c + o * h / mm for c, o, h, mm in zip(centre, off, half_axes_mm, SPACING_MM, strict=True))
    result = engine.segment(lung_with(nodule), points=[ras(at)])
    assert dice(result.labelmap == 1, nodule) > 0.97


def dice(a, b) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_all_48_axis_orders_and_flips_of_a_volume_give_the_same_nodule(engine, axes):
    volume, point = lung_with(A, B), ras((11, 52, 38))
    for flips in product([False, True], repeat=3):
        turned, back = reorder(volume, axes, flips)
        result = engine.segment(turned, points=[point])
        np.testing.assert_array_equal(back(result.labelmap) == 1, A)
        np.testing.assert_allclose(result.segments[0].measurements["centroid_ras"], ras((10.5, 50, 40)), atol=0.1)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_a_box_and_a_chest_do_not_mind_how_the_volume_lies_either(engine, axes):
    volume = lung_with(A, B)
    turned, back = reorder(volume, axes, (True, False, True))
    result = engine.segment(turned, box=box_between(turned, ras((2, 20, 20)), ras((18, 80, 70))))
    np.testing.assert_array_equal(back(result.labelmap) == 1, A)
    np.testing.assert_allclose(result.segments[0].measurements["centroid_ras"], ras((10.5, 50, 40)), atol=0.1)


def test_a_point_beside_a_nodule_means_the_nearest_within_10_mm(engine):
    near, far = A, ball((10.5, 50, 75), 5.2)  # 35 voxels apart: from voxel 60 the edges are 8 and 5.5 mm away
    result = engine.segment(lung_with(near, far), points=[ras((10, 50, 60))])
    np.testing.assert_array_equal(result.labelmap == 1, far)
    result = engine.segment(lung_with(near, far), points=[ras((10, 50, 54))])
    np.testing.assert_array_equal(result.labelmap == 1, near)


@pytest.mark.parametrize("radius_mm", [7.5, 13.5])
@pytest.mark.parametrize("way", [1, -1])
def test_a_point_nearly_10_mm_beside_a_large_nodule_finds_it(engine, radius_mm, way):
    nodule = ball((10.5, 70, 75), radius_mm)
    away = round(way * (radius_mm + 9) / 0.7)
    for point in ((10, 70 + away, 75), (10, 70, 75 + away)):
        result = engine.segment(lung_with(nodule), points=[ras(point)])
        assert dice(result.labelmap == 1, nodule) > 0.95


@pytest.mark.parametrize("slice_mm", [0.5, 2.0])
def test_a_lower_threshold_afterwards_finds_the_ends_that_a_run_with_it_finds(engine, slice_mm):
    spacing_mm = np.array([slice_mm, 0.7, 0.7])
    hard, soft = (ball((15, 40, 40), radius, (31, 80, 80), spacing_mm) for radius in (5.0, 6.0))
    hu = np.where(hard, TISSUE, np.where(soft, -307, LUNG)).astype(np.int16)  # sigmoid(40 · -0.005) = 0.45
    volume = Volume(hu, np.diag([-0.7, -0.7, slice_mm, 1.0]))
    point = [ras((15, 40, 40), volume.ijk_to_ras)]
    again = engine.segment(volume, points=point).with_threshold(0.4)
    np.testing.assert_array_equal(again.labelmap, engine.segment(volume, points=point, threshold=0.4).labelmap)


def test_a_point_below_a_nodule_finds_it_on_other_slices(engine):
    result = engine.segment(lung_with(A), points=[ras((4, 50, 40))])  # 12 mm below its middle, 6 mm below its edge
    np.testing.assert_array_equal(result.labelmap == 1, A)


def test_a_point_on_the_outer_face_of_the_volume_is_in_it(engine):
    at_the_edge = ball((29, 70, 145), 6)
    face = (29.5, 70, 149.5)  # rounded to even, the voxel after the last
    result = engine.segment(lung_with(at_the_edge), points=[ras(face)])
    np.testing.assert_array_equal(result.labelmap == 1, at_the_edge)


def test_a_point_more_than_10_mm_away_finds_none_and_says_so(engine):
    result = engine.segment(lung_with(A), points=[ras((10, 50, 65))])
    assert result.segments == ()
    assert not result.labelmap.any()
    assert len(result.notes) == 1
    assert "No nodule" in result.notes[0] and "10 mm" in result.notes[0]


def test_a_vessel_is_no_nodule_and_one_beside_it_is_taken(engine):
    through, within = ball((15, 60, 60), (100, 1.5, 1.5)), ball((10, 60, 60), (1.5, 1.5, 100))
    nodule = ball((10, 70, 60), 3.5)
    for vessel in (through, within):
        assert engine.segment(lung_with(vessel), points=[ras((10, 60, 60))]).segments == ()
        result = engine.segment(lung_with(vessel, nodule), points=[ras((10, 60, 60))])
        np.testing.assert_array_equal(result.labelmap == 1, nodule & ~vessel)


def test_a_nodule_does_not_leak_along_a_vessel_through_the_slices(engine):
    vessel = ball((15, 50, 40), (1000, 1.2, 1.2))
    volume = lung_with(A, vessel)
    for k in (8, 10, 12):
        result = engine.segment(volume, points=[ras((k, 50, 40))])
        assert dice(result.labelmap == 1, A) > 0.95
        assert np.flatnonzero(result.labelmap.any(axis=(1, 2))).min() >= 7  # one slice of the vessel, at most
    assert result.slices < 25


def test_a_nodule_is_the_same_whichever_others_are_looked_at(tmp_path, monkeypatch):
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    heads = engine.heads

    def blind_at_the_edges(*given):
        for part, chances in heads(*given):
            seen = torch.zeros_like(chances)
            seen[..., 8:-8, 8:-8] = chances[..., 8:-8, 8:-8]
            yield part, seen

    monkeypatch.setattr(engine, "heads", blind_at_the_edges)
    near, other = ball((10.5, 70, 60), 4), ball((10.5, 70, 89), 4)  # 20 mm apart: each window's edge cuts the other
    volume, points = lung_with(near, other), [ras((10, 70, 60)), ras((10, 70, 89))]
    alone = [engine.segment(volume, points=[point]).segments[0].measurements["volume_mm3"] for point in points]
    both = [each.measurements["volume_mm3"] for each in engine.segment(volume, points=points).segments]
    assert sorted(both) == pytest.approx(sorted(alone))


def test_points_give_a_table_by_size_and_two_points_in_one_nodule_one_row(engine):
    points = [ras((20, 100, 110)), ras((10, 50, 40)), ras((11, 52, 42))]
    result = engine.segment(lung_with(A, B), points=points)
    assert [s.name for s in result.segments] == ["Nodule 1", "Nodule 2"]
    np.testing.assert_array_equal(result.labelmap == 1, A)
    np.testing.assert_array_equal(result.labelmap == 2, B)


@pytest.mark.parametrize("at", [(15, 70, 75), (15, 40, 75), (20, 70, 50)])
def test_a_mass_larger_than_the_patch_grows_it_and_is_called_a_mass(engine, at):
    mass = ball((15, 70, 75), (25, 30, 28))
    result = engine.segment(lung_with(mass), points=[ras(at)])
    assert [s.name for s in result.segments] == ["Mass 1"]
    assert dice(result.labelmap == 1, mass) > 0.97
    assert result.segments[0].measurements["long_axis_mm"] == pytest.approx(60, abs=1.4)


@pytest.fixture(scope="module")
def half_blind(tmp_path_factory) -> NoduleEngine:
    """An engine whose network sees nothing in tissue of 30 HU: what is denser than 60 HU it finds."""
    folder = tmp_path_factory.mktemp("models") / "nodule-v1.0.0"
    return load_engine(bright_nodule_bundle(folder, input={"pixel_mm": 0.7, "window_hu": [-40, 160]}), "cpu")


def test_a_point_in_the_end_of_a_mass_of_which_nothing_is_seen_there_finds_the_mass(half_blind):
    mass = ball((18, 70, 75), (25, 30, 28))
    hu = np.where(mass, 100, LUNG)
    hu[:13][mass[:13]] = TISSUE  # as where it lies on the diaphragm
    volume = Volume(hu.astype(np.int16), MATRIX)
    for k in (8, 12):
        (segment,) = half_blind.segment(volume, points=[ras((k, 60, 75))]).segments
        assert segment.name == "Mass 1"
    assert half_blind.segment(volume, points=[ras((7, 60, 75))]).segments == ()  # 12 mm below what is seen of it


def test_a_point_at_the_rim_of_a_nodule_means_it_and_not_a_mass_above(half_blind):
    mass, nodule = ball((20, 70, 75), (25, 30, 28)), ball((6, 45, 75), 4)
    hu = np.where(mass | nodule, 100, LUNG)
    hu[6, 51, 75] = TISSUE  # nothing is seen there
    result = half_blind.segment(Volume(hu.astype(np.int16), MATRIX), points=[ras((6, 51, 75))])
    np.testing.assert_array_equal(result.labelmap == 1, nodule)


def test_a_point_in_the_lung_means_the_nodule_beside_it_and_not_a_mass_above(half_blind):
    mass, nodule = ball((18, 70, 75), (25, 30, 28)), ball((4, 40, 75), (3, 4, 4))
    result = half_blind.segment(
        Volume(np.where(mass | nodule, 100, LUNG).astype(np.int16), MATRIX), points=[ras((4, 50, 75))]
    )
    np.testing.assert_array_equal(result.labelmap == 1, nodule)


def test_in_a_box_are_the_nodules_in_it_and_nothing_beyond(engine):
    volume = lung_with(A, B)
    result = engine.segment(volume, box=box_between(volume, ras((25, 130, 140)), ras((12, 85, 90))))
    np.testing.assert_array_equal(result.labelmap == 1, B)
    both = engine.segment(volume, box=EVERYTHING)
    assert len(both.segments) == 2
    half = engine.segment(volume, box=np.s_[0:11, 0:140, 0:150])
    np.testing.assert_array_equal(half.labelmap == 1, A & (np.arange(30) <= 10)[:, None, None])


def test_an_empty_box_is_a_result_with_a_note(engine):
    result = engine.segment(lung_with(A), box=np.s_[20:30, 100:140, 100:140])
    assert result.segments == ()
    assert "No nodule was found in the box." in result.notes


def test_another_threshold_needs_no_second_run_and_gives_the_same_as_one(engine):
    volume = lung_with(A, B)
    soft = Volume(np.where(A, -270, volume.array).astype(np.int16), volume.ijk_to_ras)  # sigmoid(40 · 0.021) = 0.70
    for where in ({"points": [ras((10, 50, 40)), ras((20, 100, 110))]}, {"box": EVERYTHING}):
        first = engine.segment(soft, **where)
        assert len(first.segments) == 2
        again = first.with_threshold(0.9)
        np.testing.assert_array_equal(again.labelmap, engine.segment(soft, **where, threshold=0.9).labelmap)
        assert len(again.segments) == 1
        np.testing.assert_array_equal(again.with_threshold(0.5).labelmap, first.labelmap)
    notes = engine.segment(soft, points=[ras((10, 50, 40))]).with_threshold(0.9).notes
    assert any("No nodule" in note for note in notes)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"points": [(0, 0, 0)]}, "outside this volume.*LPS"),
        ({"points": [(1, 2)]}, "three numbers"),
        ({"points": [(np.nan, 2, 3)]}, "three numbers"),
        ({"points": [ras((1, 1, 1))], "box": EVERYTHING}, "not both"),
    ],
)
def test_a_place_that_is_none_is_refused_with_one_sentence(engine, where, words):
    with pytest.raises(VolumeError, match=words):
        engine.segment(lung_with(A), **where)


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.6, 0.6), (2.5, 0.7, 0.7), (1.25, 0.9, 0.8)])
@pytest.mark.parametrize("radius_mm", [3.0, 6.0, 12.0])
def test_a_digital_ball_keeps_its_diameters_and_its_volume_through_the_whole_way(engine, spacing_mm, radius_mm):
    spacing_mm = np.array(spacing_mm)
    shape = tuple((2 * (radius_mm + 12) / spacing_mm).astype(int))
    finer = np.array([1, 5, 5])  # each pixel is the mean of 5 × 5; the slices are thin
    centre = np.array(shape) * finer / 2 + [0.2, -0.8, 2.2]
    fine = ball(tuple(centre), radius_mm, tuple(shape * finer), spacing_mm / finer)
    share = fine.reshape(shape[0], shape[1], 5, shape[2], 5).mean(axis=(2, 4))
    array = (-630 + share * 660).round().astype(np.int16)  # -300 HU is half way
    matrix = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    point = (matrix @ [*(n / 2 for n in shape[::-1]), 1])[:3]
    found = engine.segment(Volume(array, matrix), points=[point]).segments[0].measurements
    if radius_mm > 3:  # smaller than that, making pixels of 0.7 mm of the voxels rounds it off
        assert found["volume_mm3"] == pytest.approx(4 / 3 * np.pi * radius_mm**3, rel=0.03)
    for axis in ("long_axis_mm", "short_axis_mm", "mean_diameter_mm"):
        assert found[axis] == pytest.approx(
            2 * radius_mm, abs=spacing_mm[1:].max() * (0.5 if axis.startswith("mean") else 0.6)
        )


def test_an_exception_in_progress_stops_the_run(engine):
    class Cancelled(Exception):
        pass

    def progress(done, total):
        assert done <= total
        raise Cancelled

    with pytest.raises(Cancelled):
        engine.segment(lung_with(A), points=[ras((10, 50, 40))], progress=progress)


def test_the_input_is_not_changed(engine):
    volume = lung_with(A)
    before = volume.array.copy()
    engine.segment(volume, points=[ras((10, 50, 40))])
    np.testing.assert_array_equal(volume.array, before)


@pytest.mark.parametrize(("architecture", "depth"), [("unetpp_ds", 3), ("unetpp_ds", 1), ("unetpp", 4), ("unet", 4)])
def test_any_network_that_training_makes_can_look_at_points_and_through_a_chest(tmp_path, architecture, depth):
    bundle = bright_nodule_bundle(tmp_path / "nodule-v1.0.0", architecture=architecture, depth=depth)
    engine, volume = load_engine(bundle, "cpu"), lung_with(A, B)
    np.testing.assert_array_equal(engine.segment(volume, points=[ras((10, 50, 40))]).labelmap == 1, A)
    everywhere = np.ones(volume.array.shape, bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodule_engine, "find_lungs", lambda _: everywhere)
        result = engine.segment(volume)
    np.testing.assert_array_equal(result.labelmap, A + 2 * B.astype(int))


def test_without_lungs_no_nodule_is_looked_for_and_a_note_says_so(engine):
    result = engine.segment(Volume(np.full((5, 60, 60), 40, np.int16) - np.int16(200) * A[10:15, :60, :60], MATRIX))
    assert result.segments == ()
    assert any("No lung was found" in note for note in result.notes)
    assert result.slices == 0


@pytest.mark.parametrize(
    ("slices", "slice_mm", "radius_mm", "middle"),
    [(1, 1.0, 6, 0), (1, 2.0, 10, 0), (3, 0.7, 5, 1), (20, 0.7, 8, -9), (20, 0.7, 20, -25)],
)
def test_a_nodule_of_which_the_scan_has_only_a_slab_is_found(engine, slices, slice_mm, radius_mm, middle):
    spacing_mm, shape = np.array([slice_mm, 0.7, 0.7]), (slices, 140, 150)
    slab = ball((middle, 70, 75), radius_mm, shape, spacing_mm)
    matrix = np.diag([-0.7, -0.7, slice_mm, 1.0])
    volume = lung_with(slab, matrix=matrix)
    result = engine.segment(volume, points=[ras((0, 70, 75), matrix)])
    np.testing.assert_array_equal(result.labelmap == 1, slab)
    vessel = ball((middle, 70, 75), (radius_mm, 2, 30), shape, spacing_mm)
    assert engine.segment(lung_with(vessel, matrix=matrix), points=[ras((0, 70, 75), matrix)]).segments == ()


def test_a_box_of_few_slices_has_a_slab_of_a_nodule_in_it(engine):
    fine, matrix = np.array([0.7, 0.7, 0.7]), np.diag([-0.7, -0.7, 0.7, 1.0])
    nodule = ball((20, 70, 75), 5, (40, 140, 150), fine)
    result = engine.segment(lung_with(nodule, matrix=matrix), box=np.s_[20:22, 40:100, 40:110])
    np.testing.assert_array_equal(result.labelmap[20:22] == 1, nodule[20:22])


@pytest.mark.parametrize("way", [1, -1])
def test_of_two_nodules_that_share_voxels_the_larger_one_stays_whole_whichever_came_first(way):
    large, small = np.ones((4, 20, 20), bool), np.ones((4, 6, 10), bool)
    nodules = [
        Nodule(np.s_[0:4, 0:20, 0:20], large),
        Nodule(np.s_[0:4, 5:11, 14:24], small),  # most of it lies in the large one
        Nodule(np.s_[0:4, 17:23, 12:22], small),  # and of this one less than half
    ]
    _, labels = label_apart(nodules[::way])
    sizes = np.unique(labels[labels > 0], return_counts=True)[1]
    assert sorted(sizes.tolist()) == [4 * (60 - 3 * 8), 4 * 400]


def test_a_mass_that_a_higher_threshold_makes_too_small_is_found_as_the_nodule_it_then_is(half_blind):
    mass, core = ball((15, 70, 75), 12), ball((15, 70, 75), 9)
    hu = np.where(core, 100, np.where(mass, 61, LUNG))
    hu[:12][mass[:12]] = TISSUE  # as where it lies on the diaphragm
    volume, where = Volume(hu.astype(np.int16), MATRIX), {"points": [ras((10, 70, 75))]}
    first = half_blind.segment(volume, **where)
    assert first.segments[0].measurements["mean_diameter_mm"] > 20
    again, fresh = first.with_threshold(0.7), half_blind.segment(volume, threshold=0.7, **where)
    assert len(again.segments) == len(fresh.segments) == 1
    np.testing.assert_array_equal(again.labelmap, fresh.labelmap)


def test_what_goes_on_at_a_lower_threshold_beyond_the_slices_looked_at_is_told(engine):
    core, soft = (
        ball((20, 70, 75), (6, 6, 6), (60, 140, 150), np.ones(3)),
        ball((20, 70, 75), (14, 5, 5), (60, 140, 150), np.ones(3)),
    )
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
    volume = lung_with(core, matrix=matrix)
    volume = Volume(np.where(soft & ~core, -310, volume.array).astype(np.int16), matrix)  # probability 0.43
    result = engine.segment(volume, points=[ras((20, 70, 75), matrix)])
    assert result.notes == ()
    lower, fresh = result.with_threshold(0.4), engine.segment(volume, threshold=0.4, points=[ras((20, 70, 75), matrix)])
    assert np.count_nonzero(lower.labelmap) < np.count_nonzero(fresh.labelmap)
    assert any("not looked at" in note for note in lower.notes)
    assert fresh.notes == () and result.with_threshold(0.6).notes == ()
