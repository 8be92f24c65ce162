"""Trust in a segment: the signs that it may be wrong, and the places to look at. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .note import Note
from .request import Point
from .result import Result

# The unchanged scans that the expected Dice is fitted to have at least this many slices. In shorter ones it is too high: the network gets
# credit for agreement between slices that are not there.
LEAST_SLICES = 10
FEW_SLICES = Note("few-slices", f"The expected Dice cannot be estimated on fewer than {LEAST_SLICES} slices.")


@dataclass(frozen=True)
class Trust:
    """The signs that a segment may be wrong, and the places to look at.

    Attributes:
        cut_by_scan: Sides where it reaches the end of the scan or of the field of view (`inferior`, `superior`, `anterior`,
            `posterior`, `right`, `left`), so that its volume is a lower bound.
        doubtful_share: Share of the segment, 0…1, that the network was not sure of.
        dropped_ml: Volume of the parts that post-processing removed.
        doubtful_slices: The most doubtful slices, the worst first: `k`, the index along the array axis of the slices, and `s_mm`,
            the position towards Superior.
        doubtful_slices_ras: For each of these slices, the centre of its doubtful pixels: R, A, S in mm.
        expected_dice, expected_dice_low, expected_dice_high: The Dice expected against an expert's mask, and the range that holds it
            in eight of ten people; None if the model cannot estimate it, or not of so few slices.
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
        """All values that are known, in types for `json.dumps`, to be stored with the other measurements of the segment."""
        known = {name: value for name, value in vars(self).items() if value is not None}
        known["cut_by_scan"], known["doubtful_slices"] = [*self.cut_by_scan], [*map(dict, self.doubtful_slices)]
        points = [[*point] for point in known.pop("doubtful_slices_ras")]
        return {**known, "doubtful_slices_ras": points} if points else known


def why_no_dice(result: Result) -> str:
    """A sentence about the segments whose model cannot estimate the Dice; empty if there are none, or a note says that slices are few."""
    judged = {each.name: each.measurements for each in result.segments if "doubtful_share" in each.measurements}
    without = [name for name, found in judged.items() if found.get("expected_dice") is None]
    if not without or FEW_SLICES.kind in {note.kind for note in result.notes}:
        return ""
    whose = f" of {', '.join(without)}" if len(without) < len(judged) else ""
    return f"The model cannot estimate the expected Dice{whose}."


def in_words(name: str, value: Any) -> Any:
    """A measurement as a table cell: the lists of sides and slices become text, anything else stays as it is."""
    if name == "cut_by_scan":
        return ", ".join(value)
    if name == "doubtful_slices":
        return ", ".join(f"{each['k']} (S {each['s_mm']:.1f} mm)" for each in value)
    return value
