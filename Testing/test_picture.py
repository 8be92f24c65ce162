"""The picture of a case: which slices it shows, and what it says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.support.sample_files import SEGMENTS
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.jobs.picture import write_picture


def scan(up: int = 1) -> tuple[Volume, np.ndarray]:
    """Twelve slices, 3 mm apart, from S 0 up or down; a segment on six of them."""
    hu = np.full((12, 40, 50), -1000, np.int16)
    hu[:, 5:35, 5:45] = 40
    labelmap = np.zeros(hu.shape, np.uint8)
    labelmap[3:9, 10:20, 10:20] = 1
    return Volume(hu, np.diag([-1.0, -1.0, 3.0 * up, 1.0])), labelmap


def size_of(path) -> tuple[int, int]:
    return sitk.ReadImage(str(path)).GetSize()


@pytest.mark.parametrize(
    ("up", "captions"),
    [(1, ["S 12 mm", "S 18 mm", "S 24 mm, most doubtful"]), (-1, ["S -24 mm, most doubtful", "S -15 mm", "S -9 mm"])],
)
def test_the_most_doubtful_slice_is_among_the_three_whichever_way_the_slices_run(tmp_path, up, captions):
    volume, labelmap = scan(up)
    doubt = {"doubtful_share": 0.2, "doubtful_slices": [{"k": 8, "s_mm": 24.0 * up}]}
    segments = [replace(SEGMENTS[0], value=1, measurements=doubt)]
    said = write_picture(tmp_path / "pictures" / "a.jpg", volume, labelmap, segments, nodules=False)
    assert said == captions
    width, height = size_of(tmp_path / "pictures" / "a.jpg")
    assert width > 2.5 * height


def test_without_a_segment_slices_of_the_whole_scan_are_shown(tmp_path):
    volume, labelmap = scan()
    said = write_picture(tmp_path / "a.jpg", volume, np.zeros_like(labelmap), [SEGMENTS[0]], nodules=False)
    assert said == ["S 6 mm", "S 18 mm", "S 30 mm"]


def test_nodules_are_shown_close_up_by_their_names(tmp_path):
    volume, labelmap = scan()
    segments = [replace(SEGMENTS[2], value=1, name="Nodule 1")]
    assert write_picture(tmp_path / "a.jpg", volume, labelmap, segments, nodules=True) == ["Nodule 1"]
    assert write_picture(tmp_path / "b.jpg", volume, np.zeros_like(labelmap), [], nodules=True)[0] == "S 6 mm"
