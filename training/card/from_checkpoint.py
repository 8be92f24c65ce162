"""The model folder of a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from card.contents import CARDS
from data.targets import TARGETS
from fit.settings import Settings
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, write_bundle
from UNetPlusPlusSegmentLib.network.card import card_from_json
from UNetPlusPlusSegmentLib.network.unetpp import build_network


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
    saved = _read_checkpoint(checkpoint)
    settings = _settings_of(saved, checkpoint)
    state = {k.removeprefix("network."): v for k, v in saved["state_dict"].items() if k.startswith("network.")}
    if level is not None:
        settings, state = _pruned(settings, state, level)
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


def _read_checkpoint(checkpoint: Path) -> dict:
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, too, says in many ways that a file is no checkpoint
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(f"{checkpoint} is no checkpoint of train.py: {reason}") from error
    if not {"settings", "patients"} <= saved.keys():
        raise BundleError(f"{checkpoint} is no checkpoint of today's train.py: it does not say what it was trained on.")
    return saved


def _settings_of(saved: dict, checkpoint: Path) -> Settings:
    settings = Settings(**saved["settings"])
    if not settings.pixel_mm:
        raise BundleError(
            f"{checkpoint} was trained at the images' own pixels: a model needs one size, pixel_mm=2.0, say."
        )
    if settings.target not in CARDS:
        raise BundleError(f"There is no card for target {settings.target!r}; there are {', '.join(CARDS)}.")
    return settings


def _pruned(settings: Settings, state: dict[str, Tensor], level: int) -> tuple[Settings, dict[str, Tensor]]:
    network = build_network(settings.architecture, **settings.network_arguments)
    network.load_state_dict(state)
    try:
        state = network.pruned(level, all_heads=True).state_dict()
    except ValueError as error:
        raise BundleError(str(error)) from error
    return replace(settings, filters=settings.filters[: level + 1]), state


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
