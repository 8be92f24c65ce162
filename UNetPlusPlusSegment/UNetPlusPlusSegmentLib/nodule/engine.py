"""The nodule engine: nodules at points, in a box, or in a whole chest. torch and NumPy; knows no Slicer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import SimpleITK as sitk

from ..core.volume import (
    AxialOrder,
    Volume,
    VolumeError,
    axial_order,
    axial_volume,
    check_ct,
    clean_hu,
    crop,
    in_words,
    index_of,
)
from ..engine.maps import Maps
from ..engine.organ import Progress, SliceEngine
from ..engine.pixel_box import Box
from ..engine.result import Cut, Result
from .candidates import (
    Nodule,
    Ranges,
    Target,
    has_room,
    is_seen_whole,
    label_apart,
    nodule_of,
    peaks,
    section_mm,
    section_of,
)
from .lungs import find_lungs
from .measurements import SOLID_HU
from .segments import LEAST_DIAMETER_MM, LEAST_INSIDE, find_nodules, number_nodules
from .vessel_rejection import Vessels, goes_on
from .windows import Patches, Window

BEYOND_MM = 2.0  # predicted beyond the ends of a nodule, in case the threshold is lowered
PATCH = 64  # side of the first window around a point, in the network's pixels
COARSE = 1.4  # pixels are this many times larger for an object that does not fit it, and to search the lungs first
ROOM_MM = 8.0  # margin around such an object in a window of its own, and around a box
MOST_MM, MOST_WINDOWS = 80.0, 4  # side of the largest window; number of windows tried
FAR = 2.8  # for a mass, pixels are this many times larger, in windows up to twice as large
LEAST_MASS_MM, LARGER = 20.0, 1.5  # least diameter of a mass, and as a multiple of the object in fine pixels
NEAR_MM = 10.0  # a nodule this close to a point is the one meant
LEAST_POINTED_MM = 2.0  # least diameter at a point: the user has seen the nodule, so it may be small
SEARCH_LEVEL = 2  # depth of the network that searches the lungs, at speeds that search first
SEARCH_ROOM_MM = 4.0  # margin around the lungs in that search
SEARCH_STEP_MM = 2.5  # between slices of that search: readers find nodules of 4 mm at this distance
PEAK_MM = 3.0  # largest distance of a nodule from its peak in that search

Point = Sequence[float]

_NO_ROOM = (
    "The object at {place} may extend beyond the analysed region: it is larger than a nodule, or cannot be separated from"
    " adjacent tissue."
)
_NOT_SEEN = (
    "At this threshold, the object at {place} continues on slices that were not analysed. Run again at this threshold to"
    " segment all of it."
)


class NoduleEngine(SliceEngine):
    """A nodule bundle on a device, ready for many volumes."""

    def segment(
        self,
        volume: Volume,
        speed: str = "balanced",
        threshold: float | None = None,
        force: bool = False,
        progress: Progress = lambda done, total: None,
        points: Sequence[Point] = (),
        box: Sequence[slice] | None = None,
    ) -> Result:
        """Segment lung nodules: those at the points, those in the box, or all in the chest.

        Args:
            volume, speed, threshold, force: As in `SliceEngine.segment`.
            progress: The same; from a point, the total is known only as far as the nodule has been followed.
            points: (R, A, S) in mm, each in a nodule or within 10 mm of one; the network sees only their surroundings.
            box: Voxels along K, J and I; nothing outside them is segmented.

        Returns:
            One segment for each nodule, largest first; without nodules, no segment and a note.

        Raises:
            VolumeError: The volume is not CT, a point lies outside it, or both points and a box are given.
        """
        started = time.perf_counter()
        if points and box is not None:
            raise VolumeError("Nodules are searched for at points or in a box: give one of the two, not both.")
        threshold = self.bundle.threshold_or_own(threshold)
        notes = check_ct(volume, force)
        order, axial = axial_order(volume), axial_volume(volume)
        indices = [index_of(axial, point) for point in points]
        hu, more = clean_hu(volume.array)
        volume, axial = Volume(hu, volume.ijk_to_ras), Volume(order.apply(hu), axial.ijk_to_ras)
        patches = Patches(self, axial, self.bundle.speed(speed).level, progress)
        if points:
            meant = [self._look_round_point(patches, index, threshold, progress) for index in indices]
            cut = partial(_cut_points, patches, points, meant)
        elif box is not None:
            ranges = _in_axial_order(box, order, volume.array.shape)
            window = self._window_round(patches, ranges[1:], ROOM_MM, self.bundle.pixel_mm)
            patches.look(window, range(ranges[0].start, ranges[0].stop))
            cut = partial(_cut_box, patches, ranges)
        else:
            lungs = find_lungs(axial)
            vessels = Vessels(axial.array, lungs)
            targets = self._search(patches, lungs, vessels, threshold, self.bundle.speed(speed).find_first, progress)
            cut = partial(_cut_chest, patches, lungs, vessels, targets)
        cut = partial(_undo, order, cut, [*notes, *more, *self.notes])
        maps = Maps(patches.probability, patches.spread, order, Box.whole(len(axial.array), axial.array.shape[1:]))
        return self._result(volume, maps, cut, threshold, patches.slices, started)

    def _look_round(
        self, patches: Patches, index: np.ndarray, within_mm: float, least_mm: float, threshold: float
    ) -> Target:
        """Follow the object at or near a place; if it does not fit the window, it gets one of its own.

        The slice of the place comes first, alone: it usually shows where the window has to be.
        """
        sides_mm = np.zeros(2)
        target = Target(index, self._window(patches, index[1:], sides_mm), within_mm, least_mm)
        patches.look(target.window, [round(float(index[0]))])
        found = section_of(target, patches, target.window.planes.get, threshold)
        for _ in range(MOST_WINDOWS):
            if found and not has_room(found, target.window, patches):
                sides_mm = np.maximum(_with_room(found, patches), sides_mm)
                target = replace(target, window=self._window(patches, _middle(found.box[1:]), sides_mm))
            found = nodule_of(target, patches, patches.looking(target.window), threshold)
            if found is None or has_room(found, target.window, patches) or sides_mm.max() >= MOST_MM:
                break
        if found and sides_mm.max() > PATCH * self.bundle.pixel_mm >= _with_room(found, patches).max():
            # It was something beside it that did not fit.
            near = replace(target, window=self._window(patches, _middle(found.box[1:]), np.zeros(2)))
            again = nodule_of(near, patches, patches.looking(near.window), threshold)
            if again and has_room(again, near.window, patches):
                target, found = near, again
        if found:
            _look_beyond(patches, target.window, found)
        return target

    def _window(self, patches: Patches, middle: np.ndarray, sides_mm: np.ndarray) -> Window:
        """The window around a row and a column with at least these sides; if larger than the first, it has coarser pixels."""
        pixel_mm = self.bundle.pixel_mm
        if sides_mm.max() > PATCH * pixel_mm:
            pixel_mm *= COARSE
        return patches.window(middle, np.maximum(sides_mm, PATCH * pixel_mm), pixel_mm)

    def _look_round_point(
        self, patches: Patches, index: np.ndarray, threshold: float, progress: Progress
    ) -> tuple[Target, ...]:
        """The same for a point of the user, who may mean a mass: its slice is also predicted in larger pixels.

        The network finds only fragments of a mass whose edges lie outside the window, and nothing of one that ends at the chest wall or
        the diaphragm, where it looks like them. A point in dense tissue at which nothing is found may thus lie in the end of a mass
        that is visible on the slices above or below.

        Returns:
            Candidates for the object at the point; at any threshold, the first that exists is used.
        """
        target = self._look_round(patches, index, NEAR_MM, LEAST_POINTED_MM, threshold)
        near_mm = section_mm(target, patches, target.window.planes.get, threshold)
        far = Patches(self, patches.volume, patches.level, progress)
        far.slices = far.expected = patches.slices
        own = round(float(index[0]))
        slices = [own]
        dense = patches.volume.array[tuple(np.rint(index).astype(int))] >= SOLID_HU
        if near_mm == 0 and dense and not self._is_near(target, patches, threshold):
            gap = max(1, int(SEARCH_STEP_MM / patches.spacing_mm[0] + 0.01))
            slices += [
                own + way * k for k in range(gap, int(NEAR_MM / patches.spacing_mm[0]) + 1, gap) for way in (1, -1)
            ]
        least_mm = max(LEAST_MASS_MM, LARGER * near_mm)
        masses = (
            self._mass_at(far, np.array([k, *index[1:]]), least_mm, threshold)
            for k in slices
            if 0 <= k < len(patches.volume.array)
        )
        mass = next(filter(None, masses), None)
        patches.slices = patches.expected = far.slices
        if mass:
            patches.take(far, mass.window)
            return mass, target
        return (target,)

    def _is_near(self, target: Target, patches: Patches, threshold: float) -> bool:
        """True if a target's nodule lies within 3 mm of its place."""
        near = replace(target, within_mm=PEAK_MM)
        return nodule_of(near, patches, target.window.planes.get, threshold) is not None

    def _mass_at(self, far: Patches, index: np.ndarray, least_mm: float, threshold: float) -> Target | None:
        """Follow the mass at a place, in a window that grows until it fits; None if its section there is smaller than `least_mm`."""
        pixel_mm = FAR * self.bundle.pixel_mm
        middle, sides_mm = index[1:], np.full(2, PATCH * pixel_mm)
        for count in range(1, MOST_WINDOWS + 1):
            window = far.window(middle, sides_mm, pixel_mm)
            mass = Target(index, window, PEAK_MM, LEAST_MASS_MM)
            far.look(window, [round(float(index[0]))])
            if section_mm(mass, far, window.planes.get, threshold) < least_mm:
                return None
            found = nodule_of(mass, far, far.looking(window), threshold)
            if found is None:
                return None
            if has_room(found, window, far) or sides_mm.max() >= 2 * MOST_MM or count == MOST_WINDOWS:
                _look_beyond(far, window, found)
                return mass
            middle, sides_mm = _middle(found.box[1:]), np.maximum(_with_room(found, far), sides_mm)
        return None

    def _search(
        self,
        patches: Patches,
        lungs: np.ndarray,
        vessels: Vessels,
        threshold: float,
        find_first: bool,
        progress: Progress,
    ) -> list[Target]:
        """Search the lungs on every slice; with `find_first`, on some slices in larger pixels with a pruned network, then around
        each candidate.
        """
        searched = Patches(self, patches.volume, SEARCH_LEVEL, progress) if find_first else patches
        pixel_mm = self.bundle.pixel_mm * (COARSE if find_first else 1)
        gap = max(1, int(SEARCH_STEP_MM / patches.spacing_mm[0] + 0.01)) if find_first else 1
        in_lungs = np.flatnonzero(lungs.any(axis=(1, 2)))
        if not len(in_lungs):
            return []
        looked = in_lungs[min(gap, len(in_lungs)) // 2 :: gap]
        nearest = looked[np.abs(in_lungs[:, None] - looked).argmin(axis=1)]
        windows = [
            (k, self._window_round(searched, box, SEARCH_ROOM_MM, pixel_mm))
            for k in looked.tolist()
            for box in _boxes_apart(lungs[in_lungs[nearest == k]].any(axis=0))
        ]
        searched.expected = len(windows)
        for k, window in windows:
            searched.look(window, [k])
        for k, other in zip(in_lungs, nearest, strict=True):
            searched.probability[k] = searched.probability[other]
        targets = []
        for index, least in peaks(searched.probability, lungs, patches.volume.voxel_volume_ml * 1000):
            window = patches.window(index[1:], (MOST_MM, MOST_MM), self.bundle.pixel_mm)
            # Only the part in the lungs: nothing else was searched.
            window.planes.update(enumerate(searched.probability[:, window.rows, window.columns]))
            target = Target(np.array(index, float), window, PEAK_MM, LEAST_DIAMETER_MM)
            found = nodule_of(target, searched, window.planes.get, least)
            if found and not vessels.hold(found):
                targets.append(target)
        if find_first:
            patches.slices = searched.slices
            targets = [self._look_round(patches, t.index, t.within_mm, t.least_mm, threshold) for t in targets]
        return targets

    def _window_round(self, patches: Patches, box: Sequence[slice], room_mm: float, pixel_mm: float) -> Window:
        """The window that contains some rows and columns with a margin."""
        sides_mm = [(b.stop - b.start) * mm + 2 * room_mm for b, mm in zip(box, patches.spacing_mm[1:], strict=True)]
        return patches.window(_middle(box), sides_mm, pixel_mm)


def _look_beyond(patches: Patches, window: Window, nodule: Nodule) -> None:
    """Predict a few slices beyond the ends of a nodule, in case the threshold is lowered."""
    beyond = int(BEYOND_MM / patches.spacing_mm[0])
    patches.look(window, range(nodule.box[0].start - beyond, nodule.box[0].stop + beyond))


def _cut_points(patches: Patches, points: Sequence[Point], meant: Sequence[Sequence[Target]], threshold: float) -> Cut:
    """The nodules at the points; one that two points mark is returned once."""
    found, notes = [], []
    for point, targets in zip(points, meant, strict=True):
        for target in targets:
            nodule = nodule_of(target, patches, target.window.planes.get, threshold)
            if nodule:
                found.append(nodule)
                notes += _doubts(nodule, target.window, patches, in_words(point))
                break
        else:
            notes.append(
                f"No nodule was found at {in_words(point)} or within {NEAR_MM:g} mm of it. Place the point in the middle of the"
                " nodule, or lower the threshold."
            )
    labelmap, segments, more = _label(patches, found)
    return labelmap, segments, [*notes, *more]


def _doubts(nodule: Nodule, window: Window, patches: Patches, place: str) -> list[str]:
    """Notes on a nodule that may extend beyond the analysed region."""
    notes = [] if has_room(nodule, window, patches) else [_NO_ROOM.format(place=place)]
    return notes if is_seen_whole(nodule, window, patches) else [*notes, _NOT_SEEN.format(place=place)]


def _cut_box(patches: Patches, ranges: Ranges, threshold: float) -> Cut:
    """The nodules in a box."""
    labelmap = np.zeros(patches.volume.array.shape, np.uint8)
    labelmap[ranges], segments, notes = find_nodules(
        patches.probability[ranges], crop(patches.volume, ranges), None, threshold
    )
    return labelmap, segments, notes if segments else [*notes, "No nodules were found in the box."]


def _cut_chest(
    patches: Patches, lungs: np.ndarray, vessels: Vessels, targets: Sequence[Target], threshold: float
) -> Cut:
    """The nodules in the lungs, without candidates that continue like a vessel."""
    found, notes = [], []
    for target in targets:
        nodule = nodule_of(target, patches, target.window.planes.get, threshold)
        if nodule is None or lungs[nodule.box][nodule.mask].mean() < LEAST_INSIDE:
            continue
        if vessels.hold(nodule) or goes_on(nodule, patches.volume, lungs):
            continue
        found.append(nodule)
        middle = patches.volume.ijk_to_ras @ [*_middle(nodule.box)[::-1], 1]
        notes += _doubts(nodule, target.window, patches, in_words(middle[:3]))
    labelmap, segments, more = _label(patches, found, lungs)
    notes = [*dict.fromkeys(notes), *more]  # two targets may mean one nodule
    if not lungs.any():
        notes.append("No lungs were found, so the search was skipped. Mark the nodule with a point instead.")
    elif not segments:
        notes.append("No nodules were found.")
    return labelmap, segments, notes


def _label(patches: Patches, nodules: Sequence[Nodule], lungs: np.ndarray | None = None) -> Cut:
    """Number nodules on the voxels of the volume."""
    labelmap = np.zeros(patches.volume.array.shape, np.uint8)
    if not nodules:
        return labelmap, (), []
    box, labels = label_apart(nodules)
    if lungs is None:
        labelmap[box], segments, notes = number_nodules(labels, crop(patches.volume, box))
        return labelmap, segments, notes
    whole = np.zeros(labelmap.shape, labels.dtype)
    whole[box] = labels
    return number_nodules(whole, patches.volume, lungs)


def _undo(order: AxialOrder, cut: Callable[[float], Cut], notes: Sequence[str], threshold: float) -> Cut:
    """Bring the result from axial order to the volume's own voxels, and add the notes of the run."""
    labelmap, segments, more = cut(threshold)
    return np.ascontiguousarray(order.undo(labelmap)), segments, [*notes, *more]


def _boxes_apart(mask: np.ndarray) -> list[Ranges]:
    """Rows and columns of each component of a slice; overlapping boxes are merged."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.view(np.uint8))))
    boxes: list[Ranges] = []
    for column, row, width, height in map(shapes.GetBoundingBox, shapes.GetLabels()):
        new: Ranges = (slice(row, row + height), slice(column, column + width))
        for old in [
            b for b in boxes if all(o.start < n.stop and n.start < o.stop for o, n in zip(b, new, strict=True))
        ]:
            boxes.remove(old)
            new = tuple(slice(min(o.start, n.start), max(o.stop, n.stop)) for o, n in zip(old, new, strict=True))
        boxes.append(new)
    return boxes


def _middle(box: Sequence[slice]) -> np.ndarray:
    return np.array([(along.start + along.stop - 1) / 2 for along in box])


def _with_room(nodule: Nodule, patches: Patches) -> np.ndarray:
    """Sides of a window that a nodule fits, with a margin."""
    lengths = np.array([along.stop - along.start for along in nodule.box[1:]])
    return lengths * patches.spacing_mm[1:] + 2 * ROOM_MM


def _in_axial_order(box: Sequence[slice], order: AxialOrder, shape: tuple[int, ...]) -> Ranges:
    """Slices, rows and columns of a box along K, J and I."""
    pairs = zip(order.axes, order.flips, strict=True)
    return tuple(
        slice(shape[axis] - box[axis].stop, shape[axis] - box[axis].start) if flip else box[axis]
        for axis, flip in pairs
    )
