"""Maps of nodules: those at points, in a box or in a chest, at any threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.note import Note
from ..core.request import Point
from ..core.volume import crop
from ..engine.maps import Found, Maps
from ..engine.slice_pool import in_order
from .candidates import (
    NEAR_MM,
    Candidate,
    Nodule,
    cut_by_scan,
    has_room,
    is_seen_whole,
    label_apart,
    nodule_at,
    reaches_beyond,
)
from .decision import probability
from .segments import LEAST_DIAMETER_MM, number_nodules
from .windows import Windows

Finding = tuple[Nodule, float | None]  # and its probability, where the model has a decision

_NOTHING_AT = (
    f"No nodule of {LEAST_DIAMETER_MM:g} mm or more was found at {{place}} or within {NEAR_MM:g} mm of it. Place the point in the"
    " middle of the nodule, or lower the threshold."
)
_MAY_EXTEND = (
    "The object at {place} may extend beyond the analysed region: it is larger than a nodule, or cannot be separated from"
    " adjacent tissue."
)
_NOT_SEEN = (
    "At this threshold, the object at {place} continues on slices that were not analysed. Run again at this threshold to"
    " segment all of it."
)
_CUT_BY_SCAN = "The nodule at {place} reaches the end of the scan: it may be larger than measured."
_CUT_BY_BOX = "The nodule at {place} reaches beyond the box: only the part inside was measured. Enlarge the box to measure it all."


@dataclass(frozen=True, eq=False, kw_only=True)
class NoduleMaps(Maps):
    """The answers of the network for the places where nodules may be.

    Attributes:
        windows: Of the volume, in axial order.
        candidates: One for each point, or all that the search found.
        points: (R, A, S) in mm, where the user gave any: what they mark is shown, however unlikely.
        lungs: (slices, rows, columns), as `find_lungs` gives them; nodules outside are left out. None where they may lie anywhere.
        phases: Seconds of each phase of the run, by its name.
    """

    windows: Windows
    candidates: Sequence[Candidate]
    points: Sequence[Point]
    lungs: np.ndarray | None
    phases: Mapping[str, float]

    @property
    def region(self) -> np.ndarray | None:
        """bool (slices, rows, columns), True where nodules are segmented; None for everywhere."""
        return None if self.inside is None else self.pixels.order.apply(self.inside)

    def _find(self, threshold: float, show_from: float | None) -> Found:
        findings = [*in_order(lambda candidate: self._finding(candidate, threshold, show_from), self.candidates)]
        notes = [
            Note("nothing-at-point", _NOTHING_AT, (point,))
            for point, finding in zip(self.points, findings, strict=False)
            if finding is None
        ]
        labelmap, segments, more = self._numbered([finding for finding in findings if finding])
        notes += [*more, *self._nothing_found(segments)]
        return np.ascontiguousarray(self.pixels.order.undo(labelmap)), segments, notes

    def _finding(self, candidate: Candidate, threshold: float, show_from: float | None) -> Finding | None:
        """The nodule at a candidate, if it was pointed at, or lies in the lungs and is likely enough."""
        nodule, decision = nodule_at(candidate, self.windows, threshold), self.bundle.decision
        if nodule is None:
            return None
        chance = probability(decision, nodule, self.windows) if decision else None
        outside = self.lungs is not None and not nodule.lies_in(self.lungs)
        unlikely = chance is not None and show_from is not None and chance < show_from
        return None if outside or unlikely else (nodule, chance)

    def _numbered(self, found: Sequence[Finding]) -> Found:
        """The findings, each once and as far as it lies in the region, on the voxels of the volume in axial order."""
        volume = self.windows.volume
        labelmap = np.zeros(volume.array.shape, np.uint8)
        if not found:
            return labelmap, (), []
        box, labels, values = label_apart([nodule for nodule, _ in found], self.region)
        shown = {value: finding for value, finding in zip(values, found, strict=True) if value}
        if not shown:
            return labelmap, (), []
        known = {
            value: {"probability": chance, "cut_by_scan": cut_by_scan(nodule, self.windows)}
            for value, (nodule, chance) in shown.items()
        }
        depth_mm = None if self.lungs is None else self.lungs[box]
        labelmap[box], segments, notes = number_nodules(labels, crop(volume, box), depth_mm, known)
        doubts = dict.fromkeys(doubt for nodule, _ in shown.values() for doubt in self._doubts(nodule))
        return labelmap, segments, [*notes, *doubts]

    def _doubts(self, nodule: Nodule) -> list[Note]:
        """Notes on a nodule that may be larger than what was found of it."""
        r, a, s = (self.windows.volume.ijk_to_ras @ [*nodule.middle[::-1], 1])[:3].tolist()
        doubts = (
            ("may-extend", _MAY_EXTEND, not has_room(nodule, self.windows)),
            ("not-seen-whole", _NOT_SEEN, not is_seen_whole(nodule, self.windows)),
            ("cut-by-scan", _CUT_BY_SCAN, bool(cut_by_scan(nodule, self.windows))),
            ("cut-by-box", _CUT_BY_BOX, reaches_beyond(nodule, self.region)),
        )
        return [Note(kind, sentence, ((r, a, s),)) for kind, sentence, holds in doubts if holds]

    def _nothing_found(self, segments: Sequence) -> list[Note]:
        if self.lungs is not None and not self.lungs.any():
            text = "No lungs were found, so the search was skipped. Mark the nodule with a point instead."
            return [Note("no-lungs", text)]
        if segments or self.points:
            return []
        where = " in the box" if self.lungs is None else ""
        return [Note("not-found", f"No nodules were found{where}.")]
