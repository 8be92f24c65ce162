"""The nodules' way through the engine: from points, in a box, or of a whole chest. torch and NumPy; knows no Slicer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import SimpleITK as sitk

from .following import Plane, Sections, follow, near, without_tails
from .grids import Box
from .inference import Cut, Maps, Progress, Result, SliceEngine
from .lungs import find_lungs
from .nodules import can_be_nodule, find_nodules, number_nodules
from .patches import Patches, Window
from .regions import bounding_box
from .volumes import AxialOrder, Volume, VolumeError, axial_order, axial_volume, check_ct, clean_hu, crop, index_of

PATCH_MM = 56.0  # side of the first window round a point: 80 pixels of 0.7 mm
MARGIN_MM, ROOM_MM = 5.0, 12.0  # what a nodule has round it at least; what it gets in a window of its own
MOST_MM, MOST_WINDOWS = 120.0, 4  # side of the largest window; how many are tried
NEAR_MM = 10.0  # a nodule so near to a point is meant by it
LEAST_POINTED_MM = 2.0  # diameter of a sphere of the same volume; the user has seen it, so it may be small
SAME = 0.5  # share of a nodule's voxels that another one has: they are one

Point = Sequence[float]
Ranges = tuple[slice, ...]
_Found = tuple[
    Ranges, np.ndarray
]  # the slices, rows and columns that hold a nodule, and which of these voxels are in it


@dataclass(frozen=True, eq=False)
class _Target:
    """A place where a nodule is looked for: as the user gave it, its index (slice, row, column), the window round it."""

    point: Point
    index: np.ndarray
    window: Window


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
        """Segment lung nodules: those at the points, those in the box, or all of the chest.

        Args:
            volume, speed, threshold, force: As in `SliceEngine.segment`.
            progress: The same; from a point, the slices in all are known only as far as the nodule has been followed.
            points: (R, A, S) in mm, each in a nodule or within 10 mm of one; the network sees only what is round them.
            box: Voxels along K, J and I; what lies outside stays outside.

        Returns:
            One segment for each nodule, the largest first; none, and a note, where there is none.

        Raises:
            VolumeError: The volume is no CT or cannot be one; a point outside it; points and a box.
        """
        started = time.perf_counter()
        if points and box is not None:
            raise VolumeError("Nodules are looked for at points or in a box: give one of them, not both.")
        notes = check_ct(volume, force)
        order, axial = axial_order(volume), axial_volume(volume)
        indices = [index_of(axial, point) for point in points]
        hu, more = clean_hu(volume.array)
        volume, axial = Volume(hu, volume.ijk_to_ras), Volume(order.apply(hu), axial.ijk_to_ras)
        threshold = self.bundle.threshold if threshold is None else threshold
        patches = Patches(self, axial, self.bundle.speed(speed).level, progress)
        if points:
            targets = [self._look_round(patches, *each, threshold) for each in zip(points, indices, strict=True)]
            cut = partial(_cut_targets, patches, targets)
        elif box is not None:
            ranges = _in_axial_order(box, order, volume.array.shape)
            self._look_in_box(patches, ranges)
            cut = partial(_cut_box, patches, ranges)
        else:
            lungs = find_lungs(axial)
            self._look_in_lungs(patches, lungs)
            cut = partial(_cut_chest, patches, lungs)
        cut = partial(_undo, order, cut, [*notes, *more, *self.notes])
        maps = Maps(patches.probability, patches.spread, order, Box.whole(len(axial.array), axial.array.shape[1:]))
        return self._result(volume, maps, cut, threshold, patches.slices, started)

    def _look_round(self, patches: Patches, point: Point, index: np.ndarray, threshold: float) -> _Target:
        """Follow what lies at a place or near it; a window in which it has no room gives way to one of its own."""
        middle, sides_mm = index[1:], np.full(2, PATCH_MM)
        for _ in range(MOST_WINDOWS):
            window = patches.window(middle, sides_mm, self.bundle.pixel_mm)
            target = _Target(point, index, window)
            found = _nodule_of(target, patches, patches.looking(window), threshold)
            if found is None or _has_room(found[0], window, patches):
                break
            rows_columns = found[0][1:]
            lengths = np.array([along.stop - along.start for along in rows_columns])
            middle = _middle(rows_columns)
            sides_mm = np.clip(lengths * patches.spacing_mm[1:] + 2 * ROOM_MM, sides_mm, MOST_MM)
        return target

    def _look_in_box(self, patches: Patches, ranges: Sequence[slice]) -> None:
        patches.look(self._window_round(patches, ranges[1:]), range(ranges[0].start, ranges[0].stop))

    def _look_in_lungs(self, patches: Patches, lungs: np.ndarray) -> None:
        """Look at each slice that shows lung, where it does."""
        windows = [
            (k, self._window_round(patches, box))
            for k in np.flatnonzero(lungs.any(axis=(1, 2))).tolist()
            for box in _boxes_apart(lungs[k])
        ]
        patches.expected = len(windows)
        for k, window in windows:
            patches.look(window, [k])

    def _window_round(self, patches: Patches, box: Sequence[slice]) -> Window:
        """The window on some rows and columns and what is round them."""
        sides_mm = [(b.stop - b.start) * mm + 2 * ROOM_MM for b, mm in zip(box, patches.spacing_mm[1:], strict=True)]
        return patches.window(_middle(box), sides_mm, self.bundle.pixel_mm)


def _nodule_of(target: _Target, patches: Patches, plane: Plane, threshold: float) -> _Found | None:
    """The nodule at the target, or else the nearest one."""
    rows, columns = target.window.rows, target.window.columns
    place = target.index - [0, rows.start, columns.start]
    tried: Sections = {}
    for seed in near(plane, place, NEAR_MM, patches.volume.ijk_to_ras[:3, 2::-1].T, threshold):
        if seed[0] in tried and tried[seed[0]][seed[1:]]:
            continue
        followed = follow(plane, seed, threshold, patches.spacing_mm)
        tried |= {k: section | tried.get(k, False) for k, section in followed.items()}
        sections = without_tails(followed)
        first, last = min(sections), max(sections)
        mask = np.stack([sections[k] for k in range(first, last + 1)])
        tight = bounding_box(mask)
        starts = first, rows.start, columns.start
        box = tuple(slice(along.start + s, along.stop + s) for along, s in zip(tight, starts, strict=True))
        if can_be_nodule(mask[tight], crop(patches.volume, box), LEAST_POINTED_MM):
            return box, mask[tight]
    return None


def _has_room(box: Ranges, window: Window, patches: Patches) -> bool:
    """Whether there is a margin between a nodule and the edges of its window that are not those of the slices."""
    sizes, spacing_mm = patches.volume.array.shape[1:], patches.spacing_mm[1:]
    for along, edge, size, mm in zip(box[1:], (window.rows, window.columns), sizes, spacing_mm, strict=True):
        if edge.start > 0 and (along.start - edge.start) * mm < MARGIN_MM:
            return False
        if edge.stop < size and (edge.stop - along.stop) * mm < MARGIN_MM:
            return False
    return True


def _cut_targets(patches: Patches, targets: Sequence[_Target], threshold: float) -> Cut:
    """The nodules of the points; one that two points mean is there once."""
    found, notes = [], []
    for target in targets:
        nodule = _nodule_of(target, patches, patches.known(target.window), threshold)
        if nodule is None:
            notes.append(
                f"No nodule was found at {_in_words(target.point)} or within {NEAR_MM:g} mm of it: point at its middle, or"
                " lower the threshold."
            )
            continue
        found.append(nodule)
        if not _has_room(nodule[0], target.window, patches):
            notes.append(
                f"What lies at {_in_words(target.point)} may go on beyond the part of the slices that was looked at: it is"
                " larger than a nodule, or not to be told from what it touches."
            )
    labelmap = np.zeros(patches.volume.array.shape, np.uint8)
    if not found:
        return labelmap, (), notes
    around = tuple(
        slice(min(box[axis].start for box, _ in found), max(box[axis].stop for box, _ in found)) for axis in range(3)
    )
    labels = np.zeros([along.stop - along.start for along in around], np.uint16)
    for number, (box, mask) in enumerate(found, start=1):
        here = labels[tuple(slice(b.start - a.start, b.stop - a.start) for b, a in zip(box, around, strict=True))]
        if np.count_nonzero(here[mask]) < SAME * np.count_nonzero(mask):
            here[mask & (here == 0)] = number
    labelmap[around], segments, more = number_nodules(labels, crop(patches.volume, around))
    return labelmap, segments, [*notes, *more]


def _cut_box(patches: Patches, ranges: Ranges, threshold: float) -> Cut:
    """The nodules in a box."""
    labelmap = np.zeros(patches.volume.array.shape, np.uint8)
    labelmap[ranges], segments, notes = find_nodules(
        patches.probability[ranges], crop(patches.volume, ranges), None, threshold
    )
    return labelmap, segments, notes if segments else [*notes, "No nodule was found in the box."]


def _cut_chest(patches: Patches, lungs: np.ndarray, threshold: float) -> Cut:
    """The nodules of the lungs."""
    labelmap, segments, notes = find_nodules(patches.probability, patches.volume, lungs, threshold)
    if not lungs.any():
        notes.append("No lung was found, so no nodule was looked for: point at it, if there is one.")
    elif not segments:
        notes.append("No nodule was found.")
    return labelmap, segments, notes


def _undo(order: AxialOrder, cut: Callable[[float], Cut], notes: Sequence[str], threshold: float) -> Cut:
    """What was cut in axial order, on the volume's own voxels, with the notes of the run."""
    labelmap, segments, more = cut(threshold)
    return np.ascontiguousarray(order.undo(labelmap)), segments, [*notes, *more]


