"""Requests: what makes sense for no volume is refused, and what travels to the worker arrives as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest

from UNetPlusPlusSegmentLib.core.note import Note
from UNetPlusPlusSegmentLib.core.request import Request, RequestError
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import Segment

BOX = np.s_[2:10, 0:40, 5:50]
TURNED = ((0.1, 0, 0, -0.6), (0, 0.05, 0.05, -1.5), (0, 0.05, -0.05, 1))
POINT = (1.0, -2.0, 3.5)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"speed": "warp"}, "Unknown speed 'warp': choose one of accurate, balanced, fast"),
        ({"device": "abacus"}, "Unknown device 'abacus'"),
        *[({"threshold": threshold}, r"between 0 and 1, such as 0\.5") for threshold in (0, 1, 50, float("nan"))],
        ({"threshold": "0.5"}, r"such as 0\.5; got '0\.5'"),
        ({"show_from": "0.5"}, r"such as 0\.5; got '0\.5'"),
        ({"also": "spleen"}, r"a list of targets, such as \['spleen'\]"),
        ({"target": "nodule", "points": POINT}, "three numbers"),
        ({"target": "nodule", "points": [POINT], "box": BOX}, "cannot be combined"),
        ({"target": "nodule", "points": [(1, 2)]}, "three numbers"),
        ({"target": "nodule", "points": [(np.nan, 2, 3)]}, "three numbers"),
        ({"turned": TURNED}, "give three rows of four numbers, and the box around it"),
        ({"box": BOX, "turned": TURNED[:2]}, "does not say how a box is turned"),
        ({"box": BOX, "turned": [[np.nan] * 4] * 3}, "does not say how a box is turned"),
        ({"box": np.s_[2:2, 0:40, 5:50]}, "not a valid box of voxels"),
        ({"box": np.s_[-1:2, 0:40, 5:50]}, "not a valid box of voxels"),
        ({"box": ((0, 2), (0, 40))}, "not a valid box of voxels"),
        ({"box": ((0, 2.5), (0, 40), (0, 40))}, "not a valid box of voxels"),
    ],
)
def test_what_makes_sense_for_no_volume_is_refused_with_one_sentence(asked, words):
    with pytest.raises(RequestError, match=words):
        Request(**asked)


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(model="liver-ct-v1.0.0", speed="fast", threshold=0.25, force=True, device="cpu", box=BOX),
        Request(box=BOX, turned=TURNED),
        Request("nodule", points=[POINT, np.array(POINT) + 1]),
        Request("spleen", also=["left kidney"]),
    ],
)
def test_a_request_arrives_in_the_worker_as_it_was(request_):
    assert Request.from_json(json.loads(json.dumps(request_.to_json()))) == request_


def test_a_box_may_be_given_as_pairs_of_first_and_past_the_last_index():
    assert Request(box=[[2, 10], [0, 40], [5, 50]]).box == BOX


def test_a_result_arrives_from_the_worker_as_it_was():
    labelmap = np.ones((2, 3, 4), np.uint8)
    segment = Segment(1, "Liver", "", (221, 130, 101), {"volume_ml": 1.5, "mean_hu": None})
    result = Result(labelmap, (segment,), (Note("forced", "Forced."),), 0.5, "liver-ct-v1.0.0", "cpu", 30, 7, 1.25)
    arrived = Result.from_json(json.loads(json.dumps(result.to_json())), labelmap)
    assert vars(arrived) == vars(result)


def test_numbers_of_numpy_become_those_of_json():
    request = Request(threads=np.int64(2), force=np.bool_(True), threshold=np.float32(0.5))
    assert json.loads(json.dumps(request.to_json()))["threads"] == 2
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


@pytest.mark.parametrize("threads", [2.5, "2"])
def test_a_number_of_threads_that_is_not_whole_is_refused(threads):
    with pytest.raises(RequestError, match=f"must be a whole number, 1 or more; got {threads!r}"):
        Request(threads=threads)
