"""The nodule engine: nodules at points, in a box, or in a whole chest. torch and NumPy; knows no Slicer.

The three differ in where the candidates come from, and in which of the findings are shown: all that are pointed at, else the likely ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from ..core.progress import CANDIDATES, LUNGS, SEARCH
from ..core.request import Request
from ..core.volume import AxialOrder, Volume, axial_order, axial_volume, clean_hu, index_of
from ..engine.maps import PixelMaps
from ..engine.pixel_box import Box
from ..engine.predictor import Predictor, ProgressCallback, ignore_progress
from ..engine.slice_pool import threads_of_torch
from ..network.bundle import Bundle, BundleError
from .candidates import Candidate, Ranges, followed, nodule_at
from .decision import FEATURES
from .lungs import find_lungs
from .maps import NEAR_MM, NoduleMaps
from .search import search, searched_slices
from .segments import LEAST_INSIDE
from .windows import Windows

LEAST_POINTED_MM = 2.0  # least diameter at a point: the user has seen the nodule, so it may be small


class NoduleEngine(Predictor):
    """A nodule bundle on a device, ready for many volumes."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        """Load and check the weights.

        Raises:
            BundleError, DeviceError: The model or the device cannot be used.
        """
        unknown = sorted({*(bundle.decision.weights if bundle.decision else ())} - {*FEATURES})
        if unknown:
            raise BundleError(
                f"The model {bundle.name} decides by {unknown[0]!r}, which this version does not know. Update the extension, or choose"
                " another model."
            )
        super().__init__(bundle, device)

    def predict(self, volume: Volume, request: Request, progress: ProgressCallback = ignore_progress) -> NoduleMaps:
        """Find lung nodules: those at the points, those in the box, or all in the chest.

        Args:
            volume: HU; any orientation.
            request: The network sees only the surroundings of its points.
            progress: Called when the lungs are looked for, after each slice searched and after each candidate, with the number done
                and in all, and the phase. An exception raised in it stops the run and passes through.

        Returns:
            The answers of the network; `at()` makes of them one segment for each nodule, largest first; without nodules, no
            segment and a note.

        Raises:
            VolumeError: The volume is not CT, or a point or the box lies outside it.
            RequestError: The request is for another target.
            BundleError: The model has no such speed.
        """
        clock = _Clock()
        notes = self.check(volume, request)
        speed, threshold = self.bundle.speed(request.speed), self.threshold_of(request)
        order, axial = axial_order(volume), axial_volume(volume)
        places = [Candidate(index_of(axial, point), NEAR_MM, LEAST_POINTED_MM) for point in request.points]
        hu, more = clean_hu(volume.array)
        axial = Volume(order.apply(hu), axial.ijk_to_ras)
        windows = Windows(self, axial, speed.level)
        box = request.box or tuple(slice(0, size) for size in hu.shape)
        region = _in_axial_order(box, order, hu.shape)
        lungs: np.ndarray | None = None
        slices: list[int] = []
        with threads_of_torch(request.threads):
            if not request.points:
                if not request.box:
                    progress(0, 0, LUNGS)
                    lungs = find_lungs(axial)
                inside = _filled(region, axial.array.shape) if lungs is None else lungs
                clock.ends("lungs")
                slices = searched_slices(inside, windows.spacing_mm[0], every=not speed.find_first)
                least_inside = 0.0 if lungs is None else LEAST_INSIDE
                places = search(
                    windows, inside, slices, threshold, least_inside, lambda done: progress(done, len(slices), SEARCH)
                )
                clock.ends("search")
            candidates: list[Candidate] = []
            for each in self.in_threads(lambda place: followed(place, windows, threshold), places):
                candidates.append(each)
                progress(len(candidates), len(places), CANDIDATES)
            clock.ends("candidates")
            pixels = _maps(candidates, windows, threshold, order)
        looked_at = {*slices, *(k for c in candidates for window in c.windows for k in window.probability)}
        return NoduleMaps(
            bundle=self.bundle, labels=self.bundle.labels, volume=Volume(hu, volume.ijk_to_ras),
            box=tuple(slice(0, size) for size in hu.shape),
            shape=hu.shape, pixels=pixels, threshold=threshold, notes=(*notes, *more, *self.notes),
            device=self.device.label, slices=len(looked_at), seconds=sum(clock.phases.values()), threads=request.threads,
            windows=windows, candidates=candidates, points=request.points, region=region, lungs=lungs,
            show_from=self._show_from(request), phases=clock.phases,
        )  # fmt: skip

    def _show_from(self, request: Request) -> float | None:
        """The least probability of a finding that is shown; None to show all."""
        if self.bundle.decision is None or request.points:
            return None
        return self.bundle.decision.least if request.show_from is None else request.show_from


class _Clock:
    """The seconds of each phase."""

    def __init__(self) -> None:
        self._last, self.phases = time.perf_counter(), dict[str, float]()

    def ends(self, phase: str) -> None:
        now = time.perf_counter()
        self.phases[phase], self._last = now - self._last, now


def _filled(region: Ranges, shape: tuple[int, ...]) -> np.ndarray:
    inside = np.zeros(shape, bool)
    inside[region] = True
    return inside


def _maps(candidates: Sequence[Candidate], windows: Windows, threshold: float, order: AxialOrder) -> PixelMaps:
    """The answers of the network on the voxels of the volume, where it has looked; of two windows, those of the later candidate."""
    shape = windows.volume.array.shape
    maps = PixelMaps.empty(shape[0], order, Box.whole(shape[0], shape[1:]))
    for candidate in candidates:
        nodule = nodule_at(candidate, windows, threshold)
        window = nodule.window if nodule else candidate.windows[0]
        for whole, known in ((maps.probability, window.probability), (maps.uncertainty, window.uncertainty)):
            for k, plane in known.items():
                whole[k, window.rows, window.columns] = plane
    return maps


def _in_axial_order(box: Sequence[slice], order: AxialOrder, shape: tuple[int, ...]) -> Ranges:
    """Slices, rows and columns of a box along K, J and I."""
    pairs = zip(order.axes, order.flips, strict=True)
    return tuple(
        slice(shape[axis] - box[axis].stop, shape[axis] - box[axis].start) if flip else box[axis]
        for axis, flip in pairs
    )
