"""The nodule engine: nodules at points, in a box, or in a whole chest. torch and NumPy; knows no Slicer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..core.masks import boxes, components
from ..core.request import Request
from ..core.volume import AxialOrder, Volume, axial_order, axial_volume, clean_hu, index_of
from ..engine.maps import PixelMaps
from ..engine.pixel_box import Box
from ..engine.predictor import Predictor, ProgressCallback, ignore_progress
from ..engine.slice_pool import threads_of_torch
from .candidates import Candidate, Nodule, Peak, Ranges, has_room, nodule_of, peaks, section_mm, section_of
from .lungs import find_lungs
from .maps import NEAR_MM, AtPoints, InBox, InChest, NoduleMaps, Places, middle_of
from .measurements import SOLID_HU
from .segments import LEAST_DIAMETER_MM
from .vessel_rejection import Vessels
from .windows import Patches, Window

BEYOND_MM = 2.0  # predicted beyond the ends of a nodule, in case the threshold is lowered
PATCH = 64  # side of the first window around a point, in the network's pixels
COARSE = 1.4  # pixels are this many times larger for an object that does not fit it, and to search the lungs first
ROOM_MM = 8.0  # margin around such an object in a window of its own, and around a box
MOST_MM, MOST_WINDOWS = 80.0, 4  # side of the largest window; number of windows tried
FAR = 2.8  # for a mass, pixels are this many times larger, in windows up to twice as large
LEAST_MASS_MM, LARGER = 20.0, 1.5  # least diameter of a mass, and as a multiple of the object in fine pixels
LEAST_POINTED_MM = 2.0  # least diameter at a point: the user has seen the nodule, so it may be small
SEARCH_LEVEL = 2  # depth of the network that searches the lungs, at speeds that search first
SEARCH_ROOM_MM = 4.0  # margin around the lungs in that search
SEARCH_STEP_MM = 2.5  # between slices of that search: readers find nodules of 4 mm at this distance
PEAK_MM = 3.0  # largest distance of a nodule from its peak in that search


class NoduleEngine(Predictor):
    """A nodule bundle on a device, ready for many volumes."""

    def predict(self, volume: Volume, request: Request, progress: ProgressCallback = ignore_progress) -> NoduleMaps:
        """Find lung nodules: those at the points, those in the box, or all in the chest.

        Args:
            volume: HU; any orientation.
            request: The network sees only the surroundings of its points.
            progress: Called after each batch; an exception raised in it stops the run and passes through. From a point, the
                total is known only as far as the nodule has been followed.

        Returns:
            The answers of the network; `at()` makes of them one segment for each nodule, largest first; without nodules, no
            segment and a note.

        Raises:
            VolumeError: The volume is not CT, or a point or the box lies outside it.
            RequestError: The request is for another target.
            BundleError: The model has no such speed.
        """
        started = time.perf_counter()
        notes = self.check(volume, request)
        speed = self.bundle.speed(request.speed)
        threshold = self.threshold_of(request)
        order, axial = axial_order(volume), axial_volume(volume)
        indices = [index_of(axial, point) for point in request.points]
        hu, more = clean_hu(volume.array)
        axial = Volume(order.apply(hu), axial.ijk_to_ras)
        patches = Patches(self, axial, speed.level, progress)
        with threads_of_torch(request.threads):
            if request.points:
                meant = patches.in_threads(lambda own, index: self._at_point(own, index, threshold), indices)
                places: Places = AtPoints(request.points, meant)
            elif request.box is not None:
                ranges = _in_axial_order(request.box, order, hu.shape)
                window = self._window_around(patches, ranges[1:], ROOM_MM, self.bundle.pixel_mm)
                patches.predict(window, range(ranges[0].start, ranges[0].stop))
                places = InBox(ranges)
            else:
                lungs = find_lungs(axial)
                vessels = Vessels(axial.array, lungs)
                candidates = self._search(patches, lungs, vessels, threshold, speed.find_first, progress)
                places = InChest(lungs, vessels, candidates)
        whole = Box.whole(len(axial.array), axial.array.shape[1:])
        pixels = PixelMaps(patches.probability, patches.uncertainty, order, whole)
        return NoduleMaps(
            bundle=self.bundle, labels=self.bundle.labels, volume=Volume(hu, volume.ijk_to_ras),
            box=tuple(slice(0, size) for size in hu.shape),
            shape=hu.shape, pixels=pixels, threshold=threshold, notes=(*notes, *more, *self.notes),
            device=self.device.label, slices=patches.slices, seconds=time.perf_counter() - started,
            threads=request.threads, patches=patches, places=places,
        )  # fmt: skip

    def _follow(
        self, patches: Patches, index: np.ndarray, within_mm: float, least_mm: float, threshold: float
    ) -> Candidate:
        """Follow the object at or near a place; if it does not fit the window, it gets one of its own.

        The slice of the place comes first, alone: it usually shows where the window has to be.
        """
        sides_mm = np.zeros(2)
        candidate = Candidate(index, self._window(patches, index[1:], sides_mm), within_mm, least_mm)
        patches.predict(candidate.window, [round(float(index[0]))])
        found = section_of(candidate, patches, candidate.window.planes.get, threshold)
        for _ in range(MOST_WINDOWS):
            if found and not has_room(found, candidate.window, patches):
                sides_mm = np.maximum(_with_room(found, patches), sides_mm)
                candidate = replace(candidate, window=self._window(patches, middle_of(found.box[1:]), sides_mm))
            found = nodule_of(candidate, patches, patches.plane_of(candidate.window), threshold)
            if found is None or has_room(found, candidate.window, patches) or sides_mm.max() >= MOST_MM:
                break
        if found and sides_mm.max() > PATCH * self.bundle.pixel_mm >= _with_room(found, patches).max():
            # It was something beside it that did not fit.
            near = replace(candidate, window=self._window(patches, middle_of(found.box[1:]), np.zeros(2)))
            again = nodule_of(near, patches, patches.plane_of(near.window), threshold)
            if again and has_room(again, near.window, patches):
                candidate, found = near, again
        if found:
            _predict_beyond(patches, candidate.window, found)
        return candidate

    def _window(self, patches: Patches, middle: np.ndarray, sides_mm: np.ndarray) -> Window:
        """The window around a row and a column with at least these sides; if larger than the first, it has coarser pixels."""
        pixel_mm = self.bundle.pixel_mm
        if sides_mm.max() > PATCH * pixel_mm:
            pixel_mm *= COARSE
        return patches.window(middle, np.maximum(sides_mm, PATCH * pixel_mm), pixel_mm)

    def _at_point(self, patches: Patches, index: np.ndarray, threshold: float) -> tuple[Candidate, ...]:
        """Follow the object at a point of the user, who may mean a mass: its slice is also predicted in larger pixels.

        The network finds only fragments of a mass whose edges lie outside the window, and nothing of one that ends at the chest wall or
        the diaphragm, where it looks like them. A point in dense tissue at which nothing is found may thus lie in the end of a mass
        that is visible on the slices above or below.

        Returns:
            Candidates for the object at the point; at any threshold, the first that exists is used.
        """
        candidate = self._follow(patches, index, NEAR_MM, LEAST_POINTED_MM, threshold)
        near_mm = section_mm(candidate, patches, candidate.window.planes.get, threshold)
        far = Patches(self, patches.volume, patches.level, patches.progress)
        far.slices = far.expected = patches.slices
        own = round(float(index[0]))
        slices = [own]
        dense = patches.volume.array[tuple(np.rint(index).astype(int))] >= SOLID_HU
        if near_mm == 0 and dense and not self._is_near(candidate, patches, threshold):
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
            return mass, candidate
        return (candidate,)

    def _is_near(self, candidate: Candidate, patches: Patches, threshold: float) -> bool:
        """True if a candidate's nodule lies within 3 mm of its place."""
        near = replace(candidate, within_mm=PEAK_MM)
        return nodule_of(near, patches, candidate.window.planes.get, threshold) is not None

    def _mass_at(self, far: Patches, index: np.ndarray, least_mm: float, threshold: float) -> Candidate | None:
        """Follow the mass at a place, in a window that grows until it fits; None if its section there is smaller than `least_mm`."""
        pixel_mm = FAR * self.bundle.pixel_mm
        middle, sides_mm = index[1:], np.full(2, PATCH * pixel_mm)
        for count in range(1, MOST_WINDOWS + 1):
            window = far.window(middle, sides_mm, pixel_mm)
            mass = Candidate(index, window, PEAK_MM, LEAST_MASS_MM)
            far.predict(window, [round(float(index[0]))])
            if section_mm(mass, far, window.planes.get, threshold) < least_mm:
                return None
            found = nodule_of(mass, far, far.plane_of(window), threshold)
            if found is None:
                return None
            if has_room(found, window, far) or sides_mm.max() >= 2 * MOST_MM or count == MOST_WINDOWS:
                _predict_beyond(far, window, found)
                return mass
            middle, sides_mm = middle_of(found.box[1:]), np.maximum(_with_room(found, far), sides_mm)
        return None

    def _search(
        self,
        patches: Patches,
        lungs: np.ndarray,
        vessels: Vessels,
        threshold: float,
        find_first: bool,
        progress: ProgressCallback,
    ) -> list[Candidate]:
        """Search the lungs on every slice; with `find_first`, on some with a pruned network, then around each candidate."""
        searched = Patches(self, patches.volume, SEARCH_LEVEL, progress) if find_first else patches
        self._predict_lungs(searched, lungs, find_first)

        def at_peak(_: Patches, peak: Peak) -> Candidate | None:
            index, least = peak
            window = patches.window(index[1:], (MOST_MM, MOST_MM), self.bundle.pixel_mm)
            # Only the part in the lungs: nothing else was searched.
            window.planes.update(enumerate(searched.probability[:, window.rows, window.columns]))
            candidate = Candidate(np.array(index, float), window, PEAK_MM, LEAST_DIAMETER_MM)
            found = nodule_of(candidate, searched, window.planes.get, least)
            return candidate if found and not vessels.contain(found) else None

        found = peaks(searched.probability, lungs, patches.volume.voxel_volume_ml * 1000)
        candidates = [*filter(None, searched.in_threads(at_peak, found))]
        if find_first:
            patches.slices = searched.slices
            candidates = patches.in_threads(
                lambda own, c: self._follow(own, c.index, c.within_mm, c.least_mm, threshold), candidates
            )
        return candidates

    def _predict_lungs(self, patches: Patches, lungs: np.ndarray, coarsely: bool) -> None:
        """Predict every slice of the lungs; or some, at larger pixels, of which the slices between them take the nearest."""
        pixel_mm = self.bundle.pixel_mm * (COARSE if coarsely else 1)
        gap = max(1, int(SEARCH_STEP_MM / patches.spacing_mm[0] + 0.01)) if coarsely else 1
        in_lungs = np.flatnonzero(lungs.any(axis=(1, 2)))
        if not len(in_lungs):
            return
        chosen = in_lungs[min(gap, len(in_lungs)) // 2 :: gap]
        nearest = chosen[np.abs(in_lungs[:, None] - chosen).argmin(axis=1)]
        windows = [
            (self._window_around(patches, box, SEARCH_ROOM_MM, pixel_mm), k)
            for k in chosen.tolist()
            for box in _boxes_apart(lungs[in_lungs[nearest == k]].any(axis=0))
        ]
        patches.predict_all(windows)
        for k, other in zip(in_lungs, nearest, strict=True):
            patches.probability[k] = patches.probability[other]

    def _window_around(self, patches: Patches, box: Sequence[slice], room_mm: float, pixel_mm: float) -> Window:
        """The window that contains some rows and columns with a margin."""
        sides_mm = [(b.stop - b.start) * mm + 2 * room_mm for b, mm in zip(box, patches.spacing_mm[1:], strict=True)]
        return patches.window(middle_of(box), sides_mm, pixel_mm)


def _predict_beyond(patches: Patches, window: Window, nodule: Nodule) -> None:
    """Predict a few slices beyond the ends of a nodule, in case the threshold is lowered."""
    beyond = int(BEYOND_MM / patches.spacing_mm[0])
    patches.predict(window, range(nodule.box[0].start - beyond, nodule.box[0].stop + beyond))


def _boxes_apart(mask: np.ndarray) -> list[Ranges]:
    """Rows and columns of each component of a slice; overlapping boxes are merged."""
    apart: list[Ranges] = []
    for new in boxes(components(mask)).values():
        for old in [
            b for b in apart if all(o.start < n.stop and n.start < o.stop for o, n in zip(b, new, strict=True))
        ]:
            apart.remove(old)
            new = tuple(slice(min(o.start, n.start), max(o.stop, n.stop)) for o, n in zip(old, new, strict=True))
        apart.append(new)
    return apart


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
