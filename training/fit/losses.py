"""The losses, computed from logits: MONAI's BCE + Dice, and two that MONAI lacks: the logarithm of Dice, and the paper's hybrid loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from monai.losses import DiceCELoss
from torch import Tensor
from torch.nn import functional as F

from data.slices import UNKNOWN

NEVER = -1e4  # log-odds of what is certainly not there; still finite in 16 bits


def hybrid(logits: Tensor, truth: Tensor, background: bool = False) -> Tensor:
    """Zhou et al. 2018, eq. 3: ``-(1/N) Σ_b (½·Y_b·log Ŷ_b + 2·Y_b·Ŷ_b / (Y_b + Ŷ_b))``, b over the N images of a batch.

    Products and sums run over the pixels of an image. The first term is averaged over the pixels, as in the authors' code, so that it
    does not grow with the image. As in the paper, an image without the organ contributes nothing.

    Args:
        logits: (N, labels, height, width), log-odds of Ŷ.
        truth: The same shape, 0 or 1.
        background: Add the other half of the cross-entropy, ``½·(1 - Y_b)·log(1 - Ŷ_b)``, which the equation lacks.

    Returns:
        A scalar; the best possible value is -1, or nearer to 0 if images of the batch do not show the label.
    """
    y, log_p = truth.flatten(1), F.logsigmoid(logits).flatten(1)
    p = log_p.exp()
    cross_entropy = (y * log_p).mean(1) / 2
    if background:
        cross_entropy = cross_entropy + ((1 - y) * F.logsigmoid(-logits).flatten(1)).mean(1) / 2
    dice = 2 * (y * p).sum(1) / (y.sum(1) + p.sum(1)).clamp_min(1e-6)
    return -(cross_entropy + dice).mean()


def bce_log_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """½·BCE − ln Dice of the batch (Wong et al. 2018, exponential logarithmic loss with exponent 1), for organs of very different sizes.

    Dice is flat while hardly anything has been found, so small organs are learned late or never; its logarithm is steepest there. For a
    batch without the organ the loss is the cross-entropy alone.

    Args:
        logits: (N, 1, height, width).
        truth: The same shape, 0 or 1.

    Returns:
        A scalar; the best possible value is 0.
    """
    p = logits.sigmoid()
    overlap, both = (truth * p).sum(), truth.sum() + p.sum()
    half = F.binary_cross_entropy_with_logits(logits, truth) / 2
    return half - torch.log((2 * overlap + 1) / (both + 1)) if truth.any() else half


# ½·BCE + 1 − Dice for one label, as in the authors' code. Dice is computed over the whole batch, where images without the organ count
# too; or for each image and then averaged, where a small section counts as much as a large one.
_bce_dice = partial(DiceCELoss, sigmoid=True, smooth_nr=1, smooth_dr=1, lambda_ce=0.5)
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bce_dice": _bce_dice(batch=True),
    "bce_dice_each": _bce_dice(batch=False),
    "bce_log_dice": bce_log_dice,
    "hybrid": hybrid,
    "hybrid_background": partial(hybrid, background=True),
}


def of_labels(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, truth: Tensor) -> Tensor:
    """Apply a loss to each label, on the images where the label is known, and average over the labels.

    Unknown pixels of the other images count as background that was recognised. A label that is unknown in the whole batch contributes
    0, and the others keep their weight.

    Args:
        loss: Takes the logits and the truth of one label, each (N, 1, height, width).
        logits: (N, labels, height, width).
        truth: The same shape: 1, 0 or `UNKNOWN`.
    """
    total = logits.new_zeros(())
    for label in range(logits.shape[1]):
        this = slice(label, label + 1)
        known = truth[:, label].flatten(1).amax(1) != UNKNOWN
        if known.any():
            of_label = truth[known, this]
            total = total + loss(logits[known, this].masked_fill(of_label == UNKNOWN, NEVER), of_label.clamp_min(0))
    return total / logits.shape[1]


def deep_supervision(loss: Callable[[Tensor, Tensor], Tensor], heads: Sequence[Tensor], truth: Tensor) -> Tensor:
    """The mean of `loss` over the heads, all against the same truth (MONAI's DeepSupervisionLoss is a weighted sum)."""
    return torch.stack([loss(logits, truth) for logits in heads]).mean()
