"""Findings that are kept when others come and go: their voxels and measurements stay, and all still fit into a label map."""

from __future__ import annotations

import numpy as np

from UNetPlusPlusSegmentLib.core.keeping import with_kept_findings
from UNetPlusPlusSegmentLib.core.result import Result
from UNetPlusPlusSegmentLib.core.segment import MOST_SEGMENTS, Segment


def found(*values: int) -> Result:
    """A result whose label map is a row of voxels."""
    labelmap = np.array([[values]], np.uint8)
    segments = [Segment(n, f"Nodule {n}", "", (0, 0, 0), {"volume_ml": float(n)}) for n in range(1, max(values) + 1)]
    return Result(labelmap, tuple(segments), (), 0.5, "nodule-v1", "cpu", 1, 1, 1.0, 0.5)


def test_a_kept_finding_keeps_the_voxels_that_a_new_one_shares_with_it():
    before = found(0, 1, 1, 1, 1, 0, 0)
    new = found(2, 2, 1, 1, 1, 1, 0)  # 1 is the kept one, a voxel further on; 2 covers its first voxel
    kept, values = with_kept_findings(new, before, [1], ())
    assert values == {1: 2}
    np.testing.assert_array_equal(kept.labelmap, [[[1, 2, 2, 2, 2, 0, 0]]])
    assert [(s.value, s.name, s.measurements["volume_ml"]) for s in kept.segments] == [
        (1, "Nodule 2", 2.0), (2, "Nodule 1", 1.0),
    ]  # fmt: skip


def test_a_new_finding_wholly_inside_a_kept_one_is_left_out():
    kept, values = with_kept_findings(found(2, 1, 1, 1, 0, 3, 3), found(0, 1, 1, 1, 1, 1, 1), [1], ())
    assert (values, [segment.name for segment in kept.segments]) == ({1: 2}, ["Nodule 2", "Nodule 1"])
    np.testing.assert_array_equal(kept.labelmap, [[[1, 2, 2, 2, 2, 2, 2]]])


def test_a_kept_finding_still_fits_beside_as_many_as_a_label_map_tells_apart():
    every = range(1, MOST_SEGMENTS + 1)
    again, values = with_kept_findings(found(0, *every), found(0, *every), [7], ())  # found again
    assert (len(again.segments), values, again.notes) == (MOST_SEGMENTS, {7: MOST_SEGMENTS}, ())
    beside, values = with_kept_findings(found(0, *every), found(1, *[0] * MOST_SEGMENTS), [1], ())
    assert (len(beside.segments), values) == (MOST_SEGMENTS, {1: MOST_SEGMENTS})
    np.testing.assert_array_equal(beside.labelmap[0, 0], [MOST_SEGMENTS, *range(1, MOST_SEGMENTS), 0])
    assert [note.kind for note in beside.notes] == ["not-all-kept"]
