"""Adds to a bundle that is there already: to its card and to the figures of its evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from UNetPlusPlusSegmentLib.files.writing import whole_file
from UNetPlusPlusSegmentLib.network.bundle import CARD, EVALUATION, Bundle


def amend_bundle(bundle: Bundle, evaluation: Mapping[str, Any]) -> None:
    """Rewrite the card of a bundle, for the same weights, and add figures to its evaluation.

    Args:
        bundle: Holds the new card.
        evaluation: Figures to add; they replace those of the same names.

    Raises:
        FileError: The files cannot be written; both are as they were then.
    """
    path = bundle.folder / EVALUATION
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with (
        whole_file(path) as figures,
        whole_file(bundle.folder / CARD) as card,
    ):  # neither is replaced before both are written
        figures.write_text(_as_text({**known, **evaluation}), encoding="utf-8")
        card.write_text(_as_text(bundle.as_json()), encoding="utf-8")


def _as_text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
