"""Label maps: which label each pixel gets, and what post-processing keeps of each label. NumPy and SimpleITK."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..core.masks import components, fill_holes, largest_component
from ..core.volume import bounding_box
from ..network.card import Card, Label, PostProcessing

# Called with the number of a label in the card, its numbered parts, and the corner at which that array begins; returns n + 1 weights
# for the parts 0…n, of which 0 is the background.
Weigh = Callable[[int, np.ndarray, Sequence[int]], np.ndarray]


def label_map(probability: np.ndarray, card: Card, threshold: float) -> np.ndarray:
    """The label of each pixel of a slice.

    Args:
        probability: (labels, rows, columns), 0…1, in the order of the card's labels.
        card: Where several labels reach the threshold, its `priority` decides, or the highest probability if it has none.
        threshold: Lowest probability of a pixel that belongs to a label.

    Returns:
        uint8 (rows, columns): the value of a label, or 0.
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


def postprocess(labelmap: np.ndarray, card: Card, weigh: Weigh) -> dict[int, int]:
    """Apply the post-processing of each label in place: drop parts, and fill holes where no other label lies.

    Args:
        labelmap: uint8 (slices, rows, columns), all slices of the scan; may be a view.
        card: Has the steps for all labels, or for each of them.
        weigh: Weighs the parts of a label; called only if light parts are dropped.

    Returns:
        The number of voxels that were dropped, by the value of the label.
    """
    dropped = {}
    for number, label in enumerate(card.labels):
        how = _steps(label, card)
        box = bounding_box(labelmap == label.value) if how != PostProcessing() else None
        if box is None:
            continue
        part = labelmap[box]
        before = kept = part == label.value
        if how.largest_component:
            kept = largest_component(kept)
        if how.least_part:
            parts = components(kept)
            weights = weigh(number, parts, [along.start for along in box])
            ends = parts[
                [end for end, is_end in ((0, box[0].start == 0), (-1, box[0].stop == len(labelmap))) if is_end]
            ]
            kept = heavy_parts(weights, ends, how)[parts]
        dropped[label.value] = int(np.count_nonzero(before) - np.count_nonzero(kept))
        if how.fill_holes:
            kept = fill_holes(kept)
        part[before & ~kept] = 0
        part[kept & (part == 0)] = label.value
    return dropped


def heavy_parts(weights: np.ndarray, ends: np.ndarray, how: PostProcessing) -> np.ndarray:
    """Which parts 0…n to keep (bool); 0 is the background. `ends`: the numbers of the parts on the first and last slice."""
    least = np.full(len(weights), how.least_part)
    if how.least_part_at_end is not None:
        least[ends] = how.least_part_at_end
    keep = weights >= least * weights[1:].max()
    keep[0] = False
    return keep


def has_steps(card: Card) -> bool:
    """True if `postprocess` may change a label map of this card."""
    return any(_steps(label, card) != PostProcessing() for label in card.labels)


def _steps(label: Label, card: Card) -> PostProcessing:
    return label.postprocessing or card.postprocessing
