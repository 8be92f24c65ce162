"""Nodules searched for in a whole chest, on a network whose answer is known: what is brighter than -300 HU."""

from __future__ import annotations

import threading
from functools import partial
from itertools import groupby

import numpy as np
import pytest

from Testing.support.bright import bright_nodule_bundle, segmented
from Testing.support.nodule_scans import LUNG, TISSUE, ball, dice, ras
from UNetPlusPlusSegmentLib.api import load_engine
from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.nodule.search import places, searched_slices

WALL = -350  # denser than the lungs, and nothing to this network, which would else follow it everywhere


@pytest.fixture(scope="module")
def chest() -> tuple[Volume, list[np.ndarray], np.ndarray]:
    """Two lungs in a body; in one a nodule, one at the wall and a vessel, in the other a nodule with a vessel; and the vessels."""
    shape, spacing_mm = (24, 130, 200), np.array([2.5, 1.4, 1.4])
    at = partial(ball, shape=shape, spacing_mm=spacing_mm)
    body = at((12, 65, 100), (1000, 85, 130))
    right, left = at((12, 65, 55), (1000, 60, 45)), at((12, 65, 145), (1000, 60, 45))
    lungs = (right | left) & body
    nodules = [at((12, 60, 50), 6), at((8, 65, 149), 5), at((15, 65, 25), 4.5)]
    vessels = at((12, 85, 60), (1000, 2, 2)) | at((14, 40, 145), (2, 2, 25)) | at((8, 65, 149), (1000, 1.5, 1.5))
    hu = np.where(lungs, LUNG, WALL)
    hu[np.logical_or.reduce([*nodules, vessels])] = TISSUE
    hu[~body] = -1000
    matrix = np.diag([-1.4, -1.4, 2.5, 1.0])
    return Volume(hu.astype(np.int16), matrix), nodules, vessels


@pytest.mark.parametrize("find_first", [True, False])
def test_in_a_chest_the_nodules_are_found_and_the_vessels_are_not(tmp_path, chest, find_first):
    volume, nodules, _ = chest
    speeds = {"balanced": {"level": 4, "find_first": find_first}}
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0", speeds=speeds), "cpu")
    seen = []
    maps = engine.predict(volume, Request("nodule"), lambda *report: seen.append(report))
    result = maps.at()
    assert len(result.segments) == 3
    for nodule, free in zip(nodules, (True, True, False), strict=True):
        segment = result.segments[np.bincount(result.labelmap[nodule]).argmax() - 1]
        assert dice(result.labelmap == segment.value, nodule) > 0.9
        assert (segment.measurements["pleura_mm"] >= 4) == free
    assert [phase for phase, _ in groupby(phase for *_, phase in seen)] == ["lungs", "search", "candidates"]
    assert all(done <= total for done, total, _ in seen)
    ends = {phase: (done, total) for done, total, phase in seen}
    assert all(done == total for done, total in ends.values())
    again = maps.at(0.9)
    assert len(again.segments) == 3


def test_one_thread_and_several_leave_the_same_maps_and_progress_comes_from_the_callers_thread(tmp_path, chest):
    """Where windows of two candidates overlap, the map holds what the later one found, whichever was done first."""
    engine, volume = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu"), chest[0]
    callers: set[int] = set()
    maps = [
        engine.predict(volume, Request("nodule", threads=n), lambda *_: callers.add(threading.get_ident()))
        for n in (1, 2, 3)
    ]
    assert callers == {threading.get_ident()}
    for other in maps[1:]:
        assert other.slices == maps[0].slices
        np.testing.assert_array_equal(other.pixels.probability, maps[0].pixels.probability)
        np.testing.assert_array_equal(other.pixels.uncertainty, maps[0].pixels.uncertainty)
        assert other.at().segments == maps[0].at().segments


def test_a_chest_of_thin_slices_is_searched_on_slices_as_far_apart_as_thick_ones(tmp_path, chest):
    volume, _, _ = chest
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    thin = Volume(volume.array.repeat(2, axis=0), volume.ijk_to_ras @ np.diag([1, 1, 0.5, 1]))

    def windows(volume: Volume) -> int:
        with pytest.raises(InterruptedError) as stopped:
            engine.predict(volume, Request("nodule"), first)
        return stopped.value.args[0]

    def first(done: int, total: int, phase: str) -> None:
        if phase == "search":
            raise InterruptedError(total)

    assert windows(thin) == windows(volume) > len(volume.array) / 2


@pytest.mark.parametrize(
    ("slice_mm", "every", "searched"),
    [
        (0.625, False, [6, 10]),  # 2.5 mm apart, with half of that before the first one
        (1.2501, False, [5, 7, 9, 11]),
        (2.5, False, [*range(4, 12)]),
        (0.625, True, [*range(4, 12)]),
    ],
)
def test_the_slices_that_are_searched_lie_in_the_middle_of_the_thickness_that_each_stands_for(
    slice_mm, every, searched
):
    inside = np.zeros((20, 3, 3), bool)
    inside[4:12, 1, 1] = True
    assert [*searched_slices(inside, slice_mm, every)] == searched
    assert not searched_slices(inside[:4], slice_mm, every)


@pytest.mark.parametrize("find_first", [True, False])
def test_a_bulging_vessel_with_contrast_medium_is_not_a_nodule_but_a_calcified_nodule_is(tmp_path, chest, find_first):
    volume, (calcified, removed, _), vessels = chest
    bulge = ball((8, 65, 149), 4, volume.array.shape, volume.spacing_mm[::-1])  # of a vessel through all slices
    hu = np.where(removed, np.int16(LUNG), volume.array)
    hu[calcified | bulge | vessels] = 300
    speeds = {"balanced": {"level": 4, "find_first": find_first}}
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0", speeds=speeds), "cpu")
    result = segmented(engine, Volume(hu, volume.ijk_to_ras))
    assert len(result.segments) == 2  # one is at the wall
    assert dice(result.labelmap == result.segments[0].value, calcified) > 0.9
    assert not result.labelmap[bulge].any()


