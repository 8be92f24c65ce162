"""Trust in a segment: the signs that it may be wrong, and the places to look at. The standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Trust:
    """The signs that a segment may be wrong, and the places to look at.

    Attributes:
        cut_by_scan: Sides at which it reaches the end of the scan or of the field of view, `inferior`, `superior`, `anterior`,
            `posterior`, `right`, `left`: its volume is a lower bound.
        doubtful_share: Share of it, 0…1, of which the network was not sure.
        dropped_ml: Volume of the parts that post-processing took away.
        doubtful_slices: The most doubtful slices, the worst first: `k`, the index along the array's axis, and `s_mm`, their position
            towards Superior.
        doubtful_slices_ras: The middle of what is doubtful on each, in mm towards Right, Anterior, Superior.
        expected_dice, expected_dice_low, expected_dice_high: The Dice that an expert's mask would give it, and the range that holds
            eight of ten; None if the model does not say.
    """

    cut_by_scan: tuple[str, ...]
    doubtful_share: float
    dropped_ml: float
    doubtful_slices: tuple[Mapping[str, float], ...]
    doubtful_slices_ras: tuple[Point, ...]
    expected_dice: float | None = None
    expected_dice_low: float | None = None
    expected_dice_high: float | None = None

    def as_measurements(self) -> dict[str, Any]:
        """What is known, in types for `json.dumps`, to stand beside the other measurements of a segment; no points without any."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        known["cut_by_scan"], known["doubtful_slices"] = [*self.cut_by_scan], [*map(dict, self.doubtful_slices)]
        points = [[*point] for point in known.pop("doubtful_slices_ras")]
        return {**known, "doubtful_slices_ras": points} if points else known


def without_expected_dice(segments: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The names of the segments, of names and measurements, that were judged by a model that does not say what Dice to expect."""
    return [name for name, found in segments if "doubtful_share" in found and found.get("expected_dice") is None]


def in_words(name: str, value: Any) -> Any:
    """A measurement as a cell of a table: sides and slices, which are lists, as text; anything else as it is."""
    if name == "cut_by_scan":
        return ", ".join(value)
    if name == "doubtful_slices":
        return ", ".join(f"{each['k']} (S {each['s_mm']:.1f} mm)" for each in value)
    return value
