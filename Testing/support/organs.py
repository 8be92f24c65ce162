"""A bundle with three labels whose result is known: an untrained network in which each label is a band of brightness."""

from __future__ import annotations

import numpy as np
import torch

from Testing.support.bright import bright_bundle, passing_through
from UNetPlusPlusSegmentLib.core.volume import Volume
from UNetPlusPlusSegmentLib.network.bundle import Bundle, write_bundle
from UNetPlusPlusSegmentLib.network.card import card_from_json
from UNetPlusPlusSegmentLib.network.unetpp import build_network

TERM = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~SCT^{}~{}"
    "~Anatomic codes - DICOM master list~^^~^^"
)
# Name, terminology, colour, HU from which it is the most probable.
LABELS = (
    ("Spleen", TERM.format("78961009^Spleen", "^^"), (157, 108, 162), 40),
    ("Right kidney", TERM.format("64033007^Kidney", "SCT^24028007^Right"), (185, 102, 83), 80),
    ("Left kidney", TERM.format("64033007^Kidney", "SCT^7771000^Left"), (212, 126, 151), 120),
)
PRIORITY = ("Left kidney", "Right kidney", "Spleen")  # of the bands that a voxel is above, the brightest
WINDOW_HU = (-40, 160)
AT = {
    "Spleen": np.s_[4:14, 6:22, 8:20], "Right kidney": np.s_[6:18, 28:40, 6:18], "Left kidney": np.s_[8:20, 28:40, 28:42],
}  # fmt: skip
SHAPE = (24, 48, 52)
GRID = np.diag([-2.0, -2.0, 3.0, 1.0])


def organs_bundle(folder, **changes) -> Bundle:
    """Write the bundle to `folder`, for the target `abdomen`; `changes` are made to its card, as in JSON."""
    network = passing_through(build_network("unetpp_ds", filters=[1, 1, 1], out_channels=len(LABELS)))
    low, high = WINDOW_HU
    with torch.no_grad():
        for head in network.outputs.values():
            head.weight.fill_(80)
            head.bias.copy_(torch.tensor([-80 * (hu - 20 - low) / (high - low) for *_, hu in LABELS]))
    card = {
        "target": "abdomen",
        "engine": "slices",
        "architecture": {"name": "unetpp_ds", "arguments": {"filters": [1, 1, 1], "out_channels": len(LABELS)}},
        "labels": [
            {"value": value, "name": name, "terminology": terminology, "color": list(color)}
            for value, (name, terminology, color, _) in enumerate(LABELS, start=1)
        ],
        "priority": list(PRIORITY),
        "input": {"pixel_mm": 2.0, "window_hu": list(WINDOW_HU)},
        "threshold": 0.5,
        "average_from": 1,
        "postprocessing": {"largest_component": True},
        "speeds": {
            "accurate": {"level": 2, "find_first": False},
            "balanced": {"level": 2, "find_first": True, "step_mm": 3},
        },
        **changes,
    }
    return write_bundle(folder, card_from_json(card), network.state_dict())


def organs_scan() -> Volume:
    """A body of fat in air, with the three organs as blocks, each in the brightness of its label."""
    array = np.full(SHAPE, -1000, np.int16)
    array[1:-1, 3:-3, 3:-3] = -60
    for name, _, _, hu in LABELS:
        array[AT[name]] = hu
    return Volume(array, GRID)


def organ(*names: str) -> np.ndarray:
    """The voxels of these organs in the scan: bool (K, J, I)."""
    mask = np.zeros(SHAPE, bool)
    for name in names:
        mask[AT[name]] = True
    return mask


def models_of_three_targets(folder) -> None:
    """A models folder with a model for organs, one for a liver brighter than 60 HU, and one that needs a newer version."""
    organs_bundle(folder / "abdomen-ct-v1.0.0")
    bright_bundle(folder / "liver-ct-v99.0.0")
    (folder / "lung-ct-v1.0.0").mkdir()
    (folder / "lung-ct-v1.0.0" / "model.json").write_text('{"schema": 99}')
    (folder / "lung-ct-v1.0.0" / "weights.pt").write_bytes(b"")
