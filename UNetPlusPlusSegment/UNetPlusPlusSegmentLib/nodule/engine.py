"""The nodule engine: nodules at points, in a box, or in a whole chest. It knows no Slicer.

The three differ in where the candidates come from, and in which of the findings are shown: all that are pointed at, else the likely ones.
"""

from __future__ import annotations

import time

import numpy as np

from ..core.note import Note
from ..core.progress import CANDIDATES, LUNGS, SEARCH
from ..core.request import Request
from ..core.volume import Volume, axial_order, axial_volume, clean_hu, index_of, inside_box
from ..engine.maps import PixelMaps
from ..engine.pixel_box import Box
from ..engine.predictor import Predictor, ProgressCallback, ignore_progress, refuse_unknown
from ..engine.slice_pool import threads_of_torch
from ..network.bundle import Bundle
from .candidates import Candidate, followed, nodule_at
from .decision import FEATURES
from .lungs import find_lungs
from .maps import NoduleMaps
from .search import search, searched_slices
from .windows import Window, Windows

# The slices of the chests that the search was measured on are 2.5 to 5 mm apart.
MOST_SLICE_MM = 5.0


class NoduleEngine(Predictor):
    """A nodule bundle on a device, ready for many volumes."""

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        """Load and check the weights.

        Raises:
            BundleError, DeviceError: The model or the device cannot be used.
        """
        refuse_unknown(bundle, bundle.decision.weights if bundle.decision else (), FEATURES)
        super().__init__(bundle, device)

    def predict(self, volume: Volume, request: Request, progress: ProgressCallback = ignore_progress) -> NoduleMaps:
        """Find lung nodules: those at the points, those in the box, or all in the chest.

        Args:
            volume: HU; any orientation.
            request: The network sees only the surroundings of its points.
            progress: Called with (done, total, phase): before the lungs are looked for, after each slice that was searched, and
                after each candidate. An exception raised in it stops the run and passes through.

        Returns:
            The answers of the network; `at()` makes of them one segment for each nodule, largest first; without nodules, no
            segment and a note.

        Raises:
            VolumeError: The volume is not CT, or a point or the box lies outside it.
            RequestError: The request is for another target.
            BundleError: The model has no such speed.
        """
        started, ends = time.perf_counter(), dict[str, float]()
        notes = self.check(volume, request)
        speed, threshold = self.bundle.speed(request.speed), self.threshold_of(request)
        show_from = None  # all
        if self.bundle.decision and not request.points:
            show_from = self.bundle.decision.least if request.show_from is None else request.show_from
        order, axial = axial_order(volume), axial_volume(volume)
        places = [Candidate(index_of(axial, point)) for point in request.points]
        cleaned, more = clean_hu(axial.array)
        axial, hu = Volume(cleaned, axial.ijk_to_ras), order.undo(cleaned)
        windows = Windows(self, axial, speed.level)
        slice_mm = round(order.spacing_mm[0], 1)
        if not request.points and slice_mm > MOST_SLICE_MM:
            text = (
                f"The slices are {slice_mm:g} mm apart, and a search is unreliable above {MOST_SLICE_MM:g} mm: mark nodules"
                " with points instead."
            )
            more.append(Note("coarse", text))
        lungs: np.ndarray | None = None
        inside: np.ndarray | None = None
        slices = range(0)
        if request.box:
            inside = np.zeros(hu.shape, bool)
            inside[request.box] = inside_box(request.box, request.turned)
        with threads_of_torch(request.threads):
            if not request.points:
                if inside is None:
                    progress(0, 0, LUNGS)
                    lungs = find_lungs(axial)
                    searched = lungs > 0
                else:
                    searched = order.apply(inside)
                ends[LUNGS] = time.perf_counter()
                slices = searched_slices(searched, windows.spacing_mm[0], every=not speed.find_first)
                mostly = lungs is not None
                places = search(
                    windows, searched, slices, threshold, mostly, lambda done: progress(done, len(slices), SEARCH)
                )
                ends[SEARCH] = time.perf_counter()

            def looked_at(place: Candidate) -> tuple[Candidate, Window]:
                candidate = followed(place, windows, threshold)
                nodule = nodule_at(candidate, windows, threshold)
                return candidate, nodule.window if nodule else candidate.windows[0]

            candidates: list[Candidate] = []
            pixels = PixelMaps.empty(len(axial.array), order, Box.whole(len(axial.array), axial.array.shape[1:]))
            for candidate, window in self.in_threads(looked_at, places):
                candidates.append(candidate)
                _lay(window, pixels)
                progress(len(candidates), len(places), CANDIDATES)
            ends[CANDIDATES] = time.perf_counter()
        phases = dict(zip(ends, np.diff([started, *ends.values()]).tolist(), strict=True))
        seen = {*slices, *(k for c in candidates for window in c.windows for k in window.probability)}
        return NoduleMaps(
            bundle=self.bundle, labels=self.bundle.labels, volume=Volume(hu, volume.ijk_to_ras),
            box=tuple(slice(0, size) for size in hu.shape),
            shape=hu.shape, pixels=pixels, threshold=threshold, notes=(*notes, *more, *self.notes),
            device=self.device.label, slices=len(seen), seconds=sum(phases.values()), threads=request.threads,
            windows=windows, candidates=candidates, points=request.points, inside=inside, lungs=lungs,
            show_from=show_from, phases=phases,
        )  # fmt: skip


def _lay(window: Window, maps: PixelMaps) -> None:
    """The answers of the network in a window on the voxels of the volume; of two windows, those of the later one stay."""
    for whole, known in ((maps.probability, window.probability), (maps.uncertainty, window.uncertainty)):
        for k, plane in known.items():
            whole[k, window.rows, window.columns] = plane
