"""Label maps: which label each pixel gets, and what post-processing keeps of each label, one label per thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..core.masks import components, fill_holes, largest_component
from ..core.volume import bounding_box
from ..network.card import Card, Label, PostProcessing
from .slice_pool import in_order

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
    first = (shared_out(found, names, card.priority) if card.priority else probability).argmax(axis=0)
    return values[first] * found.any(axis=0)


def shared_out(masks: np.ndarray, names: Sequence[str], priority: Sequence[str]) -> np.ndarray:
    """What a label map can show of masks that overlap: each without those of the labels that take priority over it.

    Args:
        masks: bool (labels, …).
        names: The names of these labels.
        priority: As in a card; labels that are not among `names` take nothing. Empty: the masks stay as they are, because they do not
            say which label is most probable.
    """
    left, taken = masks.copy(), np.zeros(masks.shape[1:], bool)
    for number in (names.index(name) for name in priority if name in names):
        left[number] &= ~taken
        taken |= masks[number]
    return left


def postprocess(labelmap: np.ndarray, card: Card, weigh: Weigh) -> dict[int, int]:
    """Apply the post-processing of each label in place: drop parts, and fill holes where no other label lies.

    Args:
        labelmap: uint8 (slices, rows, columns), all slices of the scan; may be a view.
        card: Has the steps for all labels, or for each of them.
        weigh: Weighs the parts of a label; called only if light parts are dropped.

    Returns:
        The number of voxels that were dropped, by the value of the label.
    """
    found = []
    for number, label in enumerate(card.labels):
        box = bounding_box(labelmap == label.value) if _steps(label, card) != PostProcessing() else None
        if box is not None:
            found.append((number, label, box))

    def look(each: tuple[int, Label, tuple[slice, ...]]) -> tuple[int, np.ndarray, np.ndarray]:
        number, label, box = each
        how, before = _steps(label, card), labelmap[box] == label.value  # no other label's steps change it
        kept = largest_component(before) if how.largest_component else before
        if how.least_part:
            at_ends = box[0].start == 0, box[0].stop == len(labelmap)
            kept = _without_light_parts(kept, partial(weigh, number), [along.start for along in box], at_ends, how)
        lost = int(np.count_nonzero(before) - np.count_nonzero(kept))
        filled = fill_holes(kept) if how.fill_holes else kept
        return lost, before & ~filled, filled & ~before

    dropped = {}
    for (_, label, box), (lost, less, more) in zip(found, in_order(look, found), strict=True):
        part = labelmap[box]
        part[less] = 0
        part[more & (part == 0)] = label.value  # one after the other: what a label has filled is no longer free
        dropped[label.value] = lost
    return dropped


def _without_light_parts(
    mask: np.ndarray,
    weigh: Callable[[np.ndarray, Sequence[int]], np.ndarray],
    corner: Sequence[int],
    at_ends: tuple[bool, bool],
    how: PostProcessing,
) -> np.ndarray:
    parts = components(mask)
    if parts.max() < 2:
        return mask
    ends = parts[[end for end, is_end in zip((0, -1), at_ends, strict=True) if is_end]]
    return heavy_parts(weigh(parts, corner), ends, how)[parts]


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
