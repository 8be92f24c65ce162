"""Maps: the output of the network for a volume, kept after a run so that it can be thresholded again. torch and NumPy."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
from ..network.resampling import onto_grid
from .pixel_box import Box
from .slice_pool import threads_of_torch

Found = tuple[np.ndarray, tuple[Segment, ...], list[Note]]  # label map, segments, notes about them


@dataclass(frozen=True, eq=False)
class LabelRegion:
    """The output of the network for one label in a part of a volume.

    Attributes:
        rows, columns: For each row and column of pixels, the index of the voxel, in axial order, that contains its centre.
        stored: Probability and uncertainty, float16 (slices, rows, columns).
    """

    rows: np.ndarray
    columns: np.ndarray
    stored: tuple[np.ndarray, np.ndarray]

    @cached_property
    def probability(self) -> np.ndarray:
        """float32 (slices, rows, columns)."""
        return torch.from_numpy(self.stored[0]).float().numpy()

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """The same for the standard deviation of all heads."""
        return torch.from_numpy(self.stored[1]).float().numpy()


@dataclass(frozen=True, eq=False)
class PixelMaps:
    """The output of the network, in axial order at its own pixel size.

    Attributes:
        probability: float16 (slices, rows, columns), or (slices, labels, rows, columns) for several labels: the mean of the
            heads that the model averages. It has every slice, but only the rows and columns in `box`; outside it is 0.
        uncertainty: The standard deviation of all heads, in the same shape.
        order: Turns the array of the volume to axial order.
        box: The part of the slices that the network saw, in its pixels.
    """

    probability: np.ndarray
    uncertainty: np.ndarray
    order: AxialOrder
    box: Box

    @classmethod
    def empty(cls, slices: int, order: AxialOrder, box: Box, labels: int = 1) -> PixelMaps:
        """Maps of zeros, for the network to fill in; memory is taken only as that happens."""
        shape = (slices, labels, *box.size) if labels > 1 else (slices, *box.size)
        probability, uncertainty = (np.zeros(shape, np.float16) for _ in range(2))
        return cls(probability, uncertainty, order, box)

    def of_label(self, number: int) -> np.ndarray:
        """Probability of the label with this number in the card, (slices, rows, columns); a view."""
        return self.probability[:, number] if self.probability.ndim == 4 else self.probability

    def region(self, number: int, ranges: Sequence[slice], size: tuple[int, int]) -> LabelRegion:
        """Cut out the pixels of a label whose centres lie in a range of voxels.

        Args:
            number: The number of the label in the card, from 0.
            ranges: Slices, rows and columns of voxels in axial order.
            size: Rows and columns of voxels in a whole slice.
        """
        at = []
        for inside, voxels, grid, along in zip(
            (self.box.rows, self.box.columns), size, self.box.grid, ranges[1:], strict=True
        ):
            nearest = ((np.arange(*inside) + 0.5) * voxels / grid).astype(int)
            at.append((nearest, slice(*np.searchsorted(nearest, [along.start, along.stop]))))
        (rows, high), (columns, wide) = at
        probability, uncertainty = (
            (planes[:, number] if planes.ndim == 4 else planes)[ranges[0], high, wide]
            for planes in (self.probability, self.uncertainty)
        )
        return LabelRegion(rows[high], columns[wide], (probability, uncertainty))

    def cut(self, inside: np.ndarray) -> None:
        """Set to 0 what lies outside a region and has no part in what is interpolated inside it.

        Args:
            inside: bool (slices, rows, columns), axial order, on the volume's own pixels.
        """
        for k, plane in enumerate(inside):
            image = torch.from_numpy(plane.astype(np.float32))[None, None]
            near = F.max_pool2d(onto_grid(image, self.box.grid), 3, 1, 1)[0, 0] > 0
            for planes in (self.probability, self.uncertainty):
                planes[k] *= near.numpy()[self.box.inside]

    def on_voxels(self, plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Resample one slice of a map to float32 (rows, columns) on the volume's own pixels."""
        whole = np.zeros(self.box.grid, np.float32)
        whole[self.box.inside] = plane
        if self.box.grid == size:
            return whole
        image = torch.from_numpy(whole)[None, None]
        # Both grids cover the same field.
        return F.interpolate(image, size, mode="bilinear", antialias=False)[0, 0].numpy()


@dataclass(frozen=True, eq=False, kw_only=True)
class Maps(ABC):
    """The outcome of a run, from which a result at any threshold can be made without the network.

    Attributes:
        bundle: The model.
        labels: The labels that were asked for.
        volume: The part of the volume in `box`, in HU, with padding replaced by air.
        box: The voxels of the whole volume, along K, J and I, that `volume` holds.
        inside: bool, of the shape of `volume`: True where something may be segmented; None for everywhere.
        shape: Shape of the whole volume (K, J, I).
        pixels: The output of the network for `volume`.
        threshold: The threshold of the request.
        notes: Notes about the run that hold at any threshold.
        device, slices, seconds: As in `Result`, up to the maps.
        threads: As in the request.
        show_from: As in `Result`, for the request.
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
    inside: np.ndarray | None = None

    def at(self, threshold: float | None = None, show_from: float | None = None) -> Result:
        """The segmentation at a threshold.

        Args:
            threshold: Lowest probability at which a voxel belongs to the target; None for that of the request.
            show_from: Lowest probability at which a finding is shown; None for that of the request. Ignored if findings have none.

        Raises:
            RequestError: One of them is not a probability.
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
        """Mean of the heads, 0…1, as float32 (K, J, I) on the whole volume; the highest of the labels asked for, and 0 where
        nothing was predicted."""
        return self._on_voxels(self.pixels.probability)

    def uncertainty(self) -> np.ndarray:
        """Standard deviation of the heads, 0…0.5, in the same form as `probability`."""
        return self._on_voxels(self.pixels.uncertainty)

    @abstractmethod
    def _find(self, threshold: float, show_from: float | None) -> Found:
        """The segments on the voxels of `volume` (K, J, I) at a threshold, and from the probability `show_from` if it is not None."""

    def _on_voxels(self, planes: np.ndarray) -> np.ndarray:
        whole = np.zeros(self.shape, np.float32)
        axial = self.pixels.order.apply(whole[self.box])
        asked = [self.bundle.labels.index(label) for label in self.labels]
        for k, of_labels in enumerate(planes):
            plane = of_labels[asked].max(axis=0) if of_labels.ndim == 3 else of_labels
            if plane.any():
                axial[k] = self.pixels.on_voxels(plane, axial.shape[1:])
        return whole
