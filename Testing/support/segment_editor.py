"""Helpers for tests of the Segment Editor with this project's effect active."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from Testing.support.slicer_qt.application import wait_until
from Testing.support.worker_logic import a_scan
from UNetPlusPlusSegmentLib.core.segment import Segment
from UNetPlusPlusSegmentLib.scene import mrml, showing

MODULE = Path(mrml.__file__).parents[2] / "UNetPlusPlusSegment.py"
SCAN = a_scan(16)


def blobs(seed: int) -> np.ndarray:
    """Four masks of large random cubes on SCAN, which overlap."""
    chance = np.random.default_rng(seed)
    coarse = chance.random((4, 4, 5, 5)) < 0.5
    return coarse.repeat(4, 1).repeat(8, 2)[:, :, :40].repeat(10, 3)


def paint(at, segment_id: str, mask: np.ndarray) -> None:
    """Draw a segment in its own layer."""
    drawn = [Segment(1, segment_id, "", (255, 0, 0), {})]
    showing.show_segmentation(mask.astype(np.uint8), drawn, at.volume, at.segmentation, {1: segment_id})


def painted(at, segment_id: str) -> np.ndarray:
    return mrml.labelmap_of(at.segmentation, segment_id, at.volume)


def segment_ids(at) -> list[str]:
    return list(at.segmentation.GetSegmentation().GetSegmentIDs())


def press(at, button: str) -> None:
    getattr(at.effect._options, f"{button}Button").click()


def choose_box(at, roi) -> None:
    """Choose an ROI, or the whole volume, like a user."""
    at.effect._options.roiSelector._native.pick(roi)


def wait(at) -> None:
    """Wait until no run is in progress, or a preview is shown."""
    wait_until(lambda: at.effect._edit is None or (at.effect._edit.isShown and not at.effect._edit.run.jobs))
