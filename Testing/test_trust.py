"""Trust: a result says where the scan cuts the organ off, what is doubtful, what was dropped, and which Dice to expect."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Testing.support.bodies import LPS, body, reorder
from Testing.support.bright import bright_bundle, segmented
from UNetPlusPlusSegmentLib.core.masks import measure
from UNetPlusPlusSegmentLib.core.request import SPEEDS, Request
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.trust import why_no_dice
from UNetPlusPlusSegmentLib.core.volume import Volume, bounding_box
from UNetPlusPlusSegmentLib.engine.maps import LabelRegion, PixelMaps
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.pixel_box import Box
from UNetPlusPlusSegmentLib.engine.signs import SegmentPixels, weights_of_parts
from UNetPlusPlusSegmentLib.engine.trust import expected_dice, notes_about
from UNetPlusPlusSegmentLib.network.card import BundleError, ExpectedDice

FITTED = ExpectedDice(-3.0, {"unlikely": 0.1, "doubtful": 0.2}, low=-0.5, high=0.6)
DOUBTFUL_HU = 62  # the bright network says 0.6
INSIDE = np.s_[10:20, 30:60, 25:70]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return bright_bundle(tmp_path_factory.mktemp("models") / "bright-v1.0.0")


@pytest.fixture(scope="module")
def engine(bundle):
    return SliceEngine(bundle, "cpu")


def with_label(engine, **changes) -> SliceEngine:
    """The same network with another card."""
    label = replace(engine.bundle.labels[0], **changes)
    return SliceEngine(replace(engine.bundle, labels=(label,)), "cpu")


def found(engine, volume, **asked) -> dict:
    (segment,) = segmented(engine, volume, **asked).segments
    return segment.measurements


def kinds(engine, volume, **asked) -> list[str]:
    return [note.kind for note in segmented(engine, volume, **asked).notes]


# The ends of the scan


def organ_at(side: str) -> Volume:
    """A body whose organ reaches one side of the array."""
    organ = {
        "inferior": np.s_[:10, 30:60, 25:70],
        "superior": np.s_[20:, 30:60, 25:70],
        "anterior": np.s_[10:20, :40, 25:70],
        "posterior": np.s_[10:20, 50:, 25:70],
        "right": np.s_[10:20, 30:60, :40],
        "left": np.s_[10:20, 30:60, 70:],
        "": INSIDE,
    }
    return body(organ=organ[side])


@pytest.mark.parametrize("side", ["inferior", "superior", "anterior", "posterior", "right", "left", ""])
@settings(max_examples=10)
@given(axes=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_the_side_at_which_an_organ_is_cut_off_is_named_however_the_array_lies(engine, side, axes, flips):
    volume, _ = reorder(organ_at(side), axes, flips)
    result = segmented(engine, volume, speed="accurate")
    assert result.segments[0].measurements["cut_by_scan"] == ([side] if side else [])
    assert [note.kind for note in result.notes] == (["cut-by-scan"] if side else [])


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_round_field_of_view_cuts_an_organ_off_where_nothing_was_measured_beyond_it(engine, speed):
    volume = body(organ=np.s_[10:20, 30:60, 10:70])
    assert found(engine, volume, speed=speed)["cut_by_scan"] == []
    volume.array[:, :, :10] = -2000
    assert found(engine, volume, speed=speed)["cut_by_scan"] == ["right"]


def test_a_box_of_the_user_is_no_end_of_the_scan(engine):
    assert found(engine, body(), box=np.s_[12:18, 35:50, 30:60])["cut_by_scan"] == []


@pytest.mark.parametrize(("axes", "flips"), [((0, 1, 2), (False,) * 3), ((2, 0, 1), (True, False, True))])
@pytest.mark.parametrize(
    ("sides", "box"),
    [
        ("inferior, anterior, left", np.s_[12:30, 40:80, 10:60]),
        ("superior, posterior, right", np.s_[0:18, 10:50, 35:100]),
        ("", np.s_[0:30, 10:80, 10:100]),
    ],
)
def test_an_organ_that_the_box_cuts_off_is_named_in_a_note_however_the_array_lies(engine, sides, box, axes, flips):
    inside = np.zeros(body().array.shape, np.float32)
    inside[box] = 1
    volume, _ = reorder(body(), axes, flips)
    box = bounding_box(reorder(Volume(inside, LPS), axes, flips)[0].array > 0)
    notes = [str(note) for note in segmented(engine, volume, box=box).notes if note.kind == "cut-by-box"]
    cut = f"The liver reaches the edge of the box ({sides}): only the part inside was measured. Enlarge the box to measure it all."
    assert notes == ([cut] if sides else [])


# A box that is turned against the voxels


def diamond(half: float) -> dict:
    """The voxels of a prism about the middle of the organ, whose edges run along K, J + I and J − I, as in a request; and as a mask."""
    turned = ((0.1, 0, 0, -1.45), (0, 1 / half, 1 / half, -91.5 / half), (0, 1 / half, -1 / half, 2.5 / half))
    return {"box": np.s_[0:30, 5:85, 8:88], "turned": turned}


def inside_diamond(half: float) -> np.ndarray:
    k, j, i = np.indices(body().array.shape)
    return (np.abs(k - 14.5) <= 10) & (np.abs(j - 44.5 + i - 47) <= half) & (np.abs(j - 44.5 - (i - 47)) <= half)


@pytest.mark.parametrize("speed", SPEEDS)
def test_of_a_turned_box_only_what_lies_in_it_is_segmented_measured_and_judged(engine, speed):
    says = with_label(engine, expected_dice={speed: FITTED})
    whole = segmented(says, body(), speed=speed, box=diamond(24)["box"]).labelmap
    maps = says.predict(body(), Request(speed=speed, **diamond(24)))
    result = maps.at()
    inside = inside_diamond(24)
    np.testing.assert_array_equal(result.labelmap > 0, (whole > 0) & inside)
    assert 0 < np.count_nonzero(result.labelmap) < np.count_nonzero(whole)
    assert not maps.probability()[~inside].any() and maps.probability()[inside].max() > 0.5
    (segment,) = result.segments
    assert segment.measurements["volume_ml"] == measure(result.labelmap > 0, body())["volume_ml"]
    beside = body()
    beside.array[12:18, 30:34, 25:30] = DOUBTFUL_HU  # a corner of the organ
    beside.array[12:18, 10:17, 20:80] = 90  # larger than what lies inside
    (same,) = segmented(says, beside, speed=speed, **diamond(24)).segments
    for name in ("expected_dice", "expected_dice_low", "expected_dice_high"):
        assert same.measurements.pop(name) == pytest.approx(segment.measurements[name], abs=1e-4)
    assert same.measurements == {name: segment.measurements[name] for name in same.measurements}


@pytest.mark.parametrize(("axes", "flips"), [((0, 1, 2), (False,) * 3), ((2, 0, 1), (True, False, True))])
def test_an_organ_that_a_turned_box_cuts_off_is_named_in_a_note_however_the_array_lies(engine, axes, flips):
    for half, cut in ((24, ["anterior, posterior, right, left"]), (60, [])):
        volume, _ = reorder(body(), axes, flips)
        turned = turned_like(volume, diamond(half))
        notes = [str(note) for note in segmented(engine, volume, **turned).notes if note.kind == "cut-by-box"]
        assert [note.partition("(")[2].partition(")")[0] for note in notes] == cut


def turned_like(volume: Volume, places: dict) -> dict:
    """A request about a box of `body()`, for the same voxels of an array that lies otherwise."""
    inside = np.zeros(body().array.shape, np.float32)
    inside[places["box"]] = 1
    to_body = np.linalg.solve(body().ijk_to_ras, volume.ijk_to_ras)[[2, 1, 0, 3]][:, [2, 1, 0, 3]]
    corners = np.array([np.linalg.solve(to_body, [*corner, 1])[:3] for corner in ((0, 5, 8), (29, 84, 87))]).round()
    box = [slice(int(first), int(last) + 1) for first, last in np.sort(corners, axis=0).T]
    return {"box": box, "turned": np.array(places["turned"]) @ to_body}


# Doubt


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_doubtful_share_and_the_most_doubtful_slices_are_those_of_the_doubtful_voxels(engine, speed):
    volume = body(shape=(60, 90, 110), organ=np.s_[10:50, 30:60, 25:70])
    for k, rows in ((14, 10), (33, 20), (44, 5)):  # 3 mm slices
        volume.array[k - 1 : k + 2, 30 : 30 + rows, 25:70] = DOUBTFUL_HU
    now = found(engine, volume, speed=speed)
    assert now["doubtful_share"] == pytest.approx(3 * (10 + 20 + 5) / (40 * 30), rel=0.1 if speed == "accurate" else 1)
    assert sorted(slice["k"] // 10 for slice in now["doubtful_slices"]) == [1, 3, 4]
    for each, (r, a, s) in zip(now["doubtful_slices"], now["doubtful_slices_ras"], strict=True):
        assert each["s_mm"] == s == pytest.approx(3.0 * each["k"])
        assert r == pytest.approx(-2 * 47, abs=2) and -2 * 60 < a < -2 * 29
    if speed == "accurate":
        assert [each["k"] // 10 for each in now["doubtful_slices"]] == [3, 1, 4], "the worst comes first"


@settings(max_examples=10)
@given(axes=st.permutations([0, 1, 2]), flips=st.tuples(*[st.booleans()] * 3))
def test_a_doubtful_slice_has_the_index_of_the_array_as_it_came_and_its_place_in_the_patient(engine, axes, flips):
    volume, _ = reorder(body(), axes, flips)
    doubtful, _ = reorder(
        Volume(np.where(np.arange(30)[:, None, None] == 15, 1.0, 0.0) + 0 * body().array, LPS), axes, flips
    )
    volume.array[(doubtful.array > 0) & (volume.array > 60)] = DOUBTFUL_HU
    now = found(engine, volume, speed="accurate")
    doubtful_along = [doubtful.array.any(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    (through,) = (each for each in doubtful_along if each.sum() == 1)
    assert now["doubtful_slices"][0]["k"] == through.argmax()
    assert now["doubtful_slices"][0]["s_mm"] == pytest.approx(45)


def test_doubtful_slices_are_10_mm_apart_and_each_is_pointed_at_where_its_doubt_is():
    probability = np.zeros((6, 4, 4), np.float16)
    for plane, doubtful in zip(probability, (1, 4, 3, 2, 0, 2), strict=True):
        plane[1, :doubtful] = 0.5
    region = LabelRegion(np.array([10, 13, 16, 19]), np.array([1, 4, 7, 10]), (probability, 0 * probability))
    segment = SegmentPixels(region, probability > 0, first=20, slice_mm=5.0, threshold=0.5, everywhere=0.0)
    assert segment.worst_slices(3, 10.0) == [(21, 13, 5.5), (23, 13, 2.5), (25, 13, 2.5)]
    assert segment.worst_slices(2, 5.0) == [(21, 13, 5.5), (22, 13, 4.0)]


# Parts


def test_a_region_of_voxels_has_the_pixels_whose_centres_lie_in_it():
    pixels = PixelMaps.empty(5, None, Box((4, 5), (0, 5), (1, 4), (0, 5)))  # each pixel as wide as three voxels
    pixels.probability[...] = np.arange(15).reshape(3, 5)
    for rows, columns, centres in (
        (slice(0, 12), slice(0, 15), ([4, 7, 10], [1, 4, 7, 10, 13])),
        (slice(4, 11), slice(2, 14), ([4, 7, 10], [4, 7, 10, 13])),
        (slice(5, 10), slice(1, 13), ([7], [1, 4, 7, 10])),
    ):
        region = pixels.region(0, (slice(1, 3), rows, columns), (12, 15))
        assert (region.rows.tolist(), region.columns.tolist()) == centres
        row, column = (centre // 3 for centre in (centres[0][0], centres[1][-1]))
        assert region.probability.shape == (2, *map(len, centres))
        assert region.probability[0, 0, -1] == 5 * (row - 1) + column


@given(st.floats(0.51, 0.74))
def test_the_weight_of_a_part_is_its_size_times_what_its_probability_exceeds_the_threshold_by(probability):
    parts = np.zeros((4, 20, 20), np.uint8)
    parts[1:3, 2:8, 2:8], parts[1:3, 12:18, 12:18] = 1, 2
    pixels = PixelMaps.empty(4, None, Box.whole(4, (20, 20)))
    pixels.probability[parts == 1] = probability
    pixels.probability[parts == 2] = 0.5 + 2 * (probability - 0.5)
    _, one, two = weights_of_parts(pixels, 0.5, 0, parts, (0, 0, 0), (20, 20))
    assert one == pytest.approx(72 * (probability - 0.5), rel=0.05)
    assert two == pytest.approx(2 * one, rel=0.05)
    cut = weights_of_parts(pixels, 0.5, 0, parts[1:, 2:, 1:], (1, 2, 1), (20, 20))
    assert cut[1:].tolist() == [one, two]


def two_parts() -> Volume:
    volume = body(shape=(40, 90, 110), organ=np.s_[10:30, 20:60, 20:60])
    volume.array[12:22, 30:60, 75:95] = 90
    return volume


def test_parts_that_were_dropped_are_measured_and_noted(engine):
    volume = two_parts()
    now = found(engine, volume, speed="accurate")
    assert now["dropped_ml"] == pytest.approx(10 * 30 * 20 * volume.voxel_volume_ml)
    (note,) = segmented(engine, volume, speed="accurate").notes
    assert note.kind == "dropped" and f"{now['dropped_ml']:.0f} ml" in note.text
    assert found(engine, body(), speed="accurate")["dropped_ml"] == 0


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_large_part_is_kept_or_removed_as_the_card_says(engine, speed):
    steps = replace(engine.bundle.postprocessing, largest_component=False, least_part=0.1)
    keeps = SliceEngine(replace(engine.bundle, postprocessing=steps), "cpu")
    volume = two_parts()
    most = volume.array >= 75
    assert (segmented(keeps, volume, speed=speed).labelmap > 0)[most].all()
    dim = replace(volume, array=np.where(volume.array == 90, DOUBTFUL_HU, volume.array))  # as large, but improbable
    assert not (segmented(keeps, dim, speed=speed).labelmap > 0)[dim.array == DOUBTFUL_HU].any()
    assert not (segmented(engine, volume, speed=speed).labelmap > 0)[volume.array == 90].any()


# The usual


def test_unusual_values_get_a_note_but_not_the_small_volume_of_an_organ_that_is_cut_off(engine):
    judged = with_label(engine, usual={"volume_ml": (200.0, 300.0), "mean_hu": (100.0, 160.0)})
    notes = [note.text for note in segmented(judged, body()).notes if note.kind == "unusual"]
    assert notes == [
        "The volume of the liver, 162 ml, is unusual: most people have 200 to 300 ml.",
        "The mean attenuation of the liver, 90 HU, is unusual: most people have 100 to 160 HU.",
    ]
    assert kinds(judged, organ_at("right")) == ["cut-by-scan", "unusual"]
    assert kinds(judged, body(), box=np.s_[0:30, 10:80, 10:60]) == ["cut-by-box", "unusual"]


@pytest.mark.parametrize(("mean_hu", "kinds"), [(39.4, ["unusual"]), (39.6, []), (150.4, []), (150.6, ["unusual"])])
def test_a_value_that_the_note_would_round_to_a_usual_one_gets_no_note(engine, mean_hu, kinds):
    label = replace(engine.bundle.labels[0], usual={"mean_hu": (40.0, 150.0)})
    known = {"cut_by_scan": [], "dropped_ml": 0.0, "mean_hu": mean_hu}
    assert [note.kind for note in notes_about(label, known, ())] == kinds


# The expected Dice


def test_a_model_that_judges_by_an_unknown_sign_is_refused_before_it_runs(engine):
    with pytest.raises(BundleError, match="uses 'smell', which this version does not know"):
        with_label(engine, expected_dice={"fast": replace(FITTED, weights={"smell": 1.0})})


def test_the_signs_of_a_segment_of_six_pixels_are_as_computed_by_hand():
    probability, spread = np.zeros((2, 4, 4), np.float16), np.full((2, 4, 4), 0.125, np.float16)
    inside = np.zeros((2, 4, 4), bool)
    inside[0, 1, :] = inside[1, 1, :2] = True
    probability[inside] = 0.875
    probability[0, 3, 0], spread[0, 3, 3] = 0.5, 0.375  # beside it: the network is not sure, and its heads are at odds
    elsewhere = 1.25
    region = LabelRegion(np.arange(4), np.arange(4), (probability, spread))
    segment = SegmentPixels(region, inside, 0, 5.0, 0.5, everywhere=6 * 0.875 + 0.5 + elsewhere)
    assert {name: np.exp(sign) for name, sign in segment.signs().items()} == pytest.approx(
        {"unlikely": 1 - 2 * 5.25 / (6 + 7), "doubtful": 2 / 6, "at_odds": 0.125, "ragged": 2 / (2 * 6)}
    )
    assert segment.doubtful_share == 0


def test_the_expected_dice_is_one_less_the_error_that_the_signs_foretell():
    fitted = ExpectedDice(-1.0, {"a": 0.5, "b": 2.0}, low=-0.4, high=0.7)
    expected = 1 - np.exp([-2.0, -1.3, -2.4])
    assert expected_dice({"a": -4.0, "b": 0.5}, fitted) == pytest.approx(tuple(expected))


@given(st.floats(-20, 20), st.dictionaries(st.sampled_from("ab"), st.floats(-9, 9), min_size=2), st.floats(-7, 0))
def test_the_expected_dice_and_its_range_lie_between_0_and_1_in_order(intercept, weights, sign):
    fitted = ExpectedDice(intercept, weights, low=-0.4, high=0.7)
    dice, low, high = expected_dice({"a": sign, "b": sign / 2}, fitted)
    assert 0 <= low <= dice <= high <= 1


@pytest.mark.parametrize("speed", SPEEDS)
def test_only_a_card_that_says_so_at_this_speed_gives_an_expected_dice(engine, speed):
    says = with_label(engine, expected_dice={speed: FITTED})
    for each in SPEEDS:
        assert ("expected_dice" in found(says, body(), speed=each)) == (each == speed)
    assert not any(key.startswith("expected_dice") for key in found(engine, body()))


def test_a_doubtful_organ_has_a_lower_expected_dice_and_a_note_that_says_where_to_look(engine):
    says = with_label(engine, expected_dice={"accurate": replace(FITTED, weights={"doubtful": 1.0}, intercept=0.0)})
    good, bad = body(), body()
    bad.array[12:18, 30:60, 25:70] = DOUBTFUL_HU
    assert found(says, good, speed="accurate")["expected_dice"] > 0.95
    assert found(says, bad, speed="accurate")["expected_dice"] < 0.85
    (note,) = segmented(says, bad, speed="accurate").notes
    assert note.kind == "low-dice" and "check the slices at S" in note.text


@pytest.mark.parametrize("slices", [1, 9, 10])
def test_fewer_slices_than_the_fit_has_seen_give_no_expected_dice_and_a_note(engine, slices):
    says = with_label(engine, expected_dice={"accurate": FITTED})
    volume = body(shape=(slices, 90, 110), organ=np.s_[:, 30:60, 25:70])
    in_box = {"box": np.s_[10 : 10 + slices, 0:90, 0:110], "speed": "accurate"}
    for scan, asked in ((volume, {"speed": "accurate"}), (body(), in_box)):
        assert ("expected_dice" in found(says, scan, **asked)) == (slices == 10)
        assert ("few-slices" in kinds(says, scan, **asked)) == (slices < 10)
        assert not why_no_dice(segmented(says, scan, **asked)), "the note says it, and the model is not to blame"
        assert "few-slices" not in kinds(engine, scan, **asked), (
            "a model without coefficients expects no Dice of any scan"
        )
        assert why_no_dice(segmented(engine, scan, **asked)) == "The model cannot estimate the expected Dice."


def test_another_threshold_is_judged_anew(engine):
    volume = body()
    volume.array[12:18, 30:60, 25:70] = DOUBTFUL_HU
    maps = engine.predict(volume, Request(speed="accurate"))
    at = [maps.at(threshold).segments[0].measurements for threshold in (0.5, 0.7)]
    assert at[0]["doubtful_share"] > at[1]["doubtful_share"] == 0


def test_an_organ_that_was_not_found_is_not_judged(engine):
    known = {key: value for key, value in found(engine, body(organ=np.s_[:0])).items() if value is not None}
    assert known == {"volume_ml": 0.0}


def test_a_card_keeps_what_is_usual_and_the_coefficients_and_a_result_survives_json(tmp_path, bundle):
    label = replace(bundle.labels[0], usual={"mean_hu": (20.0, 160.0)}, expected_dice={"fast": FITTED})
    stored = [json.loads(json.dumps(each)) for each in replace(bundle, labels=(label,)).as_json()["labels"]]
    again = bright_bundle(tmp_path / "again-v1.0.0", labels=stored)
    assert again.labels == (label,)
    result = segmented(SliceEngine(again, "cpu"), body(), speed="fast")
    message = json.loads(json.dumps(result.to_json()))
    assert json.loads(json.dumps(Result.from_json(message, result.labelmap).to_json())) == message
