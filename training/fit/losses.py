"""The losses, from logits: the paper's hybrid loss, and plain BCE + Dice, of a batch or of each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def hybrid(logits: Tensor, truth: Tensor) -> Tensor:
    """Zhou et al. 2018, eq. 3: ``-(1/N) Σ_b (½·Y_b·log Ŷ_b + 2·Y_b·Ŷ_b / (Y_b + Ŷ_b))``, b over the N images of a batch.

    Products and sums run over the pixels of an image; the first term is taken per pixel, as the authors' code does, so that it does not
    grow with the image. An image without the organ adds nothing by itself, as in the paper.

    Args:
        logits: (N, labels, height, width), log-odds of Ŷ.
        truth: the same shape, 0 or 1.

    Returns:
        A scalar, at best -1.
    """
    y, log_p = truth.flatten(1), F.logsigmoid(logits).flatten(1)
    p = log_p.exp()
    cross_entropy = (y * log_p).mean(1) / 2
    dice = 2 * (y * p).sum(1) / (y.sum(1) + p.sum(1)).clamp_min(1e-6)
    return -(cross_entropy + dice).mean()


def bce_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """½·BCE + 1 − Dice, Dice over the whole batch: images without the organ count too."""
    p = torch.sigmoid(logits)
    dice = (2 * (truth * p).sum() + 1) / (truth.sum() + p.sum() + 1)
    return F.binary_cross_entropy_with_logits(logits, truth) / 2 + 1 - dice


def bce_dice_each(logits: Tensor, truth: Tensor) -> Tensor:
    """½·BCE + 1 − Dice, Dice of each image by itself, then their mean: a small section counts as much as a large one."""
    y, p = truth.flatten(1), torch.sigmoid(logits).flatten(1)
    dice = (2 * (y * p).sum(1) + 1) / (y.sum(1) + p.sum(1) + 1)
    return F.binary_cross_entropy_with_logits(logits, truth) / 2 + 1 - dice.mean()


def deep_supervision(loss: Callable[[Tensor, Tensor], Tensor], heads: Sequence[Tensor], truth: Tensor) -> Tensor:
    """The mean of `loss` over the heads, each against the same truth."""
    return torch.stack([loss(logits, truth) for logits in heads]).mean()


LOSSES = {"bce_dice": bce_dice, "bce_dice_each": bce_dice_each, "hybrid": hybrid}
