"""Label maps of several labels: which label a pixel gets, and what post-processing makes of each by itself."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from Testing.support.bodies import body
from Testing.support.bright import BRIGHT_HU, bright_bundle, bright_network, segmented
from UNetPlusPlusSegmentLib.core.request import SPEEDS
from UNetPlusPlusSegmentLib.engine.label_map import has_steps, label_map, postprocess
from UNetPlusPlusSegmentLib.engine.organ import SliceEngine
from UNetPlusPlusSegmentLib.engine.slice_pool import threads_of_torch
from UNetPlusPlusSegmentLib.network.bundle import write_bundle
from UNetPlusPlusSegmentLib.network.card import Architecture, Label, PostProcessing
from UNetPlusPlusSegmentLib.network.unetpp import build_network


def card(priority=(), first=None, second=None):
    labels = Label(1, "Liver", "t", (1, 2, 3), first), Label(2, "Tumour", "t", (4, 5, 6), second)
    return SimpleNamespace(labels=labels, priority=priority, postprocessing=PostProcessing())


PROBABILITY = np.array([[[0.9, 0.9, 0.4, 0.5]], [[0.1, 0.6, 0.3, 0.8]]])


def test_a_pixel_gets_the_most_probable_label_that_reaches_the_threshold():
    assert label_map(PROBABILITY, card(), 0.5).tolist() == [[1, 1, 0, 2]]


@pytest.mark.parametrize(
    ("order", "expected"), [(("Tumour", "Liver"), [1, 2, 0, 2]), (("Liver", "Tumour"), [1, 1, 0, 1])]
)
def test_where_there_is_a_priority_the_first_label_that_reaches_the_threshold_wins(order, expected):
    assert label_map(PROBABILITY, card(order), 0.5).tolist() == [expected]


def test_post_processing_of_a_label_leaves_the_others_alone():
    labelmap = np.zeros((1, 7, 12), np.uint8)
    labelmap[0, 1:6, 1:6] = 1
    labelmap[0, 3, 3] = 2  # in the liver: no hole
    labelmap[0, 2, 2] = 0
    labelmap[0, 3, 8] = 1  # apart
    labelmap[0, 5, 10] = 2  # apart, and stays: tumours are many
    volume = np.concatenate([labelmap * 0, labelmap, labelmap * 0])
    volume[0, 1:6, 1:6] = volume[2, 1:6, 1:6] = 1
    expected = volume.copy()
    expected[1, 2, 2], expected[1, 3, 8] = 1, 0
    steps = card(first=PostProcessing(largest_component=True, fill_holes=True))
    assert has_steps(steps) and not has_steps(card())
    postprocess(volume, steps, weigh=None)
    np.testing.assert_array_equal(volume, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_two_labels_enclose_is_filled_by_the_first_one_in_any_number_of_threads(threads):
    labelmap = np.zeros((9, 9, 9), np.uint8)
    labelmap[1:8, 1:8, 1:8] = 2  # a shell round another, round nothing
    labelmap[2:7, 2:7, 2:7] = 0
    labelmap[3:6, 3:6, 3:6] = 1
    labelmap[4, 4, 4] = 0
    expected = labelmap.copy()
    expected[2:7, 2:7, 2:7][labelmap[2:7, 2:7, 2:7] == 0] = 2
    expected[4, 4, 4] = 1
    steps = PostProcessing(fill_holes=True)
    with threads_of_torch(threads):
        assert postprocess(labelmap, card(first=steps, second=steps), weigh=None) == {1: 0, 2: 0}
    np.testing.assert_array_equal(labelmap, expected)


def parts_of(*shares: float) -> tuple[np.ndarray, np.ndarray]:
    """A label map of 5 slices with a part in each of several columns, and a function that gives them these weights."""
    labelmap = np.zeros((5, 3, 2 * len(shares)), np.uint8)
    labelmap[1:4, :, ::2] = 1
    return labelmap, lambda number, parts, corner: np.array([0, *shares])


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        (PostProcessing(largest_component=True), [3]),
        (PostProcessing(least_part=0.3), [0, 1]),
        (PostProcessing(least_part=0.12), [0, 1, 2, 3]),
        (PostProcessing(least_part=0.3, least_part_at_end=0.1), [0, 1, 3]),
        (PostProcessing(), [0, 1, 2, 3, 4]),
    ],
)
def test_parts_stay_that_are_heavy_against_the_heaviest_and_at_the_ends_of_the_scan_lighter_ones(steps, kept):
    labelmap, weigh = parts_of(10.0, 3.0, 1.5, 1.4, 0.5)
    labelmap[4, :, 6] = 1  # the fourth goes on to the last slice: by voxels it is the largest
    before = labelmap.copy()
    dropped = postprocess(labelmap, card(first=steps), weigh)
    assert (np.flatnonzero(labelmap.any(axis=(0, 1))) // 2).tolist() == kept
    assert dropped.get(1, 0) == np.count_nonzero(before != labelmap)


def test_without_a_part_on_the_first_or_last_slice_the_share_for_all_counts():
    labelmap, weigh = parts_of(10.0, 2.0)
    postprocess(labelmap, card(first=PostProcessing(least_part=0.3, least_part_at_end=0.1)), weigh)
    assert np.flatnonzero(labelmap.any(axis=(0, 1))).tolist() == [0]


def test_a_share_of_a_part_lies_between_none_and_all():
    with pytest.raises(ValueError, match=r"between 0 and 1; got 1\.5"):
        PostProcessing(least_part=1.5)


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_small_label_far_from_a_large_one_is_found_at_every_speed(tmp_path, speed):
    bundle = bright_bundle(tmp_path / "one-v1.0.0")
    network = build_network("unetpp_ds", filters=[1] * 5, out_channels=2)
    state = bright_network().state_dict()
    for key in list(state):
        if key.startswith("outputs"):
            state[key] = state[key].repeat(2, *[1] * (state[key].ndim - 1))
            if key.endswith("bias"):
                state[key][1] = -36  # the second label is what is brighter than 140 HU
    network.load_state_dict(state)
    second = replace(bundle.labels[0], value=2, name="Core")
    card = replace(
        bundle,
        labels=(*bundle.labels, second),
        priority=("Core", "Liver"),
        architecture=Architecture("unetpp_ds", {"filters": [1] * 5, "out_channels": 2}),
    )
    engine = SliceEngine(write_bundle(tmp_path / "two-v1.0.0", card, network.state_dict()), "cpu")
    volume = body(shape=(60, 120, 120), organ=np.s_[10:30, 30:90, 30:90])
    volume.array[44:52, 100:106, 60:70] = 155
    result = segmented(engine, volume, speed=speed)
    assert [segment.name for segment in result.segments] == ["Liver", "Core"]
    np.testing.assert_array_equal(result.labelmap == 2, volume.array == 155)
    np.testing.assert_array_equal(result.labelmap == 1, (volume.array >= BRIGHT_HU) & (volume.array < 140))
