"""The model folder of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor

from data.targets import Target
from fit.checkpoint import read_checkpoint
from fit.settings import Settings
from UNetPlusPlusSegmentLib.network.bundle import Bundle, BundleError, write_bundle
from UNetPlusPlusSegmentLib.network.card import Architecture, Card, Label, NetworkInput, Speed
from UNetPlusPlusSegmentLib.network.unetpp import build_network


def bundle_from_checkpoint(
    checkpoint: Path,
    folder: Path,
    figures: dict,
    average_from: int | None = None,
    threshold: float = 0.5,
    level: int | None = None,
    target: Target | None = None,
) -> Bundle:
    """Write the bundle of a checkpoint of train.py, its averaged weights where they were kept.

    Args:
        figures: What was measured, for evaluation.json.
        average_from: The first of the heads that the product averages; None: the deepest one alone.
        threshold: Probability from which on a pixel belongs to a label.
        level: Depth to prune the network to, as `NodeGrid.pruned` does; None: it stays whole.
        target: Describes the model in place of the target that the training had: another name, other terms, a further limit. It may
            leave labels out: the network loses their outputs.

    Raises:
        BundleError: The checkpoint cannot be read, has no head at `level`, is of images without HU or without one pixel size;
            `target` is not for this network; or the folder exists.
    """
    trained = read_checkpoint(checkpoint)
    settings, state = trained.settings, trained.state
    if target:
        settings, state = _described_anew(settings, state, target)
    target, provenance = settings.goal, replace(trained, settings=settings).provenance
    if target.window_hu is None:
        raise BundleError(f"{checkpoint} was trained on colour images: a model folder is for CT.")
    if not settings.pixel_mm:
        raise BundleError(
            f"{checkpoint} was trained at the images' own pixels: a model needs one size, pixel_mm=2.0, say."
        )
    if level is not None:
        settings, state = _pruned(settings, state, level)
    card = Card(
        target=target.name,
        engine=target.engine,
        labels=tuple(
            Label(value, each.name, each.terminology, each.color, each.postprocessing, each.usual)
            for value, each in enumerate(target.labels, start=1)
        ),
        priority=target.priority,
        input=NetworkInput(settings.pixel_mm, target.window_hu),
        architecture=Architecture(settings.architecture, settings.network_arguments),
        threshold=threshold,
        average_from=average_from or settings.depth,
        postprocessing=target.postprocessing,
        speeds=_speeds(target.speeds, settings),
        training_data=provenance.sources,
        licence=provenance.licence,
        intended_use=target.intended_use,
        limits=target.limits,
    )
    training = {
        "steps": trained.steps,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "started_from": _short(settings.init_from),
        "taught_by": _short(settings.teacher),
        "patch": list(settings.patch),
    }
    return write_bundle(folder, card, state, {"training": training, "figures": figures})


def _short(weights: str) -> str:
    """The last two parts of a path, which say nothing about the machine."""
    return "/".join(Path(weights).parts[-2:])


def _described_anew(settings: Settings, state: dict[str, Tensor], now: Target) -> tuple[Settings, dict[str, Tensor]]:
    """Settings and weights under another description of the target, with the outputs of its labels alone.

    Raises:
        BundleError: It has a label that the network has not learned, another window or another engine.
    """
    before = settings.goal
    learned = [(label.name, label.made_of) for label in before.labels]
    wanted = [(label.name, label.made_of) for label in now.labels]
    for what, fits in (
        ("labels", set(wanted) <= set(learned)),
        ("a window", before.window_hu == now.window_hu),
        ("an engine", before.engine == now.engine),
    ):
        if not fits:
            raise BundleError(
                f"The target {now.name} has {what} that the network was not trained for: it is one of {before.name}."
            )
    rows = [learned.index(label) for label in wanted]
    state = {name: weight[rows] if name.startswith("outputs.") else weight for name, weight in state.items()}
    return replace(settings, target=asdict(now)), state


def _pruned(settings: Settings, state: dict[str, Tensor], level: int) -> tuple[Settings, dict[str, Tensor]]:
    network = build_network(settings.architecture, **settings.network_arguments)
    network.load_state_dict(state)
    try:
        state = network.pruned(level, all_heads=True).state_dict()
    except ValueError as error:
        raise BundleError(str(error)) from error
    return replace(settings, filters=settings.filters[: level + 1]), state


def _speeds(speeds: dict[str, Speed], settings: Settings) -> dict[str, Speed]:
    """The target's speeds, as deep as the network can be cut; without deep supervision it has only the deepest head."""
    depth = settings.depth
    least = 1 if settings.architecture == "unetpp_ds" else depth
    return {name: replace(speed, level=max(least, min(speed.level, depth))) for name, speed in speeds.items()}
