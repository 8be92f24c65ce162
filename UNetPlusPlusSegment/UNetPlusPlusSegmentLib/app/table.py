"""The results table of the page: a row for each segment, sorted by any column. No widgets, no scene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.table import rounded

NAME = "Segment"
COLUMNS = {  # measurements by title
    "ml": "volume_ml",
    "HU": "mean_hu",
    "mm": "mean_diameter_mm",
    "Kind": "kind",
    "Solid mm": "solid_long_axis_mm",
    "Probability": "probability",
    "Expected Dice": "expected_dice",
}
UPWARDS = NAME, "Kind", "Expected Dice"  # ascending; all others start with the largest number
ALWAYS = "ml"


class Table:
    """The columns, and how the rows are sorted."""

    def __init__(self) -> None:
        """Start in the order of the segmentation."""
        self._title, self._down = NAME, False

    def sort_by(self, title: str) -> None:
        """Sort by a column: the largest numbers first, or the lowest expected Dice. A second call reverses the order."""
        self._title, self._down = title, not self._down if title == self._title else title not in UPWARDS

    def content(
        self, segments: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> tuple[list[str], list[str], list[list[str]]]:
        """The IDs of the rows, the titles of the columns and the texts of the rows.

        Args:
            segments: Name and measurements, by ID. Segments without a value in the sort column come last; empty columns are left
                out.
        """
        ids = self._in_order(segments)
        texts = {title: [_text(key, segments[each][1].get(key)) for each in ids] for title, key in COLUMNS.items()}
        shown = [title for title in COLUMNS if title == ALWAYS or any(texts[title])]
        names = [segments[each][0] for each in ids]
        return ids, [NAME, *shown], [[*row] for row in zip(names, *(texts[title] for title in shown), strict=True)]

    def _in_order(self, segments: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[str]:
        if self._title not in COLUMNS:
            return [*segments][:: -1 if self._down else 1]
        values: dict[str, Any] = {each: measured.get(COLUMNS[self._title]) for each, (_, measured) in segments.items()}
        known = [each for each in segments if values[each] is not None]
        return sorted(known, key=values.__getitem__, reverse=self._down) + [
            each for each in segments if values[each] is None
        ]


def _text(key: str, value: Any) -> str:
    """The text of a rounded measurement; empty for None."""
    return "" if value is None else str(rounded(key, value))
