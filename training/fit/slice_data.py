"""The Lightning data module: the slices of a training and of its validation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Subset

from data.lookalikes import LEAST_PIECE_MM2, Piece, pieces_of
from data.provenance import Provenance
from data.sampler import BalancedSampler
from data.slices import DataError, Slice, SliceDataset, read_slices, to_network_grid
from fit.augmentation import Augment
from fit.checkpoint import people_in, sources_in
from fit.settings import Settings, SettingsError
from fit.teacher import Teacher

_log = logging.getLogger(__name__)


class SliceData(L.LightningDataModule):
    """Reads both splits when it is made, so that errors in the data show before the first step.

    Attributes:
        training, validation: The slices of both splits.
        folder_of: For each slice of the training, the number of its folder: 0 for `data`, then those of `also`.
        groups: For each image of the validation, the number of its patient; without patients, all have the same number.
        own: The sources and people of the training data.

    Raises:
        DataError: As for `read_folders`; or somebody is in both splits, a label is shown to the network by no slice of `train`, no label by
            any slice of the validation, or a source is not named.
        SettingsError: The teacher cannot be used, or has nothing to mark; or `paste` or `even_folders` could change nothing.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings, self.target = settings, settings.goal
        given = settings.folders, settings.splits[0]
        self.own = Provenance(sources_in(*given), settings.goal.licence, people_in(*given))
        self._check_people()
        teacher = Teacher(settings.teacher, settings) if settings.teacher else None
        folders = read_folders(settings, settings.splits[0])
        if teacher:
            if all(item.knows(at) for folder in folders for item in folder for at in range(len(item.mask))):
                raise SettingsError(
                    "There is nothing for a teacher to mark, because all labels are known in all slices of the training: leave out"
                    " teacher, or add slices with unknown labels in `also`."
                )
            folders = [[teacher.mark(item) for item in folder] for folder in folders]
        folders = [[item for item in folder if item.knows_any] for folder in folders]
        self.training = [item for folder in folders for item in folder]
        self.folder_of = np.repeat(np.arange(len(folders)), [len(folder) for folder in folders])
        self._check_effects()
        marked = read_folders(settings, settings.splits[1], marked=True)
        validation = [item for folder in marked for item in folder if item.knows_any]
        self._check_training()
        self.validation = validation[:: settings.validation_stride]
        self._check_validation(validation)
        names = ["all" if item.group == item.row["file"] else item.group for item in self.validation]
        number = {name: n for n, name in enumerate(sorted(set(names)))}
        self.groups = [number[name] for name in names]

    def _check_people(self) -> None:
        """Check that nobody is in the training of one folder and in the validation of another."""
        held_out = [(folder, kind) for folder, kind in self.settings.folders if kind.structures]
        both = {*self.own.people} & {*people_in(held_out, self.settings.splits[1])}
        if both:
            raise DataError(
                f"{', '.join(sorted(both))} would be learned from in one folder and validated on in another: prepare both with the same"
                " split, or give different people different names."
            )

    def _check_effects(self) -> None:
        """Refuse settings that would change nothing, and so would be taken for what made a difference."""
        s = self.settings
        if s.paste and not any(pieces_beside(self.training, s)):
            raise SettingsError(
                f"There is nothing for paste={s.paste:g} to paste, because no slice shows a piece of {LEAST_PIECE_MM2 / 100:g} cm² of a"
                " structure that the target names under `beside`: give paste=0, or add a folder that marks such pieces in `also`."
            )
        if s.even_folders and len({*self.folder_of[[item.mask.any() for item in self.training]]}) < 2:
            raise SettingsError(
                "There is nothing for even_folders to make even, because only one folder has slices that show a label: leave it out, or add"
                " another folder in `also`."
            )

    def _check_training(self) -> None:
        """Check that the network is shown all labels."""
        for at, label in enumerate(self.target.labels):
            if not self._shows(self.training, at):
                which, way_out = f"No slice of `train` shows {label.name}", "add slices with it"
                if any(_marked(self.training, at)):
                    which, way_out = self._too_thin("train", label.name)
                raise DataError(f"{which}, so it cannot be learned: {way_out}, or remove the label.")

    def _check_validation(self, every: list[Slice]) -> None:
        """Check that the validation can tell a good network from a bad one; `every` has its slices before the stride.

        Without a label its Dice is unknown, and the best checkpoint would be the first one.
        """
        names = [label.name for label in self.target.labels]
        missing = [at for at in range(len(names)) if not self._shows(self.validation, at)]
        for at in missing:
            which, way_out = self._why_missing(at, every)
            if len(missing) == len(names):
                raise DataError(f"{which}, so no checkpoint could be called the best: {way_out}.")
            _log.warning(f"{which}, so the best checkpoint is chosen without it: {way_out}.")

    def _why_missing(self, label: int, every: list[Slice]) -> tuple[str, str]:
        """Why the validation does not show a label, and the way out."""
        name, split = self.target.labels[label].name, self.settings.splits[1]
        if self._shows(every, label):
            taken = f"none that validation_stride={self.settings.validation_stride} takes"
            return f"Of the slices of `{split}`, {taken} shows {name}", "give a smaller validation_stride"
        if any(_marked(every, label)):
            return self._too_thin(split, name)
        return f"No slice of `{split}` shows {name}", f"put people with {name} into it"

    def _too_thin(self, split: str, name: str) -> tuple[str, str]:
        pixel = f"pixel_mm={self.settings.pixel_mm:g}"
        return f"No slice of `{split}` shows {name} at {pixel}, as it fills half of no pixel", "give a smaller pixel_mm"

    def _shows(self, slices: list[Slice], label: int) -> bool:
        """True if a label is left at the network's pixels on a slice where it is known."""
        grids = (to_network_grid(item, self.settings.pixel_mm)[1] for item in _marked(slices, label))
        return any((truth[label] > 0).any() for truth in grids)

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
            groups=self.groups_of_draws(),
        )
        pieces = [*pieces_beside(self.training, s)] if s.paste else ()
        augment = Augment(s, self.target.window_hu, pieces)
        patches = SliceDataset(self.training, s.pixel_mm, augment)
        return DataLoader(patches, s.batch_size, sampler=sampler, drop_last=True)

    def groups_of_draws(self) -> np.ndarray:
        """int, one for each slice of the training: its folder, if folders count equally; if not, 1 if it is fainter than `faint_hu`."""
        s, target = self.settings, self.target
        if s.even_folders:
            return self.folder_of
        if target.window_hu is None:
            return np.zeros(len(self.training), int)
        faint = [i.shown.any() and target.to_hu(i.image[i.shown]).mean() < s.faint_hu for i in self.training]
        return np.array(faint, int)

    def val_dataloader(self) -> DataLoader:
        """This process's share of the validation, image by image."""
        whole = SliceDataset(self.validation, self.settings.pixel_mm)
        trainer = self._trainer
        return DataLoader(Subset(whole, range(trainer.global_rank, len(whole), trainer.world_size)), 1)

    @property
    def _trainer(self) -> L.Trainer:
        return cast("L.Trainer", self.trainer)  # Lightning sets it before it asks for a loader


