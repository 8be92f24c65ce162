"""Reads checkpoints of train.py, and says what their weights were trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.kinds import Kind
from data.provenance import NOTHING, Provenance
from data.slices import DataError, read_rows, sources_of
from data.targets import Target
from fit.settings import Settings, SettingsError
from UNetPlusPlusSegmentLib.network.bundle import CARD, BundleError, read_bundle
from UNetPlusPlusSegmentLib.network.card import Source

UNTOLD = Source("data that its older card does not name")


@dataclass(frozen=True)
class Trained:
    """The contents of a checkpoint of train.py.

    Attributes:
        settings: Settings of the training, with the target as it was described then, and without `also`.
        also: The setting `also`; what it names may have gone since.
        state: State dict of the network: the averaged weights, if the training kept them.
        sources: What the training itself used.
        people: Names of the people of whom that is; None for an older checkpoint, which does not say it.
        inherited: Provenance of the weights that it started from.
        steps: Number of steps so far.
    """

    settings: Settings
    also: dict[str, str]
    state: dict[str, Tensor]
    sources: tuple[Source, ...]
    people: tuple[str, ...] | None
    inherited: Provenance
    steps: int

    @property
    def target(self) -> Target:
        """The target of the training."""
        return self.settings.goal

    @property
    def provenance(self) -> Provenance:
        """The provenance of the weights, including that of their start."""
        unnamed = self.sources if self.people is None else ()
        own = Provenance(self.sources, self.target.licence, self.people or (), unnamed)
        return own.going_on_from(self.inherited)


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
            sources = sources_in(settings.folders, settings.splits[0])
    except (SettingsError, DataError, TypeError) as error:  # TypeError: a setting that was removed
        raise BundleError(f"{checkpoint} cannot be used: {error}") from error
    state = {k.removeprefix("network."): v for k, v in saved["state_dict"].items() if k.startswith("network.")}
    people = tuple(saved["people"]) if "people" in saved else None
    inherited = _inherited(checkpoint, saved, settings.init_from)
    also = saved["settings"].get("also", {})
    return Trained(settings, also, state, sources, people, inherited, saved["global_step"])


def provenance_of(weights: str | Path) -> Provenance:
    """The provenance of the weights of a bundle or a checkpoint.

    Raises:
        BundleError: It cannot be read, or names no source.
    """
    if Path(weights).is_dir():
        card = read_bundle(weights)
        schema = json.loads((Path(weights) / CARD).read_text(encoding="utf-8"))["schema"]
        more = () if schema >= 3 else (UNTOLD,)  # cards of schema 1 and 2 name only one source
        provenance = Provenance(card.training_data, card.licence, unnamed=(*card.training_data, *more))
    else:
        provenance = read_checkpoint(Path(weights)).provenance
    if not provenance.sources:
        raise BundleError(
            f"{weights} does not say what it was trained on, which the card of a model trained from it must list: add"
            " training_data to its model.json, or use other weights."
        )
    return provenance


def sources_in(folders: Sequence[tuple[str, Kind]], split: str) -> tuple[Source, ...]:
    """The sources of a split of slice folders.

    Raises:
        DataError: As for `sources_of`.
    """
    return tuple(source for folder, kind in folders for source in sources_of(folder, kind, split))


def people_in(folders: Sequence[tuple[str, Kind]], split: str) -> tuple[str, ...]:
    """The names of the people in a split of slice folders, sorted.

    Raises:
        DataError: As for `read_rows`.
    """
    return tuple(sorted({row[kind.group] for folder, kind in folders for row in read_rows(folder, kind, split)}))


def seen_by(trained: Trained, data: str | Path, kind: Kind, split: str) -> list[str]:
    """The people in a split of a slice folder from whom a network has learned: folds are dealt anew when people are added.

    Raises:
        DataError: As for `read_rows`.
    """
    return sorted({*trained.provenance.people} & {*people_in([(str(data), kind)], split)})


def require_unseen(trained: Trained, data: str | Path, kind: Kind, split: str) -> None:
    """Require that a network has learned from nobody in a split of a slice folder.

    Raises:
        BundleError: It has.
        DataError: As for `read_rows`.
    """
    seen = seen_by(trained, data, kind, split)
    if seen:
        raise BundleError(
            f"The training {trained.settings.name} has learned from {len(seen)} of the people in {split} of {data}, so that its figures"
            " would be too good: train it again if people were added since, as folds are then dealt anew, or measure it on others."
        )


def _inherited(checkpoint: Path, saved: dict, start: str) -> Provenance:
    """The provenance of the weights that a training started from; older checkpoints do not contain it, so it is looked up."""
    if "inherited" in saved:
        kept = saved["inherited"]
        sources = _sources(kept["sources"])
        unnamed = _sources(kept["unnamed"]) if "unnamed" in kept else sources
        return Provenance(sources, kept["licence"], tuple(kept.get("people", ())), unnamed)
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
