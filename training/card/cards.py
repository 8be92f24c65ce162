"""Cards: what a bundle says of its target, and the bundle of a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from data.targets import TARGETS
from fit.settings import Settings
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, write_bundle
from UNetPlusPlusSegmentLib.network.card import card_from_json
from UNetPlusPlusSegmentLib.network.unetpp import build_network
from UNetPlusPlusSegmentLib.nodule.segments import TERMINOLOGY

_LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
# What a card says of its target, as JSON has it; {patients} becomes the number of those trained on.
CARDS = {
    "liver": {
        "labels": [{"value": 1, "name": "Liver", "terminology": _LIVER, "color": [221, 130, 101]}],
        "postprocessing": {"largest_component": True, "fill_holes": True},
        "speeds": {
            "accurate": {"level": 4, "find_first": False},
            "balanced": {"level": 4, "find_first": True, "step_mm": 4, "change": 0.04},
            "fast": {"level": 4, "find_first": True, "step_mm": 8, "change": 0.08, "margin_mm": 40},
        },
        "training_data": [
            {
                "name": "LiTS (Liver Tumor Segmentation Benchmark): axial slices of {patients} patients, some of them of 3D-IRCADb-01",
                "licence": "CC BY-NC-ND 4.0; 3D-IRCADb-01: CC BY-NC-ND 3.0",
                "citation": "Bilic P et al. The Liver Tumor Segmentation Benchmark (LiTS). Medical Image Analysis 84, 102680, 2023.",
            }
        ],
        "intended_use": "Research: outlining the liver in axial CT of the abdomen. Not for diagnosis or treatment.",
        "limits": [
            "Most of the patients had liver tumours and intravenous contrast; scans without contrast are less certain.",
            "On slices without liver it can take another organ for it: `evaluation.json` names the largest such area (worst_false_mm2).",
            "Trained on images clipped to -40…160 HU.",
            "Each slice is segmented by itself; neighbouring slices are not looked at.",
        ],
    },
    "nodule": {
        "labels": [{"value": 1, "name": "Nodule", "terminology": TERMINOLOGY, "color": [144, 238, 144]}],
        "postprocessing": {},
        "speeds": {
            "accurate": {"level": 4, "find_first": False},
            "balanced": {"level": 4, "find_first": True},
            "fast": {"level": 3, "find_first": True},
        },
        "training_data": [
            {
                "name": "LIDC-IDRI: axial crops around the nodules of {patients} patients, marked by at least two of four readers",
                "licence": "CC BY 3.0",
                "citation": "Armato SG III et al. The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative"
                " (IDRI). Medical Physics 38(2), 915-931, 2011.",
            }
        ],
        "intended_use": "Research: outlining a lung nodule that a user points at in axial CT of the chest. Not for diagnosis, treatment"
        " or screening.",
        "limits": [
            "Trained on crops of 128 x 128 pixels around nodules, never on whole lungs: it outlines nodules that are pointed at. What a"
            " search of a whole chest misses or finds wrongly has not been measured on a set of whole scans.",
            "What counts as nodule is what two of four readers marked; readers differ most at the rims of ground-glass and small nodules.",
            "A search of a whole chest leaves out what continues like a vessel, and with it some nodules that a vessel passes through.",
            "Masses above about 50 mm are larger than what it was trained on.",
            "Each slice is segmented by itself; neighbouring slices are not looked at.",
        ],
    },
}


def bundle_from_checkpoint(
    checkpoint: Path,
    folder: Path,
    figures: dict,
    average_from: int | None = None,
    threshold: float = 0.5,
    level: int | None = None,
) -> Bundle:
    """Write the bundle of a checkpoint of train.py, its averaged weights where they were kept.

    Args:
        figures: What was measured, for evaluation.json.
        average_from: The first of the heads that the product averages; None: what the figures say, see `_best_average`.
        threshold: Probability from which on a pixel belongs to the target.
        level: Depth to prune the network to, as `NodeGrid.pruned` does; None: it stays whole.

    Raises:
        BundleError: The checkpoint cannot be read, has no head at `level`, is of a target without a card, or the folder exists.
    """
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BundleError(f"{checkpoint} is no checkpoint of train.py: {str(error).splitlines()[0]}") from error
    if not {"settings", "patients"} <= saved.keys():
        raise BundleError(f"{checkpoint} is no checkpoint of today's train.py: it does not say what it was trained on.")
    settings = Settings(**saved["settings"])
    if not settings.pixel_mm:
        raise BundleError(
            f"{checkpoint} was trained at the images' own pixels: a model needs one size, pixel_mm=2.0, say."
        )
    if settings.target not in CARDS:
        raise BundleError(f"There is no card for target {settings.target!r}; there are {', '.join(CARDS)}.")
    state = {k.removeprefix("network."): v for k, v in saved["state_dict"].items() if k.startswith("network.")}
    if level is not None:
        network = build_network(settings.architecture, **settings.network_arguments)
        network.load_state_dict(state)
        try:
            state = network.pruned(level, all_heads=True).state_dict()
        except ValueError as error:
            raise BundleError(str(error)) from error
        settings = replace(settings, filters=settings.filters[: level + 1])
    target = CARDS[settings.target]
    card = card_from_json(
        {
            **target,
            "target": settings.target,
            "architecture": {"name": settings.architecture, "arguments": settings.network_arguments},
            "input": {"pixel_mm": settings.pixel_mm, "window_hu": TARGETS[settings.target].window_hu},
            "threshold": threshold,
            "average_from": average_from or _best_average(figures, otherwise=_least_level(settings)),
            "speeds": _speeds(target["speeds"], settings),
            "training_data": [
                {**source, "name": source["name"].format(patients=saved["patients"])}
                for source in target["training_data"]
            ],
            "licence": "research use only: MODELS_LICENSE.md",
        }
    )
    training = {
        "steps": saved["global_step"],
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "started_from": "/".join(Path(settings.init_from).parts[-2:]),  # no path of the machine
        "patch": list(settings.patch),
    }
    return write_bundle(folder, card, state, {"training": training, "figures": figures})


def _least_level(settings: Settings) -> int:
    """Of the heads there are, the shallowest; without deep supervision it is the only one."""
    return 1 if settings.architecture == "unetpp_ds" else settings.depth


def _best_average(figures: dict, otherwise: int) -> int:
    """The shallowest head to average: of the means up to the deepest head, that with the highest Dice.

    The deepest head alone is not among them: a mean of heads costs nothing and marks less where there is no organ.
    """
    means = {
        int(name[1]): head["dice"]
        for name, head in figures.get("heads", {}).items()
        if "-" in name and head["dice"] is not None
    }
    return max(means, key=means.get, default=otherwise)


def _speeds(speeds: dict[str, dict], settings: Settings) -> dict[str, dict]:
    """The target's speeds, as deep as the network can be cut."""
    least, depth = _least_level(settings), settings.depth
    return {name: {**speed, "level": max(least, min(speed["level"], depth))} for name, speed in speeds.items()}
