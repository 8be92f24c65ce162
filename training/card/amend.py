"""Adds to a bundle that is there already: to its card and to the figures of its evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from UNetPlusPlusSegmentLib.files import check_output
from UNetPlusPlusSegmentLib.files.writing import whole_file
from UNetPlusPlusSegmentLib.network.bundle import CARD, EVALUATION, Bundle, BundleError, json_text


def check_amendable(bundle: Bundle) -> None:
    """Check that `amend_bundle` will be able to write, before time is spent on the figures.

    Raises:
        BundleError, FileError: It will not.
    """
    for name in (CARD, EVALUATION):
        check_output(bundle.folder / name, (".json",))
    _figures_of(bundle)


def amend_bundle(bundle: Bundle, evaluation: Mapping[str, Any]) -> None:
    """Rewrite the card of a bundle, for the same weights, and add figures to its evaluation.

    Args:
        bundle: Holds the new card.
        evaluation: Figures to add; they replace those of the same names.

    Raises:
        BundleError, FileError: The files cannot be written; both are as they were then.
    """
    figures = {**_figures_of(bundle), **evaluation}
    # Neither is replaced before both are written.
    with whole_file(bundle.folder / EVALUATION) as beside, whole_file(bundle.folder / CARD) as card_beside:
        beside.write_text(json_text(figures), encoding="utf-8")
        card_beside.write_text(json_text(bundle.as_json()), encoding="utf-8")


def _figures_of(bundle: Bundle) -> dict[str, Any]:
    """The figures in the evaluation of a bundle; none if it has no evaluation."""
    path = bundle.folder / EVALUATION
    if not path.exists():
        return {}
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(
            f"{path} is no JSON ({error}), so nothing can be added to it: repair or remove it."
        ) from error
    if not isinstance(figures, dict):
        raise BundleError(f"{path} holds no figures by name, so nothing can be added to it: repair or remove it.")
    return figures
