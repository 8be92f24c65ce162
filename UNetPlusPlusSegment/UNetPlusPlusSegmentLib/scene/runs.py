"""Runs: the segmentation of a CT of the scene by the worker. MRML through `mrml`; no Qt and no torch."""
# ruff: noqa: ANN001, N803 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.request import Request
from ..core.result import Result
from ..core.table import rows_of
from ..core.volume import Volume
from ..jobs.protocol import RESULT_GONE, DeviceState, Ended, Event, Failed, JobError, Progress, ResultReady
from ..jobs.worker_client import Worker
from ..network.bundle import Bundle
from . import markups, mrml, placement

_log = logging.getLogger(__name__)


class RunError(ValueError):
    """A run that cannot be carried out in the current scene; the message says why and what to do."""


class Task(ABC):
    """A computation of the worker on one volume.

    Attributes:
        volumeNode: The CT.
        bundle, request, target: The model, the request (without box and points), and its target.
        queued: True if the worker had other jobs to do first when the task began.
        running: False once the result and all requested maps are there, or the task has failed.
        progress, device: The latest reports of the worker; None before the first one.
        result: The latest result; None until there is one.
        error: Why there is no result, no map or no new threshold; None if there was no error.
        jobs: Numbers of the worker's jobs that have not ended.
    """

    def __init__(self, worker: Worker, volumeNode, bundle: Bundle, request: Request) -> None:
        """Send nothing to the worker yet.

        Raises:
            VolumeError: `volumeNode` is not a scalar volume, or has no voxels.
        """
        mrml.volume_from_node(volumeNode)
        self.volumeNode, self.bundle, self.request, self.target = volumeNode, bundle, request, request.target
        self.queued, self.running = worker.busy, True
        self.progress: Progress | None = None
        self.device: DeviceState | None = None
        self.result: Result | None = None
        self.error: Exception | None = None
        self.jobs: set[int] = set()
        self._worker, self._scene = worker, volumeNode.GetScene()
        self._cancelled = False

    @property
    def rows(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Name and measurements of each segment of the result; empty until there is a result."""
        return [(each.name, each.measurements) for each in self.result.segments] if self.result else []

    @property
    def table(self) -> list[dict[str, Any]]:
        """`rows` as a table with the columns of the command line and of cohorts; empty until there is a result."""
        if not self.result:
            return []
        storage = self.volumeNode.GetStorageNode()
        return rows_of(
            self.volumeNode.GetName(), self.rows, notes=self.result.notes, model=self.result.model,
            speed=self.request.speed, threshold=self.result.threshold, input=storage and storage.GetFileName(),
        )  # fmt: skip

    @abstractmethod
    def set_threshold(self, threshold: float) -> None:
        """Replace the result by that at another threshold.

        Raises:
            RunError: It is not available.
        """

    @abstractmethod
    def set_show_from(self, probability: float) -> None:
        """Show the findings from another probability; this has no effect if findings have none.

        Raises:
            RunError: They are not available.
        """

    @abstractmethod
    def _in_world(self, result: Result) -> Result:
        """A result of the worker, with its points converted to world coordinates, which the slice views show."""

    @abstractmethod
    def _receive(self, result: Result) -> None:
        """Handle a result; an exception raised here ends the task."""

    def _receive_maps(self, maps: Mapping[str, np.ndarray]) -> None:
        """Handle maps, by name; called only if the task requested some."""
        raise NotImplementedError

    def take(self, event: Event) -> None:
        """Handle an event of one of `jobs`, on the main thread."""
        if isinstance(event, Progress):
            self.progress = event
            return
        self.jobs.discard(event.job)
        try:
            self._settle(event)
        except Exception as error:
            self._stop(error)
        self.running = self.running and bool(self.jobs)

    def _settle(self, event: Ended) -> None:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, DeviceState):
            self.device = event
            return
        self.require_volume()
        if self._cancelled:  # too late to stop the worker, but not to leave the scene unchanged
            raise JobError("cancelled", "Cancelled.")
        if isinstance(event, ResultReady):
            self._receive(self._in_world(event.result))
        else:
            self._receive_maps(event.maps)

    def stop_without_volume(self) -> None:
        """Stop if the volume was removed from the scene, or the scene was closed."""
        if self.running and not self._is_there(self.volumeNode):
            self._stop(RunError("The input volume was removed from the scene, so the run was stopped."))
            self.running = False

    def cancel(self) -> None:
        """Stop within a second; results already in the scene are kept."""
        self._cancelled = True
        for job in self.jobs:
            self._worker.cancel(job)

    def abandon(self) -> None:
        """End at once as cancelled, because the worker has been closed; results already in the scene are kept."""
        if self.jobs:
            self._stop(JobError("cancelled", "Cancelled."))
            self.running = False

    def require_volume(self) -> None:
        """Require that the volume is in the scene.

        Raises:
            RunError: It was removed.
        """
        if not self._is_there(self.volumeNode):
            raise RunError("The input volume was removed from the scene: load it and segment it again.")

    def _is_there(self, node) -> bool:
        return node is not None and bool(self._scene.IsNodePresent(node))

    def _stop(self, error: Exception) -> None:
        self.error = error
        if not isinstance(error, ValueError):
            _log.error("A run ended unexpectedly", exc_info=error)
        for job in self.jobs:
            self._worker.cancel(job)
        self.jobs.clear()


class Run(Task):
    """The segmentation of one volume. The scene is not changed: the caller uses `result`."""

    def __init__(self, worker: Worker, volumeNode, bundle: Bundle, request: Request, roi=None, points=None) -> None:
        """Send the volume to the worker.

        Args:
            worker: The worker; the caller passes its events to `take`.
            volumeNode, bundle: As in `Task`.
            request: The request, without box and points, which depend on the voxel grid of the volume.
            roi, points: The box or the points in the scene, as in `markups`.

        Raises:
            VolumeError: `volumeNode` is not a scalar volume with voxels, or the ROI or a point is outside it.
            JobError: There is no disk space to send it.
        """
        super().__init__(worker, volumeNode, bundle, request)
        # Slices are axial in the world, as a transform above the volume may turn the patient.
        own = mrml.volume_from_node(volumeNode)
        self._ijk_to_ras = own.ijk_to_ras
        self._volume = Volume(own.array, placement.world_ijk_to_ras(volumeNode))
        self._wanted: dict[str, float] = {}  # threshold and probability to apply when the worker is free
        if roi is not None:
            request = replace(request, **markups.places_in_roi(roi, volumeNode))
        if points is not None:
            request = replace(request, points=markups.points_on_volume(points, volumeNode, self._volume))
        asks_device = worker.ask_device(request.device)
        self._job = worker.submit(self._volume, bundle.folder, request)
        self.jobs = {asks_device, self._job}

    def set_threshold(self, threshold: float) -> None:
        """Replace the result by that at another threshold; while the worker is busy, only the last request is kept.

        Raises:
            RunError: The result was removed or edited; it is left unchanged.
        """
        self._wanted["threshold"] = threshold
        if not self.jobs:
            self._update_result()

    def set_show_from(self, probability: float) -> None:
        """Show the findings from another probability; segments that were edited or removed stay as they are.

        Raises:
            RunError: The maps of the run are no longer available.
        """
        self._wanted["show_from"] = probability
        if not self.jobs:
            self._update_result()

    def _update_result(self) -> None:
        """Request the result for the wanted threshold and probability, if it differs from the current one."""
        wanted, self._wanted = self._wanted, {}
        if self.result is None:
            return
        threshold, show_from = wanted.get("threshold", self.result.threshold), self.result.show_from
        if show_from is not None:
            show_from = wanted.get("show_from", show_from)
        if (threshold, show_from) == (self.result.threshold, self.result.show_from):
            return
        if threshold == self.result.threshold:
            self.require_volume()
        else:
            self._require_untouched(self.result)
        if self._worker.kept != self._job:
            raise RunError(RESULT_GONE)
        self.error, self._cancelled = None, False
        self.jobs.add(self._worker.rethreshold(self._job, threshold, show_from))

    def require_volume(self) -> None:
        """Require that the volume is in the scene, and still shows the image that the worker has got, at the same place.

        Raises:
            RunError: It was removed or moved, or shows another image.
        """
        super().require_volume()
        own = mrml.volume_from_node(self.volumeNode)
        now, then = own.array, self._volume.array
        if not (np.may_share_memory(now, then) or np.array_equal(now, then, equal_nan=True)):
            raise RunError(
                f"{self.volumeNode.GetName()} no longer shows the image that this run was started with, such as a frame of a sequence:"
                " show that image again, or start another run."
            )
        if not np.allclose(own.ijk_to_ras, self._ijk_to_ras):
            raise RunError(
                f"{self.volumeNode.GetName()} was moved, or its voxels got another size, after this run was started: start another run."
            )

    def _settle(self, event: Ended) -> None:
        super()._settle(event)
        if not self.jobs:
            self._update_result()

    def _in_world(self, result: Result) -> Result:
        return markups.result_in_world(result, self.volumeNode, self._volume)

    def _receive(self, result: Result) -> None:
        self.result = result

    def _require_untouched(self, result: Result) -> None:
        """Refuse a new threshold if it would overwrite edits."""
        self.require_volume()
