"""Maps of nodules: those at points, in a box or in a chest, at any threshold. NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.note import Note
from ..core.request import Point
from ..core.volume import Volume, crop, in_words
from ..engine.maps import Found, Maps
from ..engine.slice_pool import in_order
from .candidates import Candidate, Nodule, Ranges, has_room, is_seen_whole, label_apart, nodule_of
from .segments import LEAST_INSIDE, find_nodules, number_nodules
from .vessel_rejection import Vessels, continues_as_vessel
from .windows import Patches, Window

NEAR_MM = 10.0  # a nodule this close to a point is the one meant

_MAY_EXTEND = (
    "The object at {place} may extend beyond the analysed region: it is larger than a nodule, or cannot be separated from"
    " adjacent tissue."
)
_NOT_SEEN = (
    "At this threshold, the object at {place} continues on slices that were not analysed. Run again at this threshold to"
    " segment all of it."
)


class Places(ABC):
    """Places where nodules may be."""

    @abstractmethod
    def nodules(self, patches: Patches, threshold: float) -> Found:
        """The nodules there at a threshold, on the voxels of the volume in axial order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NoduleMaps(Maps):
    """The answers of the network for the places where nodules may be.

    Attributes:
        patches: The maps, on the voxels of the volume, and the volume in axial order.
        places: Where nodules may be.
    """

    patches: Patches
    places: Places

    def _find(self, threshold: float) -> Found:
        labelmap, segments, notes = self.places.nodules(self.patches, threshold)
        return np.ascontiguousarray(self.pixels.order.undo(labelmap)), segments, notes


@dataclass(frozen=True, eq=False)
class AtPoints(Places):
    """Points of the user.

    Attributes:
        points: (R, A, S) in mm.
        meant: For each of them the candidates that it may mean; the first that is there counts.
    """

    points: Sequence[Point]
    meant: Sequence[Sequence[Candidate]]

    def nodules(self, patches: Patches, threshold: float) -> Found:
        """The nodules at the points; one that two points mark is returned once."""
        found: list[Nodule] = []
        notes: list[Note] = []
        for point, candidates in zip(self.points, self.meant, strict=True):
            for candidate in candidates:
                nodule = nodule_at(candidate, patches, threshold)
                if nodule:
                    found.append(nodule)
                    notes += _doubts(nodule, candidate.window, patches, in_words(point))
                    break
            else:
                text = (
                    f"No nodule was found at {in_words(point)} or within {NEAR_MM:g} mm of it. Place the point in the middle of"
                    " the nodule, or lower the threshold."
                )
                notes.append(Note("nothing-at-point", text))
        labelmap, segments, more = _label(found, patches.volume)
        return labelmap, segments, [*notes, *more]


@dataclass(frozen=True, eq=False)
class InBox(Places):
    """A box of the user.

    Attributes:
        ranges: Its slices, rows and columns.
    """

    ranges: Ranges

    def nodules(self, patches: Patches, threshold: float) -> Found:
        """The nodules in the box."""
        volume = patches.volume
        labelmap = np.zeros(volume.array.shape, np.uint8)
        labelmap[self.ranges], segments, notes = find_nodules(
            patches.probability[self.ranges], crop(volume, self.ranges), None, threshold
        )
        missing = [] if segments else [Note("not-found", "No nodules were found in the box.")]
        return labelmap, segments, [*notes, *missing]


@dataclass(frozen=True, eq=False)
class InChest(Places):
    """The lungs.

    Attributes:
        lungs: bool (slices, rows, columns).
        vessels: Those that are full of contrast medium.
        candidates: All that the search found.
    """

    lungs: np.ndarray
    vessels: Vessels
    candidates: Sequence[Candidate]

    def nodules(self, patches: Patches, threshold: float) -> Found:
        """The nodules in the lungs, without candidates that continue like a vessel."""
        found: list[Nodule] = []
        notes: list[Note] = []

        def counted(candidate: Candidate) -> Nodule | None:
            nodule = nodule_at(candidate, patches, threshold)
            return nodule if nodule and self._counts(nodule, patches.volume) else None

        for candidate, nodule in zip(self.candidates, in_order(counted, self.candidates), strict=True):
            if nodule is None:
                continue
            found.append(nodule)
            centre = patches.volume.ijk_to_ras @ [*middle_of(nodule.box)[::-1], 1]
            notes += _doubts(nodule, candidate.window, patches, in_words(centre[:3]))
        labelmap, segments, more = _label(found, patches.volume, self.lungs)
        notes = [*dict.fromkeys(notes), *more]  # two candidates may be one nodule
        if not self.lungs.any():
            text = "No lungs were found, so the search was skipped. Mark the nodule with a point instead."
            notes.append(Note("no-lungs", text))
        elif not segments:
            notes.append(Note("not-found", "No nodules were found."))
        return labelmap, segments, notes

    def _counts(self, nodule: Nodule, volume: Volume) -> bool:
        return bool(
            self.lungs[nodule.box][nodule.mask].mean() >= LEAST_INSIDE
            and not self.vessels.contain(nodule)
            and not continues_as_vessel(nodule, volume, self.lungs)
        )


def nodule_at(candidate: Candidate, patches: Patches, threshold: float) -> Nodule | None:
    """The nodule at a candidate, as far as its slices were predicted."""
    return nodule_of(candidate, patches, candidate.window.planes.get, threshold)


def middle_of(box: Sequence[slice]) -> np.ndarray:
    """The index in the middle of ranges of voxels."""
    return np.array([(along.start + along.stop - 1) / 2 for along in box])


def _doubts(nodule: Nodule, window: Window, patches: Patches, place: str) -> list[Note]:
    """Notes on a nodule that may extend beyond the analysed region."""
    notes = []
    if not has_room(nodule, window, patches):
        notes.append(Note("may-extend", _MAY_EXTEND.format(place=place)))
    if not is_seen_whole(nodule, window, patches):
        notes.append(Note("not-seen-whole", _NOT_SEEN.format(place=place)))
    return notes


def _label(nodules: Sequence[Nodule], volume: Volume, lungs: np.ndarray | None = None) -> Found:
    """Number nodules on the voxels of the volume."""
    labelmap = np.zeros(volume.array.shape, np.uint8)
    if not nodules:
        return labelmap, (), []
    box, labels = label_apart(nodules)
    if lungs is None:
        labelmap[box], segments, notes = number_nodules(labels, crop(volume, box))
        return labelmap, segments, notes
    whole = np.zeros(labelmap.shape, labels.dtype)
    whole[box] = labels
    return number_nodules(whole, volume, lungs)
