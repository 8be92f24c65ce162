"""The engine on a network whose answer is known: the mask lies on the volume's own voxels, whatever the volume's geometry."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from Testing.support.bodies import LPS, body, reorder
from Testing.support.bright import BRIGHT_HU, bright_bundle, bright_network, segmented
from UNetPlusPlusSegmentLib.core.request import SPEEDS, Request
from UNetPlusPlusSegmentLib.core.volume import FAT_HU, Volume, VolumeError, crop
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.pixel_box import Box, aligned, body_ranges
from UNetPlusPlusSegmentLib.network.bundle import write_bundle
from UNetPlusPlusSegmentLib.network.card import Architecture, PostProcessing
from UNetPlusPlusSegmentLib.network.device import Device, DeviceError, choose_device
from UNetPlusPlusSegmentLib.network.unetpp import build_network


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> SliceEngine:
    return SliceEngine(bright_bundle(tmp_path_factory.mktemp("models") / "bright-v1.0.0"), "cpu")


@pytest.fixture(scope="module")
def random_engine(tmp_path_factory) -> SliceEngine:
    """A network with random weights, whose answer changes with any shift, flip or exchange of axes."""
    torch.manual_seed(3)
    bundle = bright_bundle(tmp_path_factory.mktemp("models") / "bright-v1.0.0")
    filters = [4, 4, 4, 4, 4]
    card = replace(
        bundle, architecture=Architecture("unetpp_ds", {"filters": filters}), postprocessing=PostProcessing()
    )
    state = build_network("unetpp_ds", filters=filters).state_dict()
    return SliceEngine(write_bundle(bundle.folder.with_name("random-v1.0.0"), card, state), "cpu")


@pytest.mark.parametrize("speed", SPEEDS)
def test_at_the_models_own_pixels_the_mask_is_exactly_what_the_network_says(engine, speed):
    volume = body()
    result = segmented(engine, volume, speed=speed)
    np.testing.assert_array_equal(result.labelmap, volume.array >= BRIGHT_HU)
    assert result.labelmap.dtype == np.uint8


@pytest.mark.parametrize("speed", ["balanced", "fast"])
def test_the_fast_ways_look_at_fewer_slices_and_find_the_same(engine, speed):
    volume = body(shape=(60, 90, 110))
    result, reference = segmented(engine, volume, speed=speed), segmented(engine, volume, speed="accurate")
    np.testing.assert_array_equal(result.labelmap, reference.labelmap)
    assert result.slices < 30 < reference.slices == 60


@pytest.mark.parametrize(("architecture", "depth"), [("unetpp_ds", 2), ("unetpp", 4), ("unet", 4)])
def test_any_network_that_training_makes_can_look_where_the_organ_is(tmp_path, architecture, depth):
    bundle = bright_bundle(tmp_path / "bright-v1.0.0", architecture=architecture, depth=depth)
    volume = body()
    for speed in SPEEDS:
        result = segmented(SliceEngine(bundle, "cpu"), volume, speed=speed)
        np.testing.assert_array_equal(result.labelmap, volume.array >= BRIGHT_HU)


@settings(max_examples=12)
@given(
    first=st.integers(0, 40), thick=st.integers(2, 40), top=st.integers(10, 50), left=st.integers(10, 60),
    slice_mm=st.sampled_from([1.0, 2.5, 5.0, 10.0]),
)  # fmt: skip
def test_wherever_the_organ_lies_the_coarse_pass_does_not_lose_a_voxel(engine, first, thick, top, left, slice_mm):
    organ = np.s_[first : first + thick, top : top + 25, left : left + 25]
    volume = body((60, 90, 110), (2.0, 2.0, slice_mm), organ)
    if thick * slice_mm < 10:
        return  # thinner than a step of the coarse pass: a sliver, no liver
    np.testing.assert_array_equal(segmented(engine, volume).labelmap, volume.array >= BRIGHT_HU)


@pytest.mark.parametrize("speed", ["balanced", "fast"])
def test_an_organ_between_the_slices_that_are_looked_at_first_is_found(engine, speed):
    volume = body((60, 90, 110), (2.0, 2.0, 2.0), np.s_[12:19, 30:60, 25:70])  # they are 10 slices apart
    np.testing.assert_array_equal(segmented(engine, volume, speed=speed).labelmap, volume.array >= BRIGHT_HU)


def test_a_part_too_thin_to_be_seen_first_is_followed_to_its_end_on_either_side(engine):
    volume = body((80, 90, 110), (2.0, 2.0, 3.0), np.s_[30:50, 30:60, 25:70])
    volume.array[5:75, 45, 50] = 90  # one pixel of the network, and a part of one where it looks first
    np.testing.assert_array_equal(segmented(engine, volume).labelmap, volume.array >= BRIGHT_HU)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_all_48_axis_orders_and_flips_of_a_volume_get_identical_masks(random_engine, axes):
    volume = body(shape=(5, 40, 52), spacing_mm=(1.7, 2.2, 4.0), organ=np.s_[1:4, 10:30, 12:40])
    reference = segmented(random_engine, volume).labelmap
    assert 0.05 < reference.mean() < 0.95
    for flips in product([False, True], repeat=3):
        turned, back = reorder(volume, axes, flips)
        result = segmented(random_engine, turned)
        np.testing.assert_array_equal(back(result.labelmap), reference)
        assert result.scan_slices == 5


@pytest.mark.parametrize("degrees", [-40, 15, 30])
def test_an_oblique_volume_gets_the_mask_of_the_straight_one(random_engine, degrees):
    volume = body(shape=(5, 40, 52), spacing_mm=(1.7, 2.2, 4.0), organ=np.s_[1:4, 10:30, 12:40])
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tilt = np.array([[1, 0, 0, 5.0], [0, c, -s, -7], [0, s, c, 90], [0, 0, 0, 1]])
    oblique = Volume(volume.array, tilt @ volume.ijk_to_ras)
    np.testing.assert_array_equal(segmented(random_engine, oblique).labelmap, segmented(random_engine, volume).labelmap)


@pytest.mark.parametrize("spacing", [0.7, 0.98, 3.0])
def test_a_ball_keeps_its_volume_when_slices_are_resampled(engine, spacing):
    size = int(200 / spacing)
    k, j, i = np.ogrid[:40, :size, :size]
    radius2 = ((k - 19.5) * 3) ** 2 + ((j - size / 2) * spacing) ** 2 + ((i - size / 2) * spacing) ** 2
    volume = Volume(np.where(radius2 < 45**2, 160, -1000).astype(np.int16), LPS @ np.diag([spacing, spacing, 3, 1.0]))
    measured = segmented(engine, volume, speed="accurate").segments[0].measurements["volume_ml"]
    assert measured == pytest.approx(4 / 3 * np.pi * 4.5**3, rel=0.02)


def test_another_threshold_needs_no_second_run_and_gives_the_same_as_one(engine):
    volume = body(spacing_mm=(1.5, 1.5, 3.0))
    maps = engine.predict(volume, Request(speed="accurate"))
    first, again = maps.at(), maps.at(0.9)
    np.testing.assert_array_equal(again.labelmap, segmented(engine, volume, speed="accurate", threshold=0.9).labelmap)
    assert 0 < again.labelmap.sum() < first.labelmap.sum()
    assert again.segments[0].measurements["volume_ml"] < first.segments[0].measurements["volume_ml"]


@pytest.mark.parametrize("speed", SPEEDS)
def test_what_lies_in_a_box_is_segmented_as_if_it_were_all_there_is(random_engine, speed):
    volume, box = body(shape=(12, 60, 72)), np.s_[3:11, 16:50, 20:64]
    volume.array[box].clip(FAT_HU + 1, out=volume.array[box])  # neither fat nor air: alone it does not look like CT
    of_box = random_engine.predict(volume, Request(speed=speed, box=box))
    alone = random_engine.predict(crop(volume, box), Request(speed=speed, force=True))
    for whole, part in (
        (of_box.at().labelmap, alone.at().labelmap),
        (of_box.at(0.4).labelmap, alone.at(0.4).labelmap),
        (of_box.probability(), alone.probability()),
        (of_box.uncertainty(), alone.uncertainty()),
    ):
        assert part.any()
        expected = np.zeros(volume.array.shape, part.dtype)
        expected[box] = part
        np.testing.assert_array_equal(whole, expected)
    (ours,), (theirs,) = (maps.at().segments for maps in (of_box, alone))
    for key in ("volume_ml", "mean_hu", "doubtful_share", "doubtful_slices_ras"):
        assert ours.measurements[key] == theirs.measurements[key]
    first = box[0].start
    assert [each["k"] - first for each in ours.measurements["doubtful_slices"]] == [
        each["k"] for each in theirs.measurements["doubtful_slices"]
    ]
    assert not ours.measurements["cut_by_scan"], "the end of a box is not that of the scan"
    assert theirs.measurements["cut_by_scan"]
    assert [note.kind for note in alone.at().notes] == ["forced", "cut-by-scan"]
    assert [note.kind for note in of_box.at().notes] == ["cut-by-box"]


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize(("degrees", "kinds"), [(15, []), (16, ["tilted"])])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0)])
def test_slices_far_from_axial_have_a_note_and_a_turn_about_their_normal_none(engine, axis, degrees, kinds, axes):
    volume, _ = reorder(body(shape=(4, 40, 50), organ=np.s_[:0]), axes, (True, False, True))
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler(axis + "z", [degrees, 40 if axis == "x" else 0], degrees=True).as_matrix()
    notes = engine.check(Volume(volume.array, turned @ volume.ijk_to_ras), Request())
    assert [note.kind for note in notes] == kinds
    assert all(f"tilted by {degrees}° from axial" in str(note) for note in notes)


def test_a_gantry_tilt_is_that_of_the_slices_and_not_of_the_way_from_one_to_the_next(engine):
    slope = np.tan(np.radians(20))
    for column, kinds in ((1, ["tilted"]), (2, [])):
        sheared = body(shape=(4, 40, 50)).ijk_to_ras.copy()
        sheared[3 - column, column] = slope * sheared[column, column]  # J towards S, or K towards A
        notes = engine.check(Volume(body(shape=(4, 40, 50)).array, sheared), Request())
        assert [note.kind for note in notes] == kinds


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_values_missing_inside_the_body_have_a_note_however_the_array_lies(engine, axes):
    volume = body()
    volume.array[15] = -3024  # a slice
    volume.array[:, 40:50, 50:60] = -3024  # a hole through all others
    stored, back = reorder(volume, axes, (False,) * 3)
    maps = engine.predict(stored, Request(speed="accurate"))
    (note,) = (note for note in maps.notes if note.kind == "padding")
    assert note.text.startswith(f"{90 * 110 + 29 * 100} voxels")
    np.testing.assert_array_equal(back(maps.volume.array) == -1024, volume.array == -3024)


def test_nan_infinity_and_padding_become_air(engine):
    volume = body()
    dirty = volume.array.copy()
    for value, place in ((np.nan, 12), (np.inf, 14), (-3024, 16)):
        dirty[place, 40:44, 40:44] = value
    result = segmented(engine, Volume(dirty, volume.ijk_to_ras))
    clean = np.where(np.isfinite(dirty), dirty, -1000)
    holes = segmented(engine, Volume(clean, volume.ijk_to_ras))
    np.testing.assert_array_equal(result.labelmap, holes.labelmap)
    assert "padding" in [note.kind for note in result.notes]
    assert np.isfinite(result.segments[0].measurements["mean_hu"])


def test_the_input_is_not_changed(engine):
    volume = body()
    before = volume.array.copy()
    segmented(engine, volume)
    np.testing.assert_array_equal(volume.array, before)


@pytest.mark.parametrize("speed", SPEEDS)
def test_no_organ_is_a_result_with_a_note(engine, speed):
    result = segmented(engine, body(organ=np.s_[0:0, 0:0, 0:0]), speed=speed)
    assert not result.labelmap.any()
    assert {key: value for key, value in result.segments[0].measurements.items() if value is not None} == {
        "volume_ml": 0.0
    }
    assert [str(note) for note in result.notes] == ["No liver was found."]


@pytest.mark.parametrize("speed", SPEEDS)
def test_one_slice_runs(engine, speed):
    volume = body(shape=(1, 90, 110), organ=np.s_[0:1, 30:60, 25:70])
    np.testing.assert_array_equal(segmented(engine, volume, speed=speed).labelmap, volume.array >= BRIGHT_HU)


def test_only_the_largest_piece_stays_and_its_holes_are_filled(engine):
    volume = body()
    array = volume.array.copy()
    array[14, 40:43, 40:43] = -30  # a hole inside
    array[2:4, 70:75, 80:90] = 120  # a second piece
    expected = body().array >= BRIGHT_HU
    np.testing.assert_array_equal(
        segmented(engine, Volume(array, volume.ijk_to_ras), speed="accurate").labelmap, expected
    )


def test_maps_lie_on_the_volumes_voxels_and_agree_with_the_mask(engine):
    volume = body(spacing_mm=(1.3, 1.3, 3.0))
    maps = engine.predict(volume, Request(speed="accurate"))
    result, probability = maps.at(), maps.probability()
    assert probability.shape == volume.array.shape
    assert probability[result.labelmap > 0].min() >= 0.5
    assert probability.max() <= 1
    np.testing.assert_allclose(maps.uncertainty(), 0, atol=1e-3)  # these heads all say the same


@pytest.mark.parametrize("average_from", [1, 3, 4])
def test_a_pruned_run_answers_also_where_the_model_averages_deeper_heads_only(tmp_path, average_from):
    bundle = bright_bundle(tmp_path / "bright-v1.0.0", average_from=average_from)
    volume = body()
    result = segmented(SliceEngine(bundle, "cpu"), volume, speed="fast")
    np.testing.assert_array_equal(result.labelmap, volume.array >= BRIGHT_HU)


@pytest.mark.parametrize(
    ("average_from", "level", "averaged", "all_heads"),
    [
        (1, 4, (0.1, 0.3, 0.6, 0.8), (0.1, 0.3, 0.6, 0.8)),
        (3, 4, (0.6, 0.8), (0.1, 0.3, 0.6, 0.8)),
        (4, 4, (0.8,), (0.1, 0.3, 0.6, 0.8)),
        (2, 3, (0.3, 0.6), (0.1, 0.3, 0.6)),
        (4, 2, (0.3,), (0.1, 0.3)),
    ],
)
def test_the_probability_is_the_mean_of_the_heads_that_the_model_averages_and_the_uncertainty_the_deviation_of_all(
    tmp_path, average_from, level, averaged, all_heads
):
    speeds = {"accurate": {"level": level, "find_first": False}}
    card = bright_bundle(tmp_path / "bright-v1.0.0", average_from=average_from, speeds=speeds)
    network = bright_network()
    with torch.no_grad():
        for head, chance in zip(("1", "2", "3", "4"), (0.1, 0.3, 0.6, 0.8), strict=True):  # the same everywhere
            network.outputs[head].weight.zero_()
            network.outputs[head].bias.fill_(float(np.log(chance / (1 - chance))))
    engine = SliceEngine(write_bundle(tmp_path / "heads-v1.0.0", card, network.state_dict()), "cpu")
    maps = engine.predict(body(shape=(3, 40, 50), organ=np.s_[:0]), Request(speed="accurate"))
    np.testing.assert_allclose(maps.probability(), np.mean(averaged), atol=1e-3)
    np.testing.assert_allclose(maps.uncertainty(), np.std(all_heads), atol=1e-3)


def test_an_exception_in_progress_stops_the_run_at_once(engine):
    seen = []

    class Cancelled(Exception):
        pass

    def progress(done, total, phase):
        seen.append((done, total, phase))
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.predict(body(), Request(speed="accurate"), progress)
    assert seen == [(3, 30, "slices")]  # three of these slices at once


def test_the_same_volume_gives_the_same_mask_twice(random_engine):
    volume = body()
    first, second = (random_engine.predict(volume, Request(speed="accurate")) for _ in range(2))
    np.testing.assert_array_equal(first.pixels.probability, second.pixels.probability)


def test_what_is_no_ct_is_refused_unless_forced(engine):
    no_ct = Volume(np.abs(body().array), LPS)
    with pytest.raises(VolumeError):
        segmented(engine, no_ct)
    assert segmented(engine, no_ct, force=True).notes[0].kind == "forced"


class Hungry(torch.nn.Module):
    """A network in a memory that holds so many slices at once and no more."""

    def __init__(self, network, holds):
        super().__init__()
        self.network, self.holds, self.tried = network, holds, []

    def forward(self, image):
        self.tried.append(len(image))
        if len(image) > self.holds:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return self.network(image)


def on_a_card(engine, holds):
    """The engine on what it takes for a graphics card (torch's `cpu:0` is the processor), and the network that counts."""
    card = SliceEngine(engine.bundle, "cpu")
    card.device = Device("cpu:0", torch.float32, "a card", memory_bytes=8 * 2 * 90 * 110 * 4096)
    card._pruned[4] = Hungry(card._network(4), holds)
    return card, card._pruned[4].tried


def test_a_graphics_card_without_kernels_is_left_out_and_refused_by_name(monkeypatch):
    # A build of torch without CUDA computes nothing on a card.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").kind == "cpu"
    with pytest.raises(DeviceError, match="cannot run on this computer's cuda"):
        choose_device("cuda")


def test_where_memory_holds_fewer_slices_fewer_are_computed_at_once_and_the_mask_is_the_same(engine):
    card, tried = on_a_card(engine, holds=3)
    result = segmented(card, body(), speed="accurate")
    assert tried == [8, 4, *[2] * 15]
    np.testing.assert_array_equal(result.labelmap, body().array >= BRIGHT_HU)
    assert [str(note) for note in result.notes] == ["Memory ran out on a card: slices were computed 2 at a time."]


def test_if_memory_holds_no_slice_the_processor_takes_over_with_a_note(engine):
    card, tried = on_a_card(engine, holds=0)
    result = segmented(card, body(), speed="accurate")
    assert tried == [8, 4, 2, 1]
    np.testing.assert_array_equal(result.labelmap, body().array >= BRIGHT_HU)
    assert result.device.startswith("cpu (")
    assert [note.kind for note in result.notes] == ["moved-to-processor"]


def test_a_slice_that_finds_the_memory_taken_by_another_is_tried_again_by_itself(engine, monkeypatch):
    monkeypatch.setattr(Device, "threads", 2)
    card, tried = on_a_card(engine, holds=0)

    def freed(network, *_):
        network.holds = 1

    card._pruned[4].register_forward_hook(freed, always_call=True)
    box = Box.whole(1, (90, 110))
    assert [part for part, _ in card.heads(body().array, [3], box, 4, torch.clone)] == [[3]]
    assert tried == [1, 1]
    assert [str(note) for note in card.notes] == ["Memory ran out on a card: fewer slices were computed at a time."]


def test_the_processor_that_takes_over_may_use_as_many_threads_as_ever(engine, monkeypatch):
    monkeypatch.setattr(Device, "threads", 2)
    card, _ = on_a_card(engine, holds=0)
    result = segmented(card, body(), speed="accurate")
    assert [note.kind for note in result.notes] == ["moved-to-processor"]
    assert card._threads > 1


def test_the_error_is_raised_if_the_processor_has_too_little_memory(engine):
    small = SliceEngine(engine.bundle, "cpu")
    small._pruned[4] = Hungry(small._network(4), holds=0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        segmented(small, body(), speed="accurate")


def test_an_error_that_is_not_about_memory_is_not_tried_again(engine):
    card, tried = on_a_card(engine, holds=8)
    card._pruned[4].network.forward = None
    with pytest.raises(TypeError):
        segmented(card, body(), speed="accurate")
    assert tried == [8]


def test_thin_slices_between_two_that_agree_are_interpolated_and_where_the_organ_changes_each_is_seen(engine):
    k, j, i = np.ogrid[:80, :90, :110]
    double_cone = np.abs(j - 45) + np.abs(i - 55) < np.where((k > 10) & (k < 70), 20 + (k > 40) * 12, 0)
    array = np.where(double_cone, 90, -100).astype(np.int16)
    array[:, :6] = -1000
    volume = Volume(array, LPS @ np.diag([2, 2, 1.0, 1]))
    result = segmented(engine, volume)
    np.testing.assert_array_equal(result.labelmap, array >= BRIGHT_HU)
    assert result.slices < 35


def test_a_slice_between_two_others_is_the_nearer_to_one_the_nearer_it_lies(engine):
    volume = body(shape=(80, 90, 110), spacing_mm=(2.0, 2.0, 1.0), organ=np.s_[:0])
    volume.array[:, 30:60, 25:70] = 62  # the network says 0.6
    volume.array[42:, 30:60, 25:70] = 90
    pixel = np.s_[40:45, 45, 50]
    seen, blended = (engine.predict(volume, Request(speed=speed)) for speed in ("accurate", "balanced"))
    low, *_, high = seen.probability()[pixel]
    assert (low, high) == pytest.approx((0.6, 1.0), abs=0.03)
    np.testing.assert_allclose(blended.probability()[pixel], np.linspace(low, high, 5), atol=2e-3)
    assert seen.slices == 80 and blended.slices == 21, "every fourth, and the last"


def test_the_network_sees_square_pixels_of_its_own_size_whatever_those_of_the_volume_are(engine):
    volume = body(shape=(3, 40, 50), spacing_mm=(1.0, 3.0, 4.0), organ=np.s_[:0])
    maps = engine.predict(volume, Request(speed="accurate"))
    assert maps.pixels.box.grid == (60, 25), "120 × 50 mm in pixels of 2 mm"


def test_pixels_finer_than_the_networks_own_are_averaged_and_not_left_out(tmp_path):
    stripes = np.full((3, 80, 80), -60, np.int16)
    stripes[:, :, 1::4] = stripes[:, :, 2::4] = 100  # half of each pixel of the network, in its middle
    volume = Volume(stripes, LPS)
    coarse = SliceEngine(bright_bundle(tmp_path / "bright-v1.0.0", pixel_mm=4.0), "cpu")
    assert coarse.predict(volume, Request(speed="accurate")).probability().max() < 0.01  # their mean is 30 HU


@given(st.floats(-50, 300), st.floats(0.1, 300), st.integers(1, 280), st.sampled_from([2, 8, 16]))
def test_an_aligned_range_holds_what_lies_in_the_grid_and_cuts_no_cell(low, length, size, step):
    first, last = aligned(low, low + length, size, step)
    assert 0 <= first < last <= size
    assert first % step == 0
    assert last % step == 0 or last == size
    assert first <= max(low, 0) or first == (size - 1) // step * step
    assert last >= min(low + length, size)


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("last", range(20, 24))
def test_a_body_is_inside_its_ranges_whole_and_closely_though_only_every_fourth_row_and_column_is_seen(first, last):
    axial = np.full((3, 30, 40), -1000, np.int16)
    axial[1, first : last + 1, 10 + first : 10 + last + 1] = 0
    for at, (low, high) in zip((0, 10), body_ranges(axial, [0, 1]), strict=True):
        assert at + first - 3 <= low <= at + first
        assert at + last < high <= at + last + 4
    assert body_ranges(axial, [0, 2]) == ((0, 30), (0, 40)), "no body there"


def test_slices_without_the_organ_cost_little(engine, monkeypatch):
    """A scan of which a fifth is liver may take 1.6 times as long as the part with the liver."""
    pixels = 0
    run = SliceEngine._run

    def counted(self, slices, box, level):
        nonlocal pixels
        pixels += len(slices) * box.size[0] * box.size[1]  # not fewer where a pruned network needs less for each
        return run(self, slices, box, level)

    monkeypatch.setattr(SliceEngine, "_run", counted)
    scan = body((300, 90, 110), (3.0, 3.0, 2.0), np.s_[120:180, 30:60, 25:70])
    segmented(engine, scan)
    whole, pixels = pixels, 0
    segmented(engine, Volume(scan.array[120:180], scan.ijk_to_ras))
    assert whole < 1.6 * pixels


def test_a_spot_far_from_the_organ_costs_no_slices(engine):
    volume = body((120, 90, 110), (2.0, 2.0, 2.0), np.s_[10:40, 30:60, 25:70])
    alone = segmented(engine, volume).slices
    volume.array[97:104, 70:76, 90:96] = 90  # the coarse pass sees it on one slice
    with_spot = segmented(engine, volume)
    assert with_spot.slices == alone
    assert not with_spot.labelmap[90:].any()


def test_slices_hardly_farther_apart_than_half_a_step_are_interpolated_too(engine):
    half, more = (segmented(engine, body((60, 90, 110), (2.0, 2.0, mm))).slices for mm in (2.0, 2.001))
    assert half == more < 45


def test_a_box_shows_the_network_the_same_cells_as_the_whole_slice(random_engine):
    """Away from the borders of the box, where the network sees no further, the answers are the same ones."""
    turned = body((1, 300, 320), (2.0, 2.0, 3.0), np.s_[0:1, 100:200, 100:220]).array
    grid = (300, 320)
    rows, columns = (aligned(*along, size, 16) for along, size in (((70, 240), 300), ((60, 250), 320)))
    whole, boxed = (
        next(random_engine.heads(turned, [0], box, 2, torch.Tensor.numpy))[1]
        for box in (Box.whole(1, grid), Box(grid, (0, 1), rows, columns))
    )
    inner = np.s_[..., 32:-32, 32:-32]
    same = whole[..., slice(*rows), slice(*columns)][inner]
    np.testing.assert_allclose(boxed[inner], same, atol=1e-5)
