"""Pixel counts of each case at each threshold, and the IoUs computed from them: ours, and the two of the UNet++ authors' code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paper.files import read_rows, write_rows

# The authors' `np.arange(0.5, 1.0, 0.05)`, each by the name of its answer.
THRESHOLDS = {"all": 0.5} | {f"all>{percent / 100:.2f}": percent / 100 for percent in range(55, 100, 5)}


class Pooled(NamedTuple):
    """Figures over all pixels of a split together."""

    iou: float
    precision: float
    recall: float
    marked: float  # pixels found per true pixel


class Counts:
    """The pixel counts of a cell's cases.

    Attributes:
        cases: The names of the cases: images, or patients with all of their slices.
        of: Counts, int (cases, labels), by name: the known `pixels`, the `true` pixels of the label and, for each answer A, the pixels
            `found A`, and those of them that are right, `right A`. Answers are `all`, the mean of the heads at a threshold of 0.5;
            `all>0.55` to `all>0.95`, the same at higher thresholds; and with several heads `L1` to `L4`, each head at 0.5.
    """

    def __init__(self, cases: Iterable[str], labels: int) -> None:
        self.cases = list(cases)
        self.of = {name: np.zeros((len(self.cases), labels), np.int64) for name in ("pixels", "true")}

    def add(self, case: str, truth: np.ndarray, known: Sequence[bool], found: Mapping[str, np.ndarray]) -> None:
        """Add an image of a case.

        Args:
            case: One of `cases`.
            truth: bool (labels, rows, columns).
            known: For each label, whether the truth marks it completely; pixels of other labels are not counted.
            found: For each answer, an array like `truth`.
        """
        at = self.cases.index(case)
        self.of["pixels"][at] += truth[0].size * np.array(known)
        self.of["true"][at] += truth.sum((1, 2)) * known
        for answer, mask in found.items():
            for name, pixels in (f"found {answer}", mask), (f"right {answer}", mask & truth):
                self.of.setdefault(name, np.zeros_like(self.of["true"]))[at] += pixels.sum((1, 2)) * known

    def ious(self, answer: str = "all") -> dict[str, float]:
        """The IoU of each case that shows a label, at its stored pixels, averaged over the labels that it shows."""
        true, found, right = (self.of[name] for name in ("true", f"found {answer}", f"right {answer}"))
        iou = right / np.maximum(1, found + true - right)
        return {
            case: float(of_labels[shown].mean())
            for case, of_labels, shown in zip(self.cases, iou, true > 0, strict=True)
            if shown.any()
        }

    def pooled(self, answer: str = "all") -> Pooled:
        """Figures over the pixels of all images together, averaged over the labels."""
        true, found, right = (self.of[name].sum(0) for name in ("true", f"found {answer}", f"right {answer}"))
        of_each = right / np.maximum(1, (found + true - right, found, true)), found / np.maximum(1, true)
        return Pooled(*np.vstack(of_each).mean(1).tolist())

    def compute_iou(self) -> float:
        """The authors' `compute_iou` (keras/helper_functions.py): IoU at 0.5 of all test images, taken as one array."""
        return self.pooled().iou

    def batch_iou(self, size: int) -> float:
        """IoU at 0.5 over the pixels of each batch of `size` cases in their order, averaged over all cases and labels."""
        starts = np.arange(0, len(self.cases), size)
        true, found, right = (np.add.reduceat(self.of[name], starts) for name in ("true", "found all", "right all"))
        iou = right / np.maximum(1, found + true - right)
        return float(np.average(iou.mean(1), weights=np.diff([*starts, len(self.cases)])))

    def mean_iou(self) -> float:
        """The authors' `mean_iou` (keras/helper_functions.py), which their trainings report: the mean IoU over organ and background
        and over the ten thresholds 0.50…0.95.

        `tf.metrics.mean_iou` adds the pixels of all batches to one confusion matrix, so the pixels of all images are taken together here
        as well. Theirs also includes earlier batches, of the training too, and counts pixels of the network's size; ours covers only the
        measured split, at the stored pixels. With several labels it is the mean over the labels.
        """
        pixels, true = self.of["pixels"].sum(0), self.of["true"].sum(0)
        both = []
        for answer in THRESHOLDS:
            found, right = self.of[f"found {answer}"].sum(0), self.of[f"right {answer}"].sum(0)
            wrong = found + true - 2 * right
            organ, background = (
                right / np.maximum(1, right + wrong),
                (pixels - right - wrong) / np.maximum(1, pixels - right),
            )
            both.append((organ + background) / 2)
        return float(np.mean(both))

    def write(self, path: Path) -> None:
        """Write the counts as CSV, with a line for each case and label."""
        rows = [
            [case, label, *(int(array[at, label]) for array in self.of.values())]
            for at, case in enumerate(self.cases)
            for label in range(self.of["true"].shape[1])
        ]
        write_rows(path, ["case", "label", *self.of], rows)

    @staticmethod
    def read(path: Path) -> Counts:
        """Read what `write` wrote."""
        rows = read_rows(path)
        labels = 1 + max(int(row["label"]) for row in rows)
        counts = Counts(dict.fromkeys(row["case"] for row in rows), labels)
        for name in list(rows[0])[2:]:
            counts.of[name] = np.array([int(row[name]) for row in rows]).reshape(len(counts.cases), labels)
        return counts
