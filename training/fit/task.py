"""The Lightning side of a training: one step, one validation, the optimiser, and what goes into a checkpoint."""

from __future__ import annotations

import dataclasses
import math

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric

from fit.losses import LOSSES, deep_supervision
from fit.settings import Settings
from UNetPlusPlusSegmentLib.network.device import cpu_has_bf16
from UNetPlusPlusSegmentLib.network.unetpp import build_network


def has_fast_bf16() -> bool:
    """Whether bf16 is computed in hardware here: asked, never assumed."""
    return torch.cuda.is_bf16_supported(including_emulation=False) if torch.cuda.is_available() else cpu_has_bf16()


class GroupDice(Metric):
    """Dice per group (patient) over its pooled pixels, then the mean over the groups that have the organ."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        for name in ("overlap", "found", "true"):
            self.add_state(name, torch.zeros(groups, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, found: Tensor, truth: Tensor, group: int) -> None:
        """Add one image: bool tensors of one shape, and the number of its group."""
        self.overlap[group] += (found & truth).sum()
        self.found[group] += found.sum()
        self.true[group] += truth.sum()

    def compute(self) -> Tensor:
        """Mean Dice, 0…1."""
        has = self.true > 0
        return (2 * self.overlap[has] / (self.found[has] + self.true[has])).float().mean()


class SegmentationTask(L.LightningModule):
    """A network in training. `val_dice` (and `val_iou`) are those of the averaged heads, pooled per patient."""

    def __init__(self, settings: Settings, groups: list[int], patients: int = 0) -> None:
        """Build it.

        Args:
            settings: Of the training.
            groups: The number of the patient that each image of the validation is of.
            patients: How many are trained on, for the card.
        """
        super().__init__()
        self.settings, self.groups, self.patients = settings, groups, patients
        self.network = build_network(settings.architecture, **settings.network_arguments)
        # oneDNN's backward pass for AVX2 is quicker with channels first, all else with channels last.
        self.layout = torch.channels_last if has_fast_bf16() else torch.contiguous_format
        self.network.to(memory_format=self.layout)
        self.loss = LOSSES[settings.loss]
        self.dice = GroupDice(max(groups) + 1)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        image, truth = batch
        heads = self.network(image.contiguous(memory_format=self.layout))
        loss = deep_supervision(self.loss, heads, truth)
        with torch.no_grad():
            found, true = heads[-1] > 0, truth > 0
            iou = (found & true).sum() / (found | true).sum().clamp_min(1)
        self.log_dict({"loss": loss, "iou": iou}, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        image, truth = batch
        heads = self.network(image.contiguous(memory_format=self.layout))
        found = torch.stack([h.sigmoid() for h in heads]).mean(0) >= 0.5
        number = index * self.trainer.world_size + self.global_rank
        self.dice.update(found, truth > 0, self.groups[number])

    def on_validation_epoch_end(self) -> None:
        dice = self.dice.compute()
        self.dice.reset()
        self.log_dict({"val_dice": dice, "val_iou": dice / (2 - dice)}, prog_bar=True)

    def configure_optimizers(self) -> dict:
        s = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay)

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, s.warmup_steps))
            return rise * (1 + math.cos(math.pi * min(1.0, step / s.steps))) / 2

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """The settings travel with the weights: evaluate.py and export.py need nothing else."""
        checkpoint["settings"] = dataclasses.asdict(self.settings)
        checkpoint["patients"] = self.patients
