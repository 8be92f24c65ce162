"""The Lightning data module: the slices of a training and of its validation."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Subset

from data.augmentation import Augment
from data.lookalikes import Piece, pieces_of
from data.sampler import BalancedSampler
from data.slices import DataError, Slice, SliceDataset, read_slices, sources_of, to_network_grid
from fit.settings import Settings, SettingsError
from UNetPlusPlusSegmentLib.network.card import Source


class SliceData(L.LightningDataModule):
    """Reads both splits when it is made, so that errors in the data show before the first step.

    Attributes:
        training, validation: The slices of both splits.
        groups: For each image of the validation, the number of its patient; without patients, all have the same number.
        sources: The sources of the training data.

    Raises:
        DataError: As for `read_all`; or a label is shown by no slice of `train`; or a source is not named.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings, self.target = settings, settings.goal
        self.sources = all_sources(settings)
        self.training, validation = (read_all(settings, split) for split in settings.splits)
        for at, label in enumerate(self.target.labels):
            if not any(item.knows(at) and item.mask[at].any() for item in self.training):
                raise DataError(
                    f"No slice of `train` shows {label.name}, so it cannot be learned: add slices with it, or remove the label."
                )
        self.validation = validation[:: settings.validation_stride]
        names = [item.row.get("patient", "all") for item in self.validation]
        number = {name: n for n, name in enumerate(sorted(set(names)))}
        self.groups = [number[name] for name in names]

    def check_processes(self, count: int) -> None:
        """Check that each process has an image to validate on.

        Raises:
            SettingsError: There are fewer images than processes.
        """
        if len(self.validation) < count:
            raise SettingsError(
                f"Too few images to validate on ({len(self.validation)}) for {count} processes: give a smaller validation_stride."
            )

    def train_dataloader(self) -> DataLoader:
        s, trainer = self.settings, self._trainer
        sampler = BalancedSampler(
            self.training,
            s.steps_per_epoch * s.batch_size * trainer.world_size,
            s.with_organ,
            s.seed,
            trainer.global_rank,
            trainer.world_size,
            epoch=lambda: trainer.global_step // s.steps_per_epoch,
            faint=self._faint(),
        )
        pieces = pieces_beside(self.training, s) if s.paste else ()
        augment = Augment(s, self.target.window_hu, pieces)
        patches = SliceDataset(self.training, s.pixel_mm, augment)
        return DataLoader(patches, s.batch_size, sampler=sampler, drop_last=True)

    def _faint(self) -> np.ndarray | None:
        """bool, one for each slice of the training: its labels have a mean below `faint_hu`. None for colour images."""
        to_hu, most_hu = self.target.to_hu, self.settings.faint_hu
        if self.target.window_hu is None:
            return None
        return np.array([i.shown.any() and to_hu(i.image[i.shown]).mean() < most_hu for i in self.training])

    def val_dataloader(self) -> DataLoader:
        """This process's share of the validation, image by image."""
        whole = SliceDataset(self.validation, self.settings.pixel_mm)
        trainer = self._trainer
        return DataLoader(Subset(whole, range(trainer.global_rank, len(whole), trainer.world_size)), 1)

    @property
    def _trainer(self) -> L.Trainer:
        return cast("L.Trainer", self.trainer)  # Lightning sets it before it asks for a loader


def read_all(settings: Settings, split: str) -> list[Slice]:
    """The slices of a split in `data` and in all folders of `also`, without slices in which every label is unknown.

    Raises:
        DataError: As for `read_slices`; or two folders have a patient of the same name.
    """
    slices: list[Slice] = []
    groups: dict[str, str] = {}
    for folder, kind in settings.folders:
        more = read_slices(folder, settings.goal, split, kind)
        here = {item.row[kind.group] for item in more}
        twice = sorted(groups.keys() & here)
        if twice:
            raise DataError(
                f"{folder} and {groups[twice[0]]} both have {', '.join(twice)}: rename {kind.group} in one of them."
            )
        groups |= dict.fromkeys(here, folder)
        slices += [item for item in more if any(item.knows(label) for label in range(len(item.mask)))]
    return slices


def all_sources(settings: Settings) -> list[Source]:
    """The sources of the training data, in `data` and in `also`.

    Raises:
        DataError: As for `sources_of`.
    """
    return [source for folder, kind in settings.folders for source in sources_of(folder, kind, settings.splits[0])]


def pieces_beside(slices: list[Slice], settings: Settings) -> list[Piece]:
    """The sections of structures that are easily mistaken for a label, where they are marked, at the network's pixels."""
    found = []
    for item in slices:
        if item.beside is not None and item.beside.any():
            image, beside = to_network_grid(replace(item, mask=item.beside[None]), settings.pixel_mm)
            found += pieces_of(image[0].numpy(), beside[0].numpy() > 0, settings.pixel_mm or item.pixel_mm)
    return found
