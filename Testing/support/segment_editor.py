"""The Segment Editor with the effect of this project active on a volume, and its use by tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from Testing.support.slicer_qt.application import wait_until
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.scene import mrml

MODULE = Path(mrml.__file__).parents[2] / "UNetPlusPlusSegment.py"


def paint(at, segment_id: str, mask: np.ndarray) -> None:
    """Draw a segment, in a layer of its own."""
    drawn = [Segment(1, segment_id, "", (255, 0, 0), {})]
    mrml.show_segmentation(mask.astype(np.uint8), drawn, at.volume, at.segmentation, {1: segment_id})


def painted(at, segment_id: str) -> np.ndarray:
    return mrml.labelmap_of(at.segmentation, segment_id, at.volume)


def segment_ids(at) -> list[str]:
    return list(at.segmentation.GetSegmentation().GetSegmentIDs())


def press(at, button: str) -> None:
    getattr(at.effect._options, f"{button}Button").click()


def choose_box(at, roi) -> None:
    """Choose a ROI, or the whole volume, as the user does."""
    at.effect._options.roiSelector._native.pick(roi)


def wait(at) -> None:
    """Until the effect is at rest: nothing under way, or a preview shown."""
    wait_until(lambda: at.effect._edit is None or (at.effect._edit.isShown and not at.effect._edit.run.jobs))
