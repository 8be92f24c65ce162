"""The answer of a model, which is the heads that it averages and its threshold, chosen on people who are not in its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data.slices import DataError
from data.targets import Target
from measure import nodule_crops, per_patient
from measure.heads import best_average
from UNetPlusPlusSegmentLib.network.bundle import Bundle


def answered(bundle: Bundle, data: str | Path, split: str, target: Target) -> tuple[Bundle, dict | None]:
    """The bundle with the answer that is best on a split.

    A nodule model gets the heads and the threshold that are best for what is pointed at, any other the heads that are best per patient.

    Args:
        bundle: A model whose answer has not been chosen yet.
        data: Slice folder.
        split: The people on whom the training was validated.
        target: How to read the folder and its labels.

    Returns:
        The bundle, and its figures per patient on the split; None if the choice took none.

    Raises:
        DataError, TargetError: The data cannot be used.
    """
    try:
        if bundle.engine == "nodule":
            average_from, threshold = nodule_crops.best_answer(bundle, Path(data), split, target)
            return replace(bundle, average_from=average_from, threshold=threshold), None
        figures = per_patient.evaluate(bundle, data, split, target=target)
    except DataError as error:
        raise DataError(
            f"The heads to average are chosen on the people on whom the training was validated, and these cannot be read: {error}"
        ) from error
    return replace(bundle, average_from=best_average(figures["heads"])), figures
