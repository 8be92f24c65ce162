"""The losses against their formulas, written out by hand in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from fit.losses import LOSSES, deep_supervision, hybrid


def by_the_paper(logits, truth):
    """Zhou et al. 2018, eq. 3, image by image and pixel by pixel."""
    total = 0.0
    for image, mask in zip(logits.double(), truth.double(), strict=True):
        p = [1 / (1 + math.exp(-float(x))) for x in image.flatten()]
        y = [float(v) for v in mask.flatten()]
        cross_entropy = sum(yi * math.log(pi) for yi, pi in zip(y, p, strict=True)) / len(y)
        overlap = sum(yi * pi for yi, pi in zip(y, p, strict=True))
        total += 0.5 * cross_entropy + 2 * overlap / (sum(y) + sum(p))
    return -total / len(logits)


def test_the_hybrid_loss_is_equation_3_of_the_paper():
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 1, 5, 7), (torch.rand(3, 1, 5, 7) > 0.6).float()
    assert float(hybrid(logits, truth)) == pytest.approx(by_the_paper(logits, truth), abs=1e-6)


def test_the_background_that_the_hybrid_loss_lacks_is_the_other_half_of_the_cross_entropy():
    torch.manual_seed(0)
    logits, truth = torch.randn(3, 1, 5, 7, dtype=torch.float64), (torch.rand(3, 1, 5, 7) > 0.6).double()
    lacking = -((1 - truth) * (1 - logits.sigmoid()).log()).mean() / 2
    assert float(LOSSES["hybrid_background"](logits, truth) - hybrid(logits, truth)) == pytest.approx(float(lacking))


def test_bce_and_dice_are_half_the_cross_entropy_and_one_less_dice_of_the_batch_or_of_each_image():
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 5, 7, dtype=torch.float64)
    truth = (torch.rand(3, 1, 5, 7) > 0.6).double()
    truth[1] = 0  # an image without the organ
    p = 1 / (1 + torch.exp(-logits))
    half = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean() / 2

    def dice(y, p):
        return (2 * (y * p).sum() + 1) / (y.sum() + p.sum() + 1)

    each = sum(dice(*image) for image in zip(truth, p, strict=True)) / 3
    assert float(LOSSES["bce_dice"](logits, truth)) == pytest.approx(float(half + 1 - dice(truth, p)), abs=1e-12)
    assert float(LOSSES["bce_dice_each"](logits, truth)) == pytest.approx(float(half + 1 - each), abs=1e-12)


def test_the_log_dice_loss_is_half_the_cross_entropy_minus_the_logarithm_of_dice():
    torch.manual_seed(0)
    logits = torch.randn(3, 1, 5, 7, dtype=torch.float64)
    truth = (torch.rand(3, 1, 5, 7) > 0.6).double()
    difference = LOSSES["bce_log_dice"](logits, truth) - LOSSES["bce_dice"](logits, truth)
    dice = (2 * (truth * logits.sigmoid()).sum() + 1) / (truth.sum() + logits.sigmoid().sum() + 1)
    assert float(difference) == pytest.approx(float(dice - 1 - dice.log()), abs=1e-6)


def test_the_log_dice_loss_has_the_larger_gradient_for_a_small_organ_hardly_found():
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 30:34, 30:34] = 1
    push = {}
    for name in ("bce_dice", "bce_log_dice"):
        logits = torch.full((1, 1, 64, 64), -5.0, requires_grad=True)
        LOSSES[name](logits, truth).backward()
        push[name] = -float(logits.grad[truth > 0].sum())
    assert push["bce_log_dice"] > 5 * push["bce_dice"]


def test_a_batch_without_the_organ_has_the_cross_entropy_alone():
    logits, none = torch.randn(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    expected = F.binary_cross_entropy_with_logits(logits, none) / 2
    assert float(LOSSES["bce_log_dice"](logits, none)) == pytest.approx(float(expected), abs=1e-6)


def test_a_perfect_result_has_the_lowest_loss():
    truth = torch.zeros(2, 1, 8, 8)
    truth[:, :, 2:5] = 1
    perfect = (truth - 0.5) * 100
    assert float(hybrid(perfect, truth)) == pytest.approx(-1, abs=1e-5)
    assert float(LOSSES["bce_dice"](perfect, truth)) == pytest.approx(0, abs=1e-5)
    assert float(LOSSES["bce_dice_each"](perfect, truth)) == pytest.approx(0, abs=1e-5)
    assert float(LOSSES["bce_log_dice"](perfect, truth)) == pytest.approx(0, abs=1e-5)


def test_missing_a_small_organ_costs_as_much_as_missing_a_large_one_with_dice_per_image():
    truth = torch.zeros(2, 1, 32, 32)
    truth[0, :, 2:30, 2:30] = 1
    truth[1, :, 10:13, 10:13] = 1
    without = [
        (truth * torch.eye(2)[one].reshape(2, 1, 1, 1) - 0.5) * 20 for one in (1, 0)
    ]  # the large, then the small one missed
    cross_entropies = [float(F.binary_cross_entropy_with_logits(logits, truth)) / 2 for logits in without]
    large, small = (
        float(LOSSES["bce_dice_each"](x, truth)) - bce for x, bce in zip(without, cross_entropies, strict=True)
    )
    assert small == pytest.approx(large, rel=0.15)
    large, small = (float(LOSSES["bce_dice"](x, truth)) - bce for x, bce in zip(without, cross_entropies, strict=True))
    assert small < large / 10


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_loss_and_gradient_stay_finite_for_a_wrong_result_of_highest_confidence(loss, size, value):
    logits = torch.full((2, 1, 4, 4), size, requires_grad=True)
    loss(logits, torch.full_like(logits, value)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_step_along_the_gradient_lowers_the_loss(loss):
    torch.manual_seed(1)
    logits = torch.randn(2, 1, 6, 6, requires_grad=True)
    truth = (torch.rand(2, 1, 6, 6) > 0.5).float()
    before = loss(logits, truth)
    before.backward()
    assert loss(logits - 0.1 * logits.grad, truth) < before


def test_deep_supervision_is_the_mean_over_the_heads():
    truth = (torch.rand(2, 1, 6, 6) > 0.5).float()
    heads = [torch.randn(2, 1, 6, 6) for _ in range(4)]
    expected = sum(float(hybrid(h, truth)) for h in heads) / 4
    assert float(deep_supervision(hybrid, heads, truth)) == pytest.approx(expected, abs=1e-6)
