"""Nodules: which shapes count, and in what order they stand in the table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from UNetPlusPlusSegmentLib.core.masks import components, distance_mm
from UNetPlusPlusSegmentLib.core.note import Note
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.core.volume import Volume, axial_volume
from UNetPlusPlusSegmentLib.files import read_volume, write_segmentation
from UNetPlusPlusSegmentLib.nodule.lungs import find_lungs
from UNetPlusPlusSegmentLib.nodule.segments import can_be_nodule, number_nodules

SHAPE = (30, 120, 130)
SPACING_MM = np.array([2.0, 0.8, 0.7])  # K, J, I
TILT = Rotation.from_euler("xyz", [10, -15, 20], degrees=True).as_matrix()
MATRIX = np.eye(4)
MATRIX[:3, :3] = TILT * SPACING_MM[::-1]
LUNGS = np.zeros(SHAPE, bool)
LUNGS[:, 10:110, 10:120] = True
DEPTH_MM = distance_mm(~LUNGS, SPACING_MM).clip(0)
STEPS_MM = MATRIX[:3, 2::-1].T  # to the next voxel along K, J, I


def ellipsoid(centre: tuple, half_axes_mm: tuple) -> np.ndarray:
    """Centre in voxels, half axes in mm, along K, J, I."""
    offset_mm = (np.indices(SHAPE).T - centre) * SPACING_MM
    return (((offset_mm / half_axes_mm) ** 2).sum(axis=-1) <= 1).T


SMALL = ellipsoid((8, 30, 30), (3, 3, 3))
LARGE = ellipsoid((15, 80, 40), (9, 9, 9))
OVAL = ellipsoid((22, 40, 90), (4, 4, 9))
NODULES = [LARGE, OVAL, SMALL]  # by mean diameter
NO_NODULES = {
    "a spot": ellipsoid((8, 90, 90), (1.1, 1.1, 1.1)),
    "a vessel in the slice": ellipsoid((8, 100, 70), (2, 2, 30)),
    "a vessel through the slices": ellipsoid((15, 100, 100), (26, 2, 2)),
    "a fissure": ellipsoid((20, 60, 70), (20, 1.2, 20)),
    "a ribbon": ellipsoid((20, 60, 70), (6, 2, 14)),
    "a spot on one thin slice": ellipsoid((3, 70, 70), (1, 12, 12)),
    "a lobe without air": LUNGS,
    "a fork": np.logical_or.reduce([ellipsoid((14, 60, 70), axes) for axes in [(2, 2, 24), (2, 24, 2), (24, 2, 2)]]),
}


def volume_of(*spots: np.ndarray) -> Volume:
    return Volume(np.where(np.logical_or.reduce(spots), 30, -850).astype(np.int16), MATRIX)


def found(*spots: np.ndarray) -> tuple[np.ndarray, tuple[Segment, ...], list[Note]]:
    volume, labels = volume_of(*spots), components(np.logical_or.reduce(spots), corners=True)
    for value in range(1, labels.max() + 1):
        if not can_be_nodule(labels == value, STEPS_MM, is_cut=False):
            labels[labels == value] = 0
    return number_nodules(labels, volume, DEPTH_MM)


def test_nodules_are_numbered_from_the_largest_on():
    labelmap, segments, notes = found(SMALL, LARGE, OVAL)
    assert labelmap.dtype == np.uint8
    assert notes == []
    assert [s.name for s in segments] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    assert [s.value for s in segments] == [1, 2, 3]
    for segment, nodule in zip(segments, NODULES, strict=True):
        np.testing.assert_array_equal(labelmap == segment.value, nodule)
    means_mm = [s.measurements["mean_diameter_mm"] for s in segments]
    assert means_mm == sorted(means_mm, reverse=True)
    assert means_mm[0] == pytest.approx(18, abs=0.4)
    assert means_mm[2] == pytest.approx(6, abs=0.4)


def test_what_is_measured_is_what_lies_there():
    _, segments, _ = found(*NODULES)
    assert segments[1].measurements["long_axis_mm"] == pytest.approx(18, abs=0.8)
    assert segments[1].measurements["short_axis_mm"] == pytest.approx(8, abs=0.8)
    assert {s.measurements["kind"] for s in segments} == {"solid"}
    assert {s.measurements["mean_hu"] for s in segments} == {30.0}
    for segment, centre in zip(segments, [(15, 80, 40), (22, 40, 90), (8, 30, 30)], strict=True):
        np.testing.assert_allclose(segment.measurements["centroid_ras"], (MATRIX @ [*centre[::-1], 1])[:3], atol=0.05)
    # From the large one's edge, 9 mm round voxel 40 along I, to the edge of the lungs, voxel 9.
    assert segments[0].measurements["pleura_mm"] == pytest.approx((40 - 9) * 0.7 - 9, abs=0.7)


def test_measurements_fit_into_json():
    _, segments, _ = found(*NODULES)
    for segment in segments:
        assert json.loads(json.dumps(segment.measurements))["centroid_ras"] == list(
            segment.measurements["centroid_ras"]
        )


@pytest.mark.parametrize("what", NO_NODULES)
def test_what_cannot_be_a_nodule_is_left_out_and_leaves_the_others_alone(what):
    if (NO_NODULES[what] & np.logical_or.reduce(NODULES)).any():
        assert found(NO_NODULES[what])[1] == ()
        return
    labelmap, segments, _ = found(*NODULES, NO_NODULES[what])
    assert len(segments) == 3
    np.testing.assert_array_equal(labelmap > 0, np.logical_or.reduce(NODULES))


def test_every_limit_is_needed_for_one_of_the_shapes(monkeypatch):
    reason = {
        "a spot": ("LEAST_DIAMETER_MM", 0.1),
        "a vessel in the slice": ("LEAST_ROUND", 0),
        "a fissure": ("LEAST_ROUND", 0),
        "a ribbon": ("LEAST_ROUND", 0),
        "a spot on one thin slice": ("LEAST_ROUND", 0),
        "a fork": ("LEAST_ROUND", 0),
        "a lobe without air": ("MOST_DIAMETER_MM", 100),
    }
    for what, (limit, value) in reason.items():
        assert found(NO_NODULES[what])[1] == ()
        with monkeypatch.context() as patch:
            patch.setattr(f"UNetPlusPlusSegmentLib.nodule.segments.{limit}", value)
            assert len(found(NO_NODULES[what])[1]) == 1, what


def test_one_pixel_on_any_number_of_slices_is_no_nodule_however_large_it_is():
    coarse_mm = np.diag([10.0, 3.05, 3.05])
    for shape, can_be in (((1, 1, 1), False), ((2, 1, 1), False), ((1, 2, 2), True)):
        assert can_be_nodule(np.ones(shape, bool), coarse_mm, is_cut=False) == can_be


def test_a_nodule_half_in_the_chest_wall_touches_the_pleura():
    _, (segment,), _ = found(ellipsoid((15, 107, 60), (5, 5, 5)))
    assert segment.measurements["pleura_mm"] == 0


def test_no_nodule_is_a_result():
    labelmap, segments, notes = found(np.zeros(SHAPE, bool))
    assert not labelmap.any()
    assert (segments, notes) == ((), [])


def test_what_else_is_known_of_a_nodule_stands_among_its_measurements():
    labels = LARGE * 7 + SMALL * 3
    _, segments, _ = number_nodules(labels, volume_of(LARGE, SMALL), None, {3: {"probability": 0.4}})
    assert [segment.measurements.get("probability") for segment in segments] == [None, 0.4]


def test_more_than_3_cm_is_called_a_mass():
    _, segments, _ = found(ellipsoid((15, 60, 65), (17, 17, 17)), SMALL)
    assert [s.name for s in segments] == ["Mass 1", "Nodule 2"]


@pytest.mark.parametrize("degrees", range(0, 45, 4))
@pytest.mark.parametrize(("diameter_mm", "name"), [(30.0, "Nodule 1"), (30.001, "Mass 1")])
def test_a_mean_diameter_of_exactly_3_cm_is_no_mass_however_the_volume_lies(degrees, diameter_mm, name):
    cross = np.zeros((1, 31, 31), np.uint8)
    cross[0, 15] = cross[0, :, 15] = 1
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() * diameter_mm / 30.5
    _, (segment,), _ = number_nodules(cross, Volume(np.zeros(cross.shape, np.int16), turned))
    assert segment.measurements["mean_diameter_mm"] == pytest.approx(diameter_mm)
    assert segment.name == name


def test_only_the_largest_are_kept_of_very_many_and_a_note_says_so(monkeypatch):
    monkeypatch.setattr("UNetPlusPlusSegmentLib.nodule.segments.MOST_SEGMENTS", 50)
    labels = np.zeros(SHAPE, np.int64)
    for number in range(57):
        row, column = 2 + 11 * (number // 11), 2 + 11 * (number % 11)
        labels[5, row : row + 3, column : column + 3 + number // 30] = 1000 - number
    labelmap, segments, notes = number_nodules(labels, volume_of(labels > 0))
    assert len(segments) == labelmap.max() == 50
    assert [str(note) for note in notes] == [
        "57 nodules were found; only 50 are kept, the most likely or else the largest."
    ]
    assert (labelmap == 1).sum() == 12
    assert segments[0].measurements["pleura_mm"] is None


def test_the_most_likely_are_kept_of_very_many_if_it_is_known_and_stand_in_the_order_of_their_size(monkeypatch):
    monkeypatch.setattr("UNetPlusPlusSegmentLib.nodule.segments.MOST_SEGMENTS", 2)
    labels = LARGE + 2 * OVAL.astype(np.uint8) + 3 * SMALL.astype(np.uint8)
    known = {1: {"probability": 0.5}, 2: {"probability": 0.1}, 3: {"probability": 0.9}}
    labelmap, segments, (note,) = number_nodules(labels, volume_of(*NODULES), None, known)
    np.testing.assert_array_equal(labelmap, LARGE + 2 * SMALL.astype(np.uint8))
    assert [segment.measurements["probability"] for segment in segments] == [0.5, 0.9]
    assert note.kind == "not-all-kept"


def test_the_colours_are_bright_and_all_different():
    labels = np.zeros(SHAPE, np.uint16)
    labels[5, 2:112:10, 2:112:10] = np.arange(1, 122).reshape(11, 11)
    colors = [s.color for s in number_nodules(labels, volume_of(labels > 0))[1]]
    assert len(set(colors)) == 121
    assert all(max(color) == 255 and all(0 <= channel <= 255 for channel in color) for color in colors)
    neighbours = np.abs(np.diff(np.array(colors), axis=0)).max(axis=1)
    assert neighbours.min() >= 100


def test_the_terminology_survives_the_file(tmp_path):
    slicerio = pytest.importorskip("slicerio")
    labelmap, segments, _ = found(*NODULES)
    path = tmp_path / "nodules.seg.nrrd"
    write_segmentation(path, labelmap, MATRIX, segments)
    read = slicerio.read_segmentation(str(path))
    assert [s["name"] for s in read["segments"]] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    terminology = read["segments"][0]["terminology"]
    assert terminology["type"] == ["SCT", "27925004", "Nodule"]
    assert terminology["anatomicRegion"] == ["SCT", "39607008", "Lung"]


def test_the_real_nodule_has_the_shape_of_one(shared_data):
    volume, _ = read_volume(shared_data("volumes/LIDC-IDRI-0001_ct.nii.gz"))
    truth = read_volume(shared_data("volumes/LIDC-IDRI-0001_nodule.nii.gz"))[0].array
    truth = (truth > 0) & (truth < 100)
    assert can_be_nodule(truth, axial_volume(volume).ijk_to_ras[:3, 2::-1].T, is_cut=False)
    labelmap, segments, _ = number_nodules(truth.astype(np.uint8), volume, find_lungs(volume))
    np.testing.assert_array_equal(labelmap == 1, truth)
    assert [s.name for s in segments] == ["Nodule 1"]
    assert 0 <= segments[0].measurements["pleura_mm"] <= 6  # it all but touches the wall
