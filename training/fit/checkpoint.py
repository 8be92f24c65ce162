"""Reads checkpoints of train.py, and says what their weights were trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.provenance import NOTHING, Provenance
from data.slices import DataError, sources_of
from data.targets import Target
from fit.settings import Settings, SettingsError
from UNetPlusPlusSegmentLib.network.bundle import BundleError, read_bundle
from UNetPlusPlusSegmentLib.network.card import Source


@dataclass(frozen=True)
class Trained:
    """The contents of a checkpoint of train.py.

    Attributes:
        settings: Settings of the training, with the target as it was described then.
        state: State dict of the network: the averaged weights, if the training kept them.
        sources: What the training itself used.
        inherited: Provenance of the weights that it started from.
        steps: Number of steps so far.
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
        """The provenance of the weights, including that of their start."""
        return Provenance(self.sources, self.target.licence).going_on_from(self.inherited)


def read_checkpoint(checkpoint: Path) -> Trained:
    """Read a checkpoint.

    Raises:
        BundleError: It cannot be read; or it is an older one that does not say what its weights were trained on, and its slice
            folders or the weights that it started from have moved.
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
    except (SettingsError, DataError, TypeError) as error:  # TypeError: a setting that was removed
        raise BundleError(f"{checkpoint} cannot be used: {error}") from error
    state = {k.removeprefix("network."): v for k, v in saved["state_dict"].items() if k.startswith("network.")}
    return Trained(settings, state, sources, _inherited(checkpoint, saved, settings.init_from), saved["global_step"])


def provenance_of(weights: str | Path) -> Provenance:
    """The provenance of the weights of a bundle or a checkpoint.

    Raises:
        BundleError: It cannot be read, or names no source.
    """
    if Path(weights).is_dir():
        card = read_bundle(weights)
        provenance = Provenance(card.training_data, card.licence)
    else:
        provenance = read_checkpoint(Path(weights)).provenance
    if not provenance.sources:
        raise BundleError(
            f"{weights} does not say what it was trained on, which the card of a model trained from it must list: add"
            " training_data to its model.json, or use other weights."
        )
    return provenance


def all_sources(settings: Settings) -> list[Source]:
    """The sources of the training data, in `data` and in `also`.

    Raises:
        DataError: As for `sources_of`.
    """
    return [source for folder, kind in settings.folders for source in sources_of(folder, kind, settings.splits[0])]


def _inherited(checkpoint: Path, saved: dict, start: str) -> Provenance:
    """The provenance of the weights that a training started from; older checkpoints do not contain it, so it is looked up."""
    if "inherited" in saved:
        return Provenance(_sources(saved["inherited"]["sources"]), saved["inherited"]["licence"])
    if not start:
        return NOTHING
    try:
        return provenance_of(start)
    except BundleError as error:
        raise BundleError(
            f"{checkpoint} started from {start}, and does not say what that was trained on: {error}"
        ) from error


def _sources(stored: list[dict]) -> tuple[Source, ...]:
    return tuple(Source(**source) for source in stored)
