"""Masses, nodules of which the scan has only a part, and what a moved threshold makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.support.bodies import reorder
from Testing.support.bright import bright_nodule_bundle, segmented
from Testing.support.nodule_scans import LUNG, MATRIX, TISSUE, ball, dice, lung_with, ras
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.nodule.candidates import Nodule, is_part, label_apart
from UNetPlusPlusSegmentLib.nodule.engine import NoduleEngine
from UNetPlusPlusSegmentLib.nodule.windows import Window


@pytest.mark.parametrize("at", [(15, 70, 75), (15, 40, 75), (20, 70, 50)])
def test_a_mass_larger_than_the_patch_grows_it_and_is_called_a_mass(engine, at):
    mass = ball((15, 70, 75), (25, 30, 28))
    result = segmented(engine, lung_with(mass), points=[ras(at)])
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
        (segment,) = segmented(half_blind, volume, points=[ras((k, 60, 75))]).segments
        assert segment.name == "Mass 1"
    assert segmented(half_blind, volume, points=[ras((7, 60, 75))]).segments == ()  # 12 mm below what is seen of it


def test_a_point_at_the_rim_of_a_nodule_means_it_and_not_a_mass_above(half_blind):
    mass, nodule = ball((20, 70, 75), (25, 30, 28)), ball((6, 45, 75), 4)
    hu = np.where(mass | nodule, 100, LUNG)
    hu[6, 51, 75] = TISSUE  # nothing is seen there
    result = segmented(half_blind, Volume(hu.astype(np.int16), MATRIX), points=[ras((6, 51, 75))])
    np.testing.assert_array_equal(result.labelmap == 1, nodule)


def test_a_point_in_the_lung_means_the_nodule_beside_it_and_not_a_mass_above(half_blind):
    mass, nodule = ball((18, 70, 75), (25, 30, 28)), ball((4, 40, 75), (3, 4, 4))
    result = segmented(
        half_blind, Volume(np.where(mass | nodule, 100, LUNG).astype(np.int16), MATRIX), points=[ras((4, 50, 75))]
    )
    np.testing.assert_array_equal(result.labelmap == 1, nodule)


@pytest.mark.parametrize(
    ("slices", "slice_mm", "radius_mm", "middle"),
    [(1, 1.0, 6, 0), (1, 2.0, 10, 0), (3, 0.7, 5, 1), (20, 0.7, 8, -9), (20, 0.7, 20, -25)],
)
def test_a_nodule_of_which_the_scan_has_only_a_slab_is_found(engine, slices, slice_mm, radius_mm, middle):
    spacing_mm, shape = np.array([slice_mm, 0.7, 0.7]), (slices, 140, 150)
    slab = ball((middle, 70, 75), radius_mm, shape, spacing_mm)
    matrix = np.diag([-0.7, -0.7, slice_mm, 1.0])
    volume = lung_with(slab, matrix=matrix)
    result = segmented(engine, volume, points=[ras((0, 70, 75), matrix)])
    np.testing.assert_array_equal(result.labelmap == 1, slab)
    vessel = ball((middle, 70, 75), (radius_mm, 2, 30), shape, spacing_mm)
    assert segmented(engine, lung_with(vessel, matrix=matrix), points=[ras((0, 70, 75), matrix)]).segments == ()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize(
    ("middle", "sides"),
    [
        ((10, 0, 75), ["anterior"]),
        ((10, 139, 75), ["posterior"]),
        ((10, 70, 0), ["right"]),
        ((10, 70, 149), ["left"]),
        ((29, 0, 149), ["superior", "anterior", "left"]),
        ((10, 9, 9), []),  # with half a voxel to spare
    ],
)
def test_a_nodule_that_any_side_of_the_scan_cuts_says_at_which(engine, axes, middle, sides):
    volume, _ = reorder(lung_with(ball(middle, 6)), axes, (True, False, True))
    result = segmented(engine, volume, points=[ras(middle)])
    assert result.segments[0].measurements["cut_by_scan"] == sides
    assert [note.kind for note in result.notes] == ["cut-by-scan"] * bool(sides)


def test_a_box_of_few_slices_has_a_slab_of_a_nodule_in_it(engine):
    fine, matrix = np.array([0.7, 0.7, 0.7]), np.diag([-0.7, -0.7, 0.7, 1.0])
    nodule = ball((20, 70, 75), 5, (40, 140, 150), fine)
    result = segmented(engine, lung_with(nodule, matrix=matrix), box=np.s_[20:22, 40:100, 40:110])
    np.testing.assert_array_equal(result.labelmap[20:22] == 1, nodule[20:22])


@pytest.mark.parametrize("way", [1, -1])
def test_of_two_nodules_that_share_voxels_the_larger_one_stays_whole_whichever_came_first(way):
    large, small = np.ones((4, 20, 20), bool), np.ones((4, 6, 10), bool)
    window = Window(slice(0, 30), slice(0, 30), (30, 30))
    nodules = [
        Nodule(np.s_[0:4, 0:20, 0:20], large, window),
        Nodule(np.s_[0:4, 5:11, 14:24], small, window),  # most of it lies in the large one
        Nodule(np.s_[0:4, 17:23, 12:22], small, window),  # and of this one less than half
    ]
    _, labels, values = label_apart(nodules[::way], None)
    assert [value > 0 for value in values[::way]] == [True, False, True]
    sizes = np.unique(labels[labels > 0], return_counts=True)[1]
    assert sorted(sizes.tolist()) == [4 * (60 - 3 * 8), 4 * 400]


@pytest.mark.parametrize(("shared", "part"), [(0, False), (5, False), (6, True), (10, True)])
def test_a_nodule_is_a_part_of_another_if_more_than_half_of_it_lies_there(shared, part):
    window = Window(slice(0, 30), slice(0, 30), (30, 30))
    small = Nodule(np.s_[3:5, 4:9, 20 - shared : 30 - shared], np.ones((2, 5, 10), bool), window)
    large = Nodule(np.s_[0:9, 0:20, 0:20], np.ones((9, 20, 20), bool), window)
    assert is_part(small, large) == part
    assert not is_part(large, small)


def test_a_mass_that_a_higher_threshold_makes_too_small_is_found_as_the_nodule_it_then_is(half_blind):
    mass, core = ball((15, 70, 75), 12), ball((15, 70, 75), 9)
    hu = np.where(core, 100, np.where(mass, 61, LUNG))
    hu[:12][mass[:12]] = TISSUE  # as where it lies on the diaphragm
    volume, where = Volume(hu.astype(np.int16), MATRIX), {"points": [ras((10, 70, 75))]}
    maps = half_blind.predict(volume, Request("nodule", **where))
    first = maps.at()
    assert first.segments[0].measurements["mean_diameter_mm"] > 20
    again, fresh = maps.at(0.7), segmented(half_blind, volume, threshold=0.7, **where)
    assert len(again.segments) == len(fresh.segments) == 1
    np.testing.assert_array_equal(again.labelmap, fresh.labelmap)


def test_a_nodule_that_continues_beyond_the_examined_slices_at_a_lower_threshold_has_a_note(engine):
    core, soft = (
        ball((20, 70, 75), (6, 6, 6), (60, 140, 150), np.ones(3)),
        ball((20, 70, 75), (14, 5, 5), (60, 140, 150), np.ones(3)),
    )
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
    volume = lung_with(core, matrix=matrix)
    volume = Volume(np.where(soft & ~core, -310, volume.array).astype(np.int16), matrix)  # probability 0.43
    maps = engine.predict(volume, Request("nodule", points=[ras((20, 70, 75), matrix)]))
    assert maps.at().notes == ()
    lower, fresh = maps.at(0.4), segmented(engine, volume, threshold=0.4, points=[ras((20, 70, 75), matrix)])
    assert np.count_nonzero(lower.labelmap) < np.count_nonzero(fresh.labelmap)
    assert [note.kind for note in lower.notes] == ["not-seen-whole"]
    assert fresh.notes == () and maps.at(0.6).notes == ()