def _marked(slices: list[Slice], label: int) -> Iterator[Slice]:
    """The slices on which a label is known and marked."""
    return (item for item in slices if item.knows(label) and item.mask[label].any())


def read_folders(settings: Settings, split: str, marked: bool = False) -> list[list[Slice]]:
    """The slices of a split in `data` and in each folder of `also`; with `marked`, without the folders in which nothing is marked.

    Raises:
        DataError: As for `read_slices`; or two folders have a patient of the same name.
    """
    folders: list[list[Slice]] = []
    groups: dict[str, str] = {}
    for folder, kind in settings.folders:
        if marked and not kind.structures:
            continue
        slices = read_slices(folder, settings.goal, split, kind)
        here = {item.row[kind.group] for item in slices}
        twice = sorted(groups.keys() & here)
        if twice:
            raise DataError(
                f"{folder} and {groups[twice[0]]} both have {', '.join(twice)}: leave out one, or rename {kind.group} in one of them if"
                " these are different people."
            )
        groups |= dict.fromkeys(here, folder)
        folders.append(slices)
    return folders


def pieces_beside(slices: list[Slice], settings: Settings) -> Iterator[Piece]:
    """The sections of structures that are easily mistaken for a label, where they are marked, at the network's pixels."""
    for item in slices:
        if item.beside is not None and item.beside.any():
            image, beside = to_network_grid(replace(item, mask=item.beside[None], unsure=None), settings.pixel_mm)
            yield from pieces_of(image[0].numpy(), beside[0].numpy() > 0, settings.pixel_mm or item.pixel_mm)