def _boxes_apart(mask: np.ndarray) -> list[Ranges]:
    """The rows and columns that hold each piece of a slice; overlapping ones are made one."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.view(np.uint8))))
    boxes = []
    for column, row, width, height in map(shapes.GetBoundingBox, shapes.GetLabels()):
        new = slice(row, row + height), slice(column, column + width)
        for old in [
            b for b in boxes if all(o.start < n.stop and n.start < o.stop for o, n in zip(b, new, strict=True))
        ]:
            boxes.remove(old)
            new = tuple(slice(min(o.start, n.start), max(o.stop, n.stop)) for o, n in zip(old, new, strict=True))
        boxes.append(new)
    return boxes


def _middle(box: Ranges) -> np.ndarray:
    return np.array([(along.start + along.stop - 1) / 2 for along in box])


def _in_axial_order(box: Sequence[slice], order: AxialOrder, shape: tuple[int, ...]) -> Ranges:
    """Slices, rows and columns of voxels along K, J and I."""
    pairs = zip(order.axes, order.flips, strict=True)
    return tuple(
        slice(shape[axis] - box[axis].stop, shape[axis] - box[axis].start) if flip else box[axis]
        for axis, flip in pairs
    )


def _in_words(point: Point) -> str:
    return "(" + ", ".join(f"{x:.0f}" for x in point) + ")"
