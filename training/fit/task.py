"""The Lightning side of a training: one step, one validation, the optimiser, and what goes into a checkpoint."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import Metric

from data.provenance import NOTHING, Provenance
from data.slices import UNKNOWN
from fit.losses import LOSSES, deep_supervision, of_labels
from fit.settings import Settings
from UNetPlusPlusSegmentLib.network.device import cpu_has_bf16
from UNetPlusPlusSegmentLib.network.unetpp import build_network


def has_fast_bf16() -> bool:
    """True if the hardware here computes in bf16: asked, never assumed."""
    return torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else cpu_has_bf16()


class GroupDice(Metric):
    """Dice per label and group (patient) over its pooled pixels, then the mean over the groups that have the label."""

    overlap: Tensor
    found: Tensor
    true: Tensor

    def __init__(self, groups: int, labels: int) -> None:
        super().__init__()
        for name in ("overlap", "found", "true"):
            self.add_state(name, torch.zeros(groups, labels, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, found: Tensor, truth: Tensor, group: int) -> None:
        """Add one image: bool (1, labels, height, width), truth of the same shape as a patch has it, the number of its group."""
        found, true = found & (truth != UNKNOWN), truth > 0
        self.overlap[group] += (found & true).sum((0, 2, 3))
        self.found[group] += found.sum((0, 2, 3))
        self.true[group] += true.sum((0, 2, 3))

    def compute(self) -> Tensor:
        """Mean Dice of each label, 0…1; not a number where no group has it."""
        dice = 2 * self.overlap / (self.found + self.true)
        return dice.where(self.true > 0, torch.nan).nanmean(0)


class SegmentationTask(L.LightningModule):
    """A network in training.

    `val_dice` is that of the averaged heads, over the pooled pixels of each patient, then the mean over patients; of several labels
    their mean, and `val_dice_<label>` stands beside it. `val_iou` is the IoU that belongs to this Dice, Dice / (2 - Dice).
    """

    def __init__(
        self,
        settings: Settings,
        groups: list[int],
        own: Provenance = NOTHING,
        inherited: Provenance = NOTHING,
    ) -> None:
        """Build it.

        Args:
            settings: Of the training.
            groups: The number of the patient that each image of the validation is of.
            own: Sources and people of what is trained on.
            inherited: What the weights that it starts from and is taught by were trained on.
        """
        super().__init__()
        self.settings, self.groups, self.own, self.inherited = settings, groups, own, inherited
        self.network = build_network(settings.architecture, **settings.network_arguments)
        # oneDNN's backward pass for AVX2 is quicker with channels first, all else with channels last.
        self.layout = torch.channels_last if has_fast_bf16() else torch.contiguous_format
        self.network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.loss = partial(of_labels, LOSSES[settings.loss])
        self.labels = [label.name for label in settings.goal.labels]
        self.dice = GroupDice(max(groups) + 1, len(self.labels))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        image, truth = batch
        heads = self.network(image.contiguous(memory_format=self.layout))
        loss = deep_supervision(self.loss, heads, truth)
        with torch.no_grad():
            found, true = (heads[-1] > 0) & (truth != UNKNOWN), truth > 0
            iou = (found & true).sum() / (found | true).sum().clamp_min(1)
        self.log_dict({"loss": loss, "iou": iou}, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        image, truth = batch
        heads = self.network(image.contiguous(memory_format=self.layout))
        found = torch.stack([h.sigmoid() for h in heads]).mean(0) >= 0.5
        number = index * self.trainer.world_size + self.global_rank
        self.dice.update(found, truth, self.groups[number])

    def on_validation_epoch_end(self) -> None:
        of_each = self.dice.compute()
        self.dice.reset()
        dice = of_each.nanmean()
        # Lightning's own count of the steps is one further after a training was resumed.
        self.log("step", float(self.global_step - 1))
        self.log_dict({"val_dice": dice, "val_iou": dice / (2 - dice)}, prog_bar=True)
        if len(self.labels) > 1:
            names = (f"val_dice_{name.lower().replace(' ', '_')}" for name in self.labels)
            self.log_dict(dict(zip(names, of_each, strict=True)))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        s = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, s.warmup_steps))
            return rise * (1 + math.cos(math.pi * min(1.0, step / s.steps))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Settings, target, sources and people travel with the weights: evaluate.py, export.py and later trainings need nothing else."""
        checkpoint["settings"] = dataclasses.asdict(self.settings)
        checkpoint["target"] = dataclasses.asdict(self.settings.goal)
        checkpoint["sources"] = [dataclasses.asdict(source) for source in self.own.sources]
        checkpoint["people"] = self.own.people
        checkpoint["inherited"] = dataclasses.asdict(self.inherited)
