"""Fits the decision of a nodule model, which of its findings are nodules, on findings in crops and in one whole chest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from data.targets import load_target
from measure.chests import READERS, Chest, readers_of
from measure.nodule_crops import crops_of, hu_of, marks_of, volume_of
from UNetPlusPlusSegmentLib.core.request import Request, as_box
from UNetPlusPlusSegmentLib.core.volume import axial_order
from UNetPlusPlusSegmentLib.files import read_volume
from UNetPlusPlusSegmentLib.network.bundle import Bundle
from UNetPlusPlusSegmentLib.network.card import Decision
from UNetPlusPlusSegmentLib.nodule.candidates import label_apart, nodule_at
from UNetPlusPlusSegmentLib.nodule.decision import features
from UNetPlusPlusSegmentLib.nodule.engine import NoduleEngine
from UNetPlusPlusSegmentLib.nodule.maps import NoduleMaps

# Share of the nodules that are shown by default. In three whole chests that no fit has seen, this shows 0.7 false findings of 4 mm or
# more per scan, and 0.9 would show 3.3.
SHOWN = 0.85
FOLDS = 5
# On the squared weights of standardised features; the one with the lowest loss is used.
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0)
SEED = 0


@dataclass(frozen=True)
class Example:
    """A finding of the engine, labelled by the readers.

    Attributes:
        patient: Whose finding it is.
        features: The features that the decision uses.
        is_nodule: True if readers marked a nodule there.
    """

    patient: str
    features: dict[str, float]
    is_nodule: bool


def examples_of_crops(bundle: Bundle, data: Path, split: str) -> list[Example]:
    """All findings of the search in the crops of a split.

    The crops of each nodule are searched as a scan, and every second one of them as another scan. The distance between the slices is not
    recorded in crops; it is chosen so that the nodule is as long as it is wide.
    """
    engine, target, examples = _undecided(bundle), load_target(bundle.target), []
    crops = crops_of(data, split, target)
    for items in (each[::step] for each in crops for step in (1, 2) if step == 1 or len(each) > 2):
        readers = np.stack([marks_of(data, item) for item in items])
        volume = volume_of(hu_of(items, target), items[0].pixel_mm, readers > 1)
        everything = as_box([(0, n) for n in readers.shape])
        maps = engine.predict(volume, Request(bundle.target, speed="accurate", box=everything, force=True))
        examples += _examples(maps, readers, items[0].row["patient"], is_whole=False)
    return examples


def examples_of_chest(bundle: Bundle, folder: Path, chest: Chest) -> list[Example]:
    """All findings of the search in a whole chest."""
    volume, _ = read_volume(folder / chest.image)
    maps = _undecided(bundle).predict(volume, Request(bundle.target))
    readers = axial_order(volume).apply(readers_of(chest, folder, volume.array.shape))
    return _examples(maps, readers, chest.patient, is_whole=True)


def _undecided(bundle: Bundle) -> NoduleEngine:
    """An engine that keeps every finding, however unlikely."""
    return NoduleEngine(replace(bundle, decision=None), "cpu")


def _examples(maps: NoduleMaps, readers: np.ndarray, patient: str, is_whole: bool) -> list[Example]:
    """The findings that readers clearly judged: without those that only one or two readers marked, and those nobody was asked about.

    Each finding counts once. Findings at the edge of a crop are cut off there, so they are left out too.

    Args:
        maps: The maps of a whole chest or of a crop.
        readers: Number of readers who marked each voxel, (slices, rows, columns) in axial order.
        patient: Whose they are.
        is_whole: They come from a whole chest, not from a crop.
    """
    found = [nodule for c in maps.candidates if (nodule := nodule_at(c, maps.windows, maps.threshold))]
    found = (
        [nodule for nodule, value in zip(found, label_apart(found, maps.region)[2], strict=True) if value]
        if found
        else []
    )
    examples = []
    for nodule in found:
        marks = readers[nodule.box][nodule.mask]
        agreed = bool((marks >= READERS).any())
        cut = any(b.start == 0 or b.stop == n for b, n in zip(nodule.box[1:], readers.shape[1:], strict=True))
        outside = maps.lungs is not None and not nodule.lies_in(maps.lungs)
        if (agreed or not marks.any()) and not outside and (is_whole or not cut):
            examples.append(Example(patient, features(nodule, maps.windows), agreed))
    return examples


def fit(examples: Sequence[Example]) -> tuple[Decision, dict]:
    """Fit a decision, and measure it by cross-validation over patients.

    Returns:
        The decision and its figures: numbers of examples, the area under the ROC curve, and points of the curve. The decision's `least`,
        the probability from which a finding is shown, is what a share `SHOWN` of the nodules reach, each judged by a fit without its
        patient.
    """
    names = sorted(examples[0].features)
    x = np.array([[each.features[name] for name in names] for each in examples])
    y = np.array([each.is_nodule for each in examples])
    patients = np.array([each.patient for each in examples])
    losses = {penalty: _loss(y, _left_out(x, y, patients, penalty)) for penalty in PENALTIES}
    penalty = min(losses, key=losses.__getitem__)
    chances = _left_out(x, y, patients, penalty)
    intercept, weights = _fitted(x, y, penalty)
    least = float(np.quantile(chances[y], 1 - SHOWN))
    decision = Decision(round(intercept, 4), dict(zip(names, weights.round(4).tolist(), strict=True)), round(least, 4))
    return decision, {
        "nodules": int(y.sum()),
        "others": int((~y).sum()),
        "patients": len(set(patients)),
        "penalty": penalty,
        "area under the curve": round(_area(y, chances), 4),
        "roc": _roc(y, chances),
    }


def _fitted(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
    """Intercept and weights, for the unscaled features, of a logistic regression with a penalty on the weights of standardised features."""
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = np.column_stack([np.ones(len(x)), (x - mean) / deviation])
    sign = np.where(y, 1.0, -1.0)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        odds = sign * (z @ weights)
        pull = np.r_[0.0, penalty * weights[1:]]
        return -log_expit(odds).sum() + weights[1:] @ pull[1:] / 2, pull - z.T @ (sign * expit(-odds))

    weights = minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B").x
    return float(weights[0] - (weights[1:] * mean / deviation).sum()), weights[1:] / deviation


def _left_out(x: np.ndarray, y: np.ndarray, patients: np.ndarray, penalty: float) -> np.ndarray:
    """The probability of each example, by a fit without the fold of its patient."""
    names = np.unique(patients)
    fold = dict(zip(np.random.default_rng(SEED).permutation(names), np.arange(len(names)) % FOLDS, strict=True))
    of_each = np.array([fold[name] for name in patients])
    chances = np.zeros(len(y))
    for number in range(FOLDS):
        held_out = of_each == number
        intercept, weights = _fitted(x[~held_out], y[~held_out], penalty)
        chances[held_out] = expit(intercept + x[held_out] @ weights)
    return chances


def _loss(y: np.ndarray, chances: np.ndarray) -> float:
    return float(-np.log(np.where(y, chances, 1 - chances).clip(1e-9)).mean())


def _area(y: np.ndarray, chances: np.ndarray) -> float:
    """Area under the ROC curve: the share of pairs, a nodule and something else, in which the nodule has the higher probability."""
    return float((chances[y][:, None] > chances[~y]).mean())


def _roc(y: np.ndarray, chances: np.ndarray) -> list[dict[str, float]]:
    """For each probability 0.1 to 0.9, the shares of the nodules and of the others that have at least that probability."""
    return [
        {
            "probability": float(least),
            "nodules": round(float((chances[y] >= least).mean()), 3),
            "others": round(float((chances[~y] >= least).mean()), 3),
        }
        for least in np.arange(1, 10) / 10
    ]
