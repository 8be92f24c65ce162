"""The slices of a training and of its validation (Lightning)."""

from __future__ import annotations

from dataclasses import replace

import lightning as L
from torch.utils.data import DataLoader, Subset

from data.augmentation import Augment
from data.lookalikes import Piece, pieces_of
from data.sampler import BalancedSampler
from data.slices import DataError, Slice, SliceDataset, read_slices, to_network_grid
from data.targets import TARGETS, Target
from fit.settings import Settings, SettingsError


class SliceData(L.LightningDataModule):
    """Reads both splits at once, so that what is wrong with them is refused before the first step.

    Attributes:
        groups: The number of the patient that each image of the validation is of; where there are no patients, all are of one group.
        patients: How many are trained on.

    Raises:
        DataError: As of `read_all`.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings, self.target = settings, TARGETS[settings.target]
        self.training, validation = (read_all(settings, split) for split in ("train", "val"))
        self.validation = validation[:: settings.validation_stride]
        names = [item.row.get("patient", "all") for item in self.validation]
        number = {name: n for n, name in enumerate(sorted(set(names)))}
        self.groups = [number[name] for name in names]
        self.patients = len({item.row[self.target.group] for item in self.training})

    def check_processes(self, count: int) -> None:
        """See that each process has something to validate on.

        Raises:
            SettingsError: It has not.
        """
        if len(self.validation) < count:
            raise SettingsError(
                f"{len(self.validation)} images of `val` are too few for {count} processes: give a smaller validation_stride."
            )

    def train_dataloader(self) -> DataLoader:
        s, trainer = self.settings, self.trainer
        sampler = BalancedSampler(
            self.training,
            s.steps_per_epoch * s.batch_size * trainer.world_size,
            s.with_organ,
            s.seed,
            trainer.global_rank,
            trainer.world_size,
            epoch=lambda: trainer.global_step // s.steps_per_epoch,
        )
        pieces = pieces_beside(self.training, self.target, s) if s.paste else ()
        augment = Augment(s, self.target.window_hu, pieces)
        patches = SliceDataset(self.training, self.target, s.pixel_mm, augment)
        return DataLoader(patches, s.batch_size, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """This process's share of the validation, image by image."""
        whole = SliceDataset(self.validation, self.target, self.settings.pixel_mm)
        return DataLoader(Subset(whole, range(self.trainer.global_rank, len(whole), self.trainer.world_size)), 1)


def read_all(settings: Settings, split: str) -> list[Slice]:
    """The slices of a split, of `data` and of all that `also` names, in the window of the target.

    Raises:
        DataError: As of `read_slices`; or a patient of that name is in two folders.
    """
    target = TARGETS[settings.target]
    slices = read_slices(settings.data, target, split)
    for name, folder in settings.also.items():
        other = TARGETS[name]
        more = read_slices(folder, other, split)
        twice = {item.row[target.group] for item in slices} & {item.row[other.group] for item in more}
        if twice:
            raise DataError(
                f"{', '.join(sorted(twice))} is in {folder} and in {settings.data}: rename it in one of them."
            )
        slices += [item.in_window(other.window_hu, target.window_hu) for item in more]
    return slices


def pieces_beside(slices: list[Slice], target: Target, settings: Settings) -> list[Piece]:
    """Cuts at the network's pixels through all that is easily mistaken for the organ, where it is marked."""
    found = []
    for item in slices:
        if item.beside is not None and item.beside.any():
            image, beside = to_network_grid(replace(item, mask=item.beside), target, settings.pixel_mm)
            found += pieces_of(image[0].numpy(), beside[0].numpy() > 0, settings.pixel_mm or item.pixel_mm)
    return found
