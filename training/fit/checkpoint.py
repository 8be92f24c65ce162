"""Checkpoints of train.py, and what their weights have learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.provenance import NOTHING, Provenance
from data.slices import DataError
from data.targets import Target
from fit.settings import Settings, SettingsError
from fit.slice_data import all_sources
from UNetPlusPlusSegmentLib.network.bundle import BundleError, read_bundle
from UNetPlusPlusSegmentLib.network.card import Source


@dataclass(frozen=True)
class Trained:
    """The contents of a checkpoint of train.py.

    Attributes:
        settings: Of its training; they hold the target as it was described then.
        state: State dict of the network: the averaged weights, where they were kept.
        sources: Of what it was trained on itself.
        inherited: Of the weights that it started from.
        steps: How many it had made.
    """

    settings: Settings
    state: dict[str, Tensor]
    sources: tuple[Source, ...]
    inherited: Provenance
    steps: int

    @property
    def target(self) -> Target:
        """The target of the training."""
        return self.settings.goal

    @property
    def provenance(self) -> Provenance:
        """Of its weights, what they started from included."""
        return Provenance(self.sources, self.target.licence).going_on_from(self.inherited)


def read_checkpoint(checkpoint: Path) -> Trained:
    """Read a checkpoint.

    Raises:
        BundleError: It cannot be read; or it is an older one, which does not say what its weights have learned from, and its slice
            folders, or the weights that it started from, are not where they were.
    """
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, too, says in many ways that a file is no checkpoint
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(f"{checkpoint} is not a checkpoint of train.py: {reason}") from error
    if "settings" not in saved:
        raise BundleError(f"{checkpoint} is not a checkpoint of today's train.py: it does not say how it was trained.")
    try:
        if "target" in saved:  # what `target` and `also` named may have changed since, or gone
            settings = Settings(**{**saved["settings"], "target": saved["target"], "also": {}})
            sources = _sources(saved["sources"])
        else:
            settings = Settings(**saved["settings"])
            sources = tuple(all_sources(settings))
    except (SettingsError, DataError, TypeError) as error:  # a setting that is no more
        raise BundleError(f"{checkpoint} cannot be used: {error}") from error
    state = {k.removeprefix("network."): v for k, v in saved["state_dict"].items() if k.startswith("network.")}
    return Trained(settings, state, sources, _inherited(checkpoint, saved, settings.init_from), saved["global_step"])


def provenance_of(weights: str | Path) -> Provenance:
    """What the weights of a bundle or a checkpoint have learned from.

    Raises:
        BundleError: It cannot be read, or does not say it.
    """
    if Path(weights).is_dir():
        card = read_bundle(weights)
        provenance = Provenance(card.training_data, card.licence)
    else:
        provenance = read_checkpoint(Path(weights)).provenance
    if not provenance.sources:
        raise BundleError(
            f"{weights} does not say what it was trained on, and the cards of all that goes on from it have to: name it as"
            " training_data in its model.json, or start from other weights."
        )
    return provenance


def _inherited(checkpoint: Path, saved: dict, start: str) -> Provenance:
    """What the weights of a training's start have learned from, which older checkpoints do not hold."""
    if "inherited" in saved:
        return Provenance(_sources(saved["inherited"]["sources"]), saved["inherited"]["licence"])
    if not start:
        return NOTHING
    try:
        return provenance_of(start)
    except BundleError as error:
        raise BundleError(
            f"{checkpoint} started from {start}, and does not say what that had learned from: {error}"
        ) from error


def _sources(stored: list[dict]) -> tuple[Source, ...]:
    return tuple(Source(**source) for source in stored)
