"""The truth about a label map: how much of each label's mask it can show, and on which slices that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data.slices import Slice
from data.targets import Target, TargetError
from UNetPlusPlusSegmentLib.engine.label_map import shared_out
from UNetPlusPlusSegmentLib.network.bundle import Bundle


def target_of(bundle: Bundle, target: Target) -> Target:
    """The labels of a model as a target describes them, in the model's order and with its priority.

    Raises:
        TargetError: The target lacks a label of the model, or says that labels share structures, of which the model knows nothing.
    """
    own = target.only([label.name for label in bundle.labels])
    try:
        return replace(own, priority=bundle.priority)
    except ValueError as error:
        raise TargetError(
            f"The target {target.name} does not fit {bundle.name}, which has no priority: {error}"
        ) from error


def in_label_map(item: Slice, target: Target) -> Slice:
    """A slice in which each label has lost what it shares with labels that take priority, and is known where the rest of it is."""
    names = [label.name for label in target.labels]
    structures = sorted({structure for label in target.labels for structure in label.made_of})
    made_of = np.array([[structure in label.made_of for structure in structures] for label in target.labels])
    left = [
        [structure for structure, is_left in zip(structures, each, strict=True) if is_left]
        for each in shared_out(made_of, names, target.priority)
    ]
    known = np.array([target.slices.is_known(each, item.row) for each in left])
    return replace(item, mask=shared_out(item.mask, names, target.priority), known=known)
