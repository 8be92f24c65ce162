"""Label maps: the label that a pixel gets of several, and what post-processing keeps of each. NumPy and SimpleITK."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..core.masks import fill_holes, largest_component
from ..core.volume import bounding_box
from ..network.card import Card, Label

STEPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of a card, in its order
    "largest_component": largest_component,
    "fill_holes": fill_holes,
}


def label_map(probability: np.ndarray, card: Card, threshold: float) -> np.ndarray:
    """The label of each pixel of a slice.

    Args:
        probability: (labels, rows, columns), 0…1, in the order of the card's labels.
        card: Its `priority` decides where several labels reach the threshold, and without one the probability.
        threshold: Least probability of a pixel that belongs to a label.

    Returns:
        uint8 (rows, columns): values of labels, and 0.
    """
    values = np.array([label.value for label in card.labels], np.uint8)
    names = [label.name for label in card.labels]
    found = probability >= threshold
    if len(values) == 1:
        return values[0] * found[0]
    if card.priority:
        order = [names.index(name) for name in card.priority]
        first = np.array(order)[found[order].argmax(axis=0)]
    else:
        first = probability.argmax(axis=0)
    return values[first] * found.any(axis=0)


def postprocess(labelmap: np.ndarray, card: Card) -> None:
    """Take away of each label, in place, what its post-processing drops, and fill its holes where no other label lies.

    Args:
        labelmap: uint8, three axes in any order; a view will do.
    """
    for label in card.labels:
        steps = _steps(label, card)
        box = bounding_box(labelmap == label.value) if steps else None
        if box is not None:
            part = labelmap[box]
            before = kept = part == label.value
            for step in steps:
                kept = step(kept)
            part[before & ~kept] = 0
            part[kept & (part == 0)] = label.value


def has_steps(card: Card) -> bool:
    """True if `postprocess` may change something."""
    return any(_steps(label, card) for label in card.labels)


def _steps(label: Label, card: Card) -> list[Callable[[np.ndarray], np.ndarray]]:
    how = label.postprocessing or card.postprocessing
    return [step for name, step in STEPS.items() if getattr(how, name)]