def test_unlikely_findings_are_left_out_of_a_chest_and_a_box_but_not_at_a_point(tmp_path, chest):
    volume, _, _ = chest
    decision = {"intercept": 0.0, "weights": {"size": 1.0}, "least": 0.0}
    folder = tmp_path / "models" / "nodule-v1.0.0"
    engine = load_engine(bright_nodule_bundle(folder, decision=decision), "cpu")
    smallest, _, largest = sorted(s.measurements["probability"] for s in segmented(engine, volume).segments)
    everything = tuple((0, n) for n in volume.array.shape)
    for where in ({}, {"box": everything}):
        maps = engine.predict(volume, Request("nodule", **where))
        (segment,) = maps.at(show_from=largest).segments
        assert segment.measurements["probability"] == largest
        assert len(maps.at().segments) == 3
        assert maps.at(show_from=largest).show_from == largest
        (segment,) = engine.predict(volume, Request("nodule", show_from=largest, **where)).at().segments
        assert segment.measurements["probability"] == largest
    point = ras((15, 65, 25), volume.ijk_to_ras)
    at_smallest = engine.predict(volume, Request("nodule", points=[point], show_from=largest)).at(show_from=largest)
    assert at_smallest.segments[0].measurements["probability"] == pytest.approx(smallest, abs=0.01)
    assert at_smallest.show_from is None


@pytest.mark.parametrize(("slice_mm", "kinds"), [(5.0, []), (5.1, ["coarse"])])
def test_a_search_on_slices_too_far_apart_has_a_note_and_a_point_has_none(tmp_path, chest, slice_mm, kinds):
    volume, _, _ = chest
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    apart = Volume(volume.array, volume.ijk_to_ras @ np.diag([1, 1, slice_mm / 2.5, 1]))
    point = ras((12, 60, 50), apart.ijk_to_ras)
    for where, expected in (({}, kinds), ({"box": np.s_[5:20, 40:80, 30:70]}, kinds), ({"points": [point]}, [])):
        notes = engine.predict(apart, Request("nodule", **where)).notes
        assert [note.kind for note in notes] == expected


def test_a_nodule_that_the_end_of_the_scan_cuts_says_so(tmp_path, chest):
    volume, _, _ = chest
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    cut = Volume(volume.array[12:], volume.ijk_to_ras)  # through the middle of the first one
    result = segmented(engine, cut, points=[ras((0, 60, 50), cut.ijk_to_ras)])
    assert result.segments[0].measurements["cut_by_scan"] == ["inferior"]
    assert [note.kind for note in result.notes] == ["cut-by-scan"]
    whole = segmented(engine, volume, points=[ras((12, 60, 50), volume.ijk_to_ras)])
    assert whole.segments[0].measurements["cut_by_scan"] == []


def test_a_point_a_box_and_a_chest_say_the_same_of_one_nodule(tmp_path, chest):
    volume, _, _ = chest
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    box = np.s_[5:20, 45:75, 35:66]
    found = [
        segmented(engine, volume, **where)
        for where in ({}, {"box": box}, {"points": [ras((13, 61, 52), volume.ijk_to_ras)]})
    ]
    for result in found[1:]:
        np.testing.assert_array_equal(result.labelmap[box] > 0, found[0].labelmap[box] > 0)


def test_a_nodule_of_a_chest_that_may_go_on_beyond_its_window_has_a_note_as_one_of_a_point_has(
    tmp_path, chest, monkeypatch
):
    volume, _, _ = chest
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    assert segmented(engine, volume).notes == ()
    monkeypatch.setattr("UNetPlusPlusSegmentLib.nodule.maps.has_room", lambda *_: False)
    for where in ({}, {"points": [ras((12, 60, 50), volume.ijk_to_ras)]}):
        result = segmented(engine, volume, **where)
        notes = [note for note in result.notes if note.kind == "may-extend"]
        assert len(notes) == len(result.segments) > 0


def test_candidates_in_the_lungs_are_examined_once_and_those_hardly_in_them_are_not(tmp_path, chest):
    volume, _, _ = chest
    engine = load_engine(bright_nodule_bundle(tmp_path / "nodule-v1.0.0"), "cpu")
    spacing_mm, shape = volume.spacing_mm[::-1], volume.array.shape
    mass, dome = ball((12, 60, 50), 14, shape, spacing_mm), ball((12, 65, 100), (8, 30, 24), shape, spacing_mm)
    for spot, times in ((mass, 1), (dome, 0)):
        hu = np.where(spot, np.int16(TISSUE), volume.array)
        maps = engine.predict(Volume(hu, volume.ijk_to_ras), Request("nodule"))
        at = [tuple(np.rint(candidate.index).astype(int)) for candidate in maps.candidates]
        assert sum(spot[index] for index in at) == times
        assert len(at) >= 2  # the nodules of the chest are


def test_a_mass_that_is_joined_to_more_probable_vessels_is_looked_at_in_its_middle():
    probability = np.zeros((12, 60, 60), np.float32)
    probability[2:10, 10:34, 10:34] = 0.95  # a mass of 24 mm
    probability[5, 34:58, 20] = 1.0  # and a vessel
    found = [at for at, _ in places(probability, np.ones(probability.shape, bool), 0.5, (2.5, 1.0, 1.0))]
    assert len(found) == 1
    assert np.abs(found[0] - (5.5, 21.5, 21.5)).max() <= 4
