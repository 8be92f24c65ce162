"""Agreement of masks, pooled over the slices of a patient: Dice, IoU, distances; and their summary over patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from UNetPlusPlusSegmentLib.core.agreement import hausdorff95_mm, surface_dice, surface_distances

BOOTSTRAP_DRAWS = 2000
FEW = 10  # with fewer people, the interval over them is clearly too narrow, and no network is called better


@dataclass
class Pooled:
    """Pixel counts and distances over all slices of one patient."""

    overlap: int = 0  # pixels in both masks
    found: int = 0
    true: int = 0
    false_mm2: float = 0.0  # largest area found on a slice without the organ
    # Distances in mm from each outline pixel to the other outline, one array per slice: from found to true, and from true to found.
    to_truth: list[np.ndarray] = field(default_factory=list)
    to_found: list[np.ndarray] = field(default_factory=list)

    def add(self, found: np.ndarray, truth: np.ndarray, pixel_mm: float, outlines: bool = False) -> None:
        """Add one slice.

        Args:
            found: bool (rows, columns).
            truth: bool (rows, columns).
            pixel_mm: Side of a pixel.
            outlines: True if `pixel_mm` is reliable enough to measure distances.
        """
        self.overlap += int((found & truth).sum())
        self.found += int(found.sum())
        self.true += int(truth.sum())
        if not truth.any():
            self.false_mm2 = max(self.false_mm2, float(found.sum()) * pixel_mm**2)
        if outlines:
            self._add_distances(found, truth, np.eye(2) * pixel_mm)

    def add_volume(self, found: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> None:
        """Add a whole scan; distances are measured between its surfaces in 3D.

        Args:
            found: bool (slices, rows, columns).
            truth: bool (slices, rows, columns).
            spacing_mm: Spacing of slices, rows and columns.
        """
        self.overlap += int((found & truth).sum())
        self.found += int(found.sum())
        self.true += int(truth.sum())
        false = np.where(truth.any(axis=(1, 2)), 0, found.sum(axis=(1, 2))).max()
        self.false_mm2 = max(self.false_mm2, float(false) * spacing_mm[1] * spacing_mm[2])
        self._add_distances(found, truth, np.diag(spacing_mm))

    def _add_distances(self, found: np.ndarray, truth: np.ndarray, steps_mm: np.ndarray) -> None:
        to_truth, to_found = surface_distances(found, truth, steps_mm)
        self.to_truth.append(to_truth)
        self.to_found.append(to_found)

    @property
    def dice(self) -> float:
        """2·overlap / (found + true)."""
        return 2 * self.overlap / (self.found + self.true)

    @property
    def iou(self) -> float:
        """Overlap / union."""
        return self.overlap / (self.found + self.true - self.overlap)

    def figures(self) -> dict[str, float | None]:
        """All figures that apply, rounded.

        `dice` and `iou` if the truth has the organ, `hausdorff95_mm` and `surface_dice` if its outlines were measured, and
        `worst_false_mm2` always. The Hausdorff distance is the larger of the two 95 % quantiles; None stands for infinite, when more
        than 5 % of an outline lies on slices where the other mask is empty.
        """
        figures: dict[str, float | None] = {}
        if self.true:
            figures |= {"dice": round(self.dice, 4), "iou": round(self.iou, 4)}
        if self.true and any(map(len, self.to_found)):
            both = [np.concatenate(each) for each in (self.to_truth, self.to_found) if each]
            farthest = hausdorff95_mm(both)
            figures["hausdorff95_mm"] = None if farthest is None else round(farthest, 2)
            figures["surface_dice"] = round(surface_dice(both), 4)
        return figures | {"worst_false_mm2": round(self.false_mm2, 1)}


def summary(pooled: dict[str, Pooled]) -> dict:
    """The figures of each patient, and the means of Dice and IoU over the patients with the organ (None if there are none).

    `dice_95` is the 95 % interval of the mean Dice, from a bootstrap over these patients, and `dice_95_holds` how often such an interval
    contains the true mean (see `true_coverage`). One patient alone has neither.
    """
    with_organ = {name: p for name, p in pooled.items() if p.true}
    means: dict[str, float | list[float] | None] = {"dice": None, "dice_95": None, "dice_95_holds": None, "iou": None}
    if with_organ:
        dice = np.array([p.dice for p in with_organ.values()])
        means["dice"] = round(float(dice.mean()), 4)
        if len(dice) > 1:
            draws = np.random.default_rng(0).choice(dice, (BOOTSTRAP_DRAWS, len(dice))).mean(1)
            means["dice_95"] = [round(float(x), 4) for x in np.percentile(draws, [2.5, 97.5])]
            means["dice_95_holds"] = round(true_coverage(len(dice)), 2)
        means["iou"] = round(float(np.mean([p.iou for p in with_organ.values()])), 4)
    return {
        **means,
        "patients": {name: p.figures() for name, p in with_organ.items()},
        "without_organ": {name: p.figures() for name, p in pooled.items() if not p.true},
    }


def true_coverage(drawn: int) -> float:
    """How often a 95 % bootstrap interval of the mean of `drawn` normally distributed values contains the true mean.

    The bootstrap uses the spread about the sample's own mean instead of the true one, and the normal quantile instead of Student's t. With
    many values the result is 0.95, with four 0.81, with three 0.75. The interval over two values lies between them: 0.5.
    """
    if drawn == 2:
        return 0.5
    shrunk = stats.norm.ppf(0.975) * np.sqrt((drawn - 1) / drawn)
    return float(2 * stats.t.cdf(shrunk, drawn - 1) - 1)


def means_of(summaries: list[dict]) -> dict:
    """The means of Dice and IoU over the labels that occur in some patient; None if no label does."""
    there = [each for each in summaries if each["dice"] is not None]
    return {key: round(float(np.mean([each[key] for each in there])), 4) if there else None for key in ("dice", "iou")}
