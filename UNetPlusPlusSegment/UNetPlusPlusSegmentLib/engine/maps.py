"""Maps: the answers of the network for a volume, kept after a run for other thresholds. torch and NumPy."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..core.note import Note
from ..core.request import check_show_from, check_threshold
from ..core.result import Result
from ..core.segment import Segment
from ..core.volume import AxialOrder, Volume
from ..network.bundle import Bundle
from ..network.card import Label
from .pixel_box import Box
from .slice_pool import threads_of_torch

Found = tuple[np.ndarray, tuple[Segment, ...], list[Note]]  # label map, its segments, notes about them


@dataclass(frozen=True, eq=False)
class Around:
    """The answers of the network for a label in some part of a volume.

    Attributes:
        rows, columns: Indices of the voxels, in axial order, in which the middles of the pixels lie.
        probability, uncertainty: float32 (slices, rows, columns).
    """

    rows: np.ndarray
    columns: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray


@dataclass(frozen=True, eq=False)
class PixelMaps:
    """The answers of the network, in axial order at its own pixel size.

    Attributes:
        probability: float16 (slices, rows, columns), mean over the heads that the model averages; every slice, and of it
            what lies in `box`; outside it is 0. Of several labels (slices, labels, rows, columns).
        uncertainty: The same for the standard deviation of all heads.
        order: From the array of the volume to axial order.
        box: Part of the slices, in the network's pixels.
    """

    probability: np.ndarray
    uncertainty: np.ndarray
    order: AxialOrder
    box: Box

    @classmethod
    def empty(cls, slices: int, order: AxialOrder, box: Box, labels: int = 1) -> PixelMaps:
        """Nothing known yet; memory is taken as slices are filled in."""
        shape = (slices, labels, *box.size) if labels > 1 else (slices, *box.size)
        probability, uncertainty = (np.zeros(shape, np.float16) for _ in range(2))
        return cls(probability, uncertainty, order, box)

    def of_label(self, number: int) -> np.ndarray:
        """Probability of the label at a place in the card, (slices, rows, columns); a view."""
        return self.probability[:, number] if self.probability.ndim == 4 else self.probability

    def around(self, number: int, ranges: Sequence[slice], size: tuple[int, int]) -> Around:
        """The pixels whose middle lies in ranges of voxels.

        Args:
            number: The place of a label in the card.
            ranges: Slices, rows and columns of voxels in axial order.
            size: Rows and columns of voxels of a whole slice.
        """
        at = []
        for inside, voxels, grid, along in zip(
            (self.box.rows, self.box.columns), size, self.box.grid, ranges[1:], strict=True
        ):
            nearest = ((np.arange(*inside) + 0.5) * voxels / grid).astype(int)
            at.append((nearest, slice(*np.searchsorted(nearest, [along.start, along.stop]))))
        (rows, high), (columns, wide) = at
        maps = (planes[:, number] if planes.ndim == 4 else planes for planes in (self.probability, self.uncertainty))
        probability, uncertainty = (torch.from_numpy(planes[ranges[0], high, wide]).float().numpy() for planes in maps)
        return Around(rows[high], columns[wide], probability, uncertainty)

    def on_voxels(self, plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """One slice of a map, float32 (rows, columns) at the volume's own pixels."""
        whole = np.zeros(self.box.grid, np.float32)
        whole[self.box.inside] = plane
        if self.box.grid == size:
            return whole
        image = torch.from_numpy(whole)[None, None]
        return F.interpolate(image, size, mode="bilinear", antialias=False)[0, 0].numpy()  # both cover the same field


@dataclass(frozen=True, eq=False, kw_only=True)
class Maps(ABC):
    """All that a run leaves behind: another threshold, and the maps, need no second run.

    Attributes:
        bundle: The model.
        labels: Those of its labels that were asked for.
        volume: The part of the volume in `box`: HU, without padding.
        box: Where in the whole volume it lies: voxels along K, J and I.
        shape: Of the whole volume (K, J, I).
        pixels: The answers of the network for `volume`.
        threshold: The one that the run was made with.
        notes: Those about the run, whatever the threshold.
        device, slices, seconds: As in `Result`; the seconds are those of the network.
        threads: As in the request.
        show_from: As in `Result`, of the run.
    """

    bundle: Bundle
    labels: tuple[Label, ...]
    volume: Volume
    box: tuple[slice, ...]
    shape: tuple[int, ...]
    pixels: PixelMaps
    threshold: float
    notes: tuple[Note, ...]
    device: str
    slices: int
    seconds: float
    threads: int | None
    show_from: float | None = None

    def at(self, threshold: float | None = None, show_from: float | None = None) -> Result:
        """The segmentation at a threshold, with the findings from a probability on; those of the run if None.

        Raises:
            RequestError: One of them is no probability.
        """
        started = time.perf_counter()
        if threshold is None:
            threshold = self.threshold
        check_threshold(threshold)
        if show_from is None or self.show_from is None:
            show_from = self.show_from
        else:
            check_show_from(show_from)
        with threads_of_torch(self.threads):
            labelmap, segments, notes = self._find(threshold, show_from)
        if labelmap.shape != self.shape:
            whole = np.zeros(self.shape, labelmap.dtype)
            whole[self.box] = labelmap
            labelmap = whole
        return Result(
            labelmap, segments, (*self.notes, *notes), threshold, self.bundle.name, self.device,
            self.shape[self.pixels.order.axes[0]], self.slices,
            seconds=self.seconds + time.perf_counter() - started, show_from=show_from,
        )  # fmt: skip

    def probability(self) -> np.ndarray:
        """float32 (K, J, I) on the whole volume, 0…1: the heads' mean, of several labels asked for the largest. Where
        nothing was predicted it is 0."""
        return self._on_voxels(self.pixels.probability)

    def uncertainty(self) -> np.ndarray:
        """float32 (K, J, I) on the whole volume, 0…0.5: the standard deviation of the deep-supervision heads, as above."""
        return self._on_voxels(self.pixels.uncertainty)

    @abstractmethod
    def _find(self, threshold: float, show_from: float | None) -> Found:
        """The segments at a threshold, and from a probability on if it is not None, on the voxels of `volume`, (K, J, I)."""

    def _on_voxels(self, planes: np.ndarray) -> np.ndarray:
        whole = np.zeros(self.shape, np.float32)
        axial = self.pixels.order.apply(whole[self.box])
        asked = [self.bundle.labels.index(label) for label in self.labels]
        for k, of_labels in enumerate(planes):
            plane = of_labels[asked].max(axis=0) if of_labels.ndim == 3 else of_labels
            if plane.any():
                axial[k] = self.pixels.on_voxels(plane, axial.shape[1:])
        return whole
