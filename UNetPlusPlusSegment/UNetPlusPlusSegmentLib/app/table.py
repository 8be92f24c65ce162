"""The page's table: a row for each segment, sorted as the visitor wants them. No widget, no scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "Segment"
COLUMNS = {  # by title: the measurement, and its digits; None for a word
    "ml": ("volume_ml", 1),
    "HU": ("mean_hu", 0),
    "mm": ("mean_diameter_mm", 1),
    "Kind": ("kind", None),
    "Probability": ("probability", 2),
}
ALWAYS = "ml"


class Table:
    """The columns, and what the rows are sorted by."""

    def __init__(self) -> None:
        """In the order of the segmentation."""
        self._title, self._down = NAME, False

    def sort_by(self, title: str) -> None:
        """Sort by a column, the largest numbers first; a second call turns the order round."""
        is_number = COLUMNS.get(title, ("", None))[1] is not None
        self._title, self._down = title, not self._down if title == self._title else is_number

    def content(
        self, segments: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> tuple[list[str], list[str], list[list[str]]]:
        """The IDs of the rows, the titles of the columns and the texts of the rows.

        Args:
            segments: Name and measurements by ID; those without what they are sorted by come last, and columns without any text
                are left out.
        """
        ids = self._in_order(segments)
        texts = {
            title: [_text(segments[each][1].get(key), digits) for each in ids]
            for title, (key, digits) in COLUMNS.items()
        }
        shown = [title for title in COLUMNS if title == ALWAYS or any(texts[title])]
        names = [segments[each][0] for each in ids]
        return ids, [NAME, *shown], [[*row] for row in zip(names, *(texts[title] for title in shown), strict=True)]

    def _in_order(self, segments: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[str]:
        if self._title not in COLUMNS:
            return [*segments][:: -1 if self._down else 1]
        values = {each: measured.get(COLUMNS[self._title][0]) for each, (_, measured) in segments.items()}
        known = [each for each in segments if values[each] is not None]
        return sorted(known, key=values.__getitem__, reverse=self._down) + [
            each for each in segments if values[each] is None
        ]


def _text(value: Any, digits: int | None) -> str:
    if value is None:
        return ""
    return str(value) if digits is None else f"{value:.{digits}f}"
