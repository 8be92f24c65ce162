"""Runs: one CT of the scene through the worker and back into the scene. Reaches MRML through `mrml`; knows no Qt and no torch."""
# ruff: noqa: ANN001, N803, N806 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..core.request import Request, as_box
from ..core.result import Result
from ..core.segment import Segment, overlapping
from ..core.volume import Volume
from ..jobs.protocol import RESULT_GONE, DeviceState, Event, Failed, JobError, MapsReady, Progress, ResultReady
from ..jobs.worker_client import Worker
from ..network.bundle import Bundle
from . import markups, mrml

_log = logging.getLogger(__name__)
NUMBERED = re.compile(r"(Nodule|Mass) \d+")  # names that nodules get; the others are the user's


class RunError(ValueError):
    """A run cannot do this in the scene as it is now; the message says why and what to do."""


class Task(ABC):
    """Something on its way through the worker, about one volume.

    Attributes:
        volumeNode: The CT.
        bundle: The model.
        running: Until there is a result, with all that was asked for, or there will be none.
        progress, device: The worker's last words about them; None before.
        result: The last label map with its notes and numbers; None before.
        error: Why there is no result, no map or no new threshold; None if all is well.
        jobs: Numbers of the worker's jobs that are under way for it.
    """

    def __init__(self, worker: Worker, volumeNode, bundle: Bundle) -> None:
        """Nothing is handed over yet.

        Raises:
            VolumeError: `volumeNode` is no scalar volume with voxels.
        """
        mrml.volume_from_node(volumeNode)
        self.volumeNode, self.bundle = volumeNode, bundle
        self.running = True
        self.progress: Progress | None = None
        self.device: DeviceState | None = None
        self.result: Result | None = None
        self.error: Exception | None = None
        self.jobs: set[int] = set()
        self._worker, self._scene = worker, volumeNode.GetScene()
        self._cancelled = False

    @abstractmethod
    def set_threshold(self, threshold: float) -> None:
        """Replace the result by that of another threshold.

        Raises:
            RunError: It cannot be had.
        """

    @abstractmethod
    def _receive(self, event: ResultReady | MapsReady) -> None:
        """Take a result; what this raises ends the task."""

    def take(self, event: Event) -> None:
        """Act on an event of one of `jobs`, on the main thread."""
        if isinstance(event, Progress):
            self.progress = event
            return
        self.jobs.discard(event.job)
        try:
            self._settle(event)
        except Exception as error:
            self._stop(error)
        self.running = self.running and bool(self.jobs)

    def _settle(self, event: Event) -> None:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, DeviceState):
            self.device = event
            return
        self._require_volume()
        if self._cancelled:  # the word came too late for the worker, but not for the scene
            raise JobError("cancelled", "Cancelled.")
        self._receive(event)

    def stop_without_volume(self) -> None:
        """Give up if the volume has left the scene, which the user did or closing the scene."""
        if self.running and not self._is_there(self.volumeNode):
            self._stop(RunError("The input volume was removed from the scene, so the run was stopped."))
            self.running = False

    def cancel(self) -> None:
        """Stop within a second; what is in the scene already stays."""
        self._cancelled = True
        for job in self.jobs:
            self._worker.cancel(job)

    def abandon(self) -> None:
        """End at once, as cancelled, because the worker is gone and will tell no more; what is in the scene already stays."""
        if self.jobs:
            self._stop(JobError("cancelled", "Cancelled."))
            self.running = False

    def _require_volume(self) -> None:
        if not self._is_there(self.volumeNode):
            raise RunError("The input volume was removed from the scene: load it again, and run again.")

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
    """One volume on its way. The scene stays as it is: `result` is for the caller to use."""

    def __init__(self, worker: Worker, volumeNode, bundle: Bundle, request: Request, roi=None, points=None) -> None:
        """Hand the volume over to the worker.

        Args:
            worker: Whose events somebody passes on to `take`.
            volumeNode, bundle: See `Task`.
            request: All but box and points, which go by the voxels of the volume.
            roi, points: The box and the points in the scene, as in `markups`; None: there are none.

        Raises:
            VolumeError: `volumeNode` is no scalar volume with voxels, or the ROI or a point does not lie in it.
            JobError: There is no room to hand it over.
        """
        super().__init__(worker, volumeNode, bundle)
        # Lying on the side, or feet first, by a transform above it counts: slices are axial as the patient lies in the world.
        own = mrml.volume_from_node(volumeNode)
        self._volume = Volume(own.array, mrml.world_ijk_to_ras(volumeNode))
        self._wanted_threshold: float | None = None
        if roi is not None:
            request = replace(request, box=as_box(markups.box_on_volume(roi, volumeNode)))
        if points is not None:
            request = replace(request, points=markups.points_on_volume(points, volumeNode, self._volume))
        asks_device = worker.ask_device(request.device)
        self._job = worker.submit(self._volume, bundle.folder, request)
        self.jobs = {asks_device, self._job}

    def set_threshold(self, threshold: float) -> None:
        """Replace the result by that of another threshold; of several wishes while the worker is at it, the last one counts.

        Raises:
            RunError: The result is gone, or was edited since: then it is left alone.
        """
        self._wanted_threshold = threshold
        if not self.jobs:
            self._rethreshold()

    def _rethreshold(self) -> None:
        threshold, self._wanted_threshold = self._wanted_threshold, None
        if threshold is None or self.result is None or threshold == self.result.threshold:
            return
        self._require_untouched()
        if self._worker.kept != self._job:
            raise RunError(RESULT_GONE)
        self.error, self._cancelled = None, False
        self.jobs.add(self._worker.rethreshold(self._job, threshold))

    def _settle(self, event: Event) -> None:
        super()._settle(event)
        if not self.jobs:
            self._rethreshold()

    def _receive(self, event: ResultReady | MapsReady) -> None:
        self.result = event.result

    def _require_untouched(self) -> None:
        """Refuse a new threshold where it would do harm."""
        self._require_volume()


class SceneRun(Run):
    """A run with its result in the scene: nothing changes there before there is one, and then all of it at once.

    Attributes:
        segmentationNode: Where the result goes, or lies; None until then if there is to be a new one.
        segmentIDs: Of the result's segments in it.
        mapNodes: Probability and uncertainty volumes that were asked for.
    """

    def __init__(
        self,
        worker: Worker,
        volumeNode,
        bundle: Bundle,
        request: Request,
        segmentationNode,
        replaces: bool,
        maps: Collection[str],
        **places: object,
    ) -> None:
        """Hand the volume over to the worker.

        Args:
            worker, volumeNode, bundle, request: As in `Run`, and so are the errors.
            segmentationNode: See the class; it keeps all other segments.
            replaces: Whether the result takes the place of what an earlier run for this target left, if it did.
            maps: `probability`, `uncertainty`, both or none.
            places: roi and points, as in `Run`.
        """
        super().__init__(worker, volumeNode, bundle, request, **places)
        self.segmentationNode = segmentationNode
        self.segmentIDs: list[str] = []
        self.mapNodes: list = []
        self._maps = tuple(maps)
        self._replaces = replaces
        self._replaced = segments_of_target(segmentationNode, bundle) if replaces else []
        self._shown: list = []
        self._edited: set[str] = set()

    @property
    def rows(self) -> list[tuple[str, Mapping[str, object]]]:
        """Names, and `volume_ml`, `mean_hu`, … as found, of the result's segments that are still there; none without a result."""
        found = zip(self._segments(), self.result.segments, strict=True) if self.result else ()
        return [(own.GetName(), each.measurements) for own, each in found if own]

    @property
    def measurements(self) -> dict[str, Mapping[str, object]]:
        """The rows by name."""
        return dict(self.rows)

    def look_at(self, row: int) -> tuple[float, float, float] | None:
        """The centre of the segment of one of the rows, RAS in the world (mm); None if it is empty."""
        there = [segmentID for segmentID, own in zip(self.segmentIDs, self._segments(), strict=True) if own]
        return mrml.centre_of(self.segmentationNode, there[row])

    def _segments(self) -> list:
        """Those of the result, None for each that is gone."""
        there = self._is_there(self.segmentationNode)
        return [self.segmentationNode.GetSegmentation().GetSegment(each) if there else None for each in self.segmentIDs]

    def _receive(self, event: ResultReady | MapsReady) -> None:
        if isinstance(event, MapsReady):
            for name, array in event.maps.items():
                self.mapNodes.append(self._show_map(name, array))
        elif self.result is None:
            self._show(event.result, self._replaced)
            if self._maps:
                self.jobs.add(self._worker.request_maps(self._job, *self._maps))
        else:
            self._require_untouched()
            self._show(event.result, self.segmentIDs)

    def _show_map(self, name: str, array: np.ndarray) -> object:
        """Put a map into the scene; where a result replaced another, in place of the map of that one."""
        role = f"unetpp.{self.bundle.target}.{name}.{self.volumeNode.GetID()}"
        title = f"{self.volumeNode.GetName()} {self.bundle.target} {name}"
        old = self.segmentationNode.GetNodeReference(role) if self._replaces else None
        mapNode = mrml.show_scalar_volume(array, self.volumeNode, title, old)
        self.segmentationNode.SetNodeReferenceID(role, mapNode.GetID())
        return mapNode

    def _show(self, result: Result, replaced: Collection[str]) -> None:
        """Put a result into the scene, in place of the segments of an earlier one that are still there."""
        node = self.segmentationNode if self._is_there(self.segmentationNode) else None
        old = [each for each in replaced if node and node.GetSegmentation().GetSegment(each)]
        segments = [markups.segment_in_world(each, self.volumeNode, self._volume) for each in result.segments]
        places = self._places(result, old)
        segments = [
            _like(node.GetSegmentation().GetSegment(places[each.value]), each) if each.value in places else each
            for each in segments
        ]
        gone = [each for each in old if each not in places.values()]
        node = mrml.show_segmentation(result.labelmap, segments, self.volumeNode, node, places, gone)
        ids = list(node.GetSegmentation().GetSegmentIDs())
        self.segmentIDs = [*places.values()] if places and len(segments) == 1 else ids[len(ids) - len(segments) :]
        self.segmentationNode, self.result = node, replace(result, segments=tuple(segments))
        self._shown = self._voxels()

    def _places(self, result: Result, old: Sequence[str]) -> dict[int, str]:
        """The IDs of old segments whose place segments of a result take, by the value of these.

        A label of the model takes that of the same label. A nodule takes that of the nodule it overlaps, which only the
        same run with another threshold can tell: nodules of another run may be others.
        """
        if self.bundle.engine != "nodule":
            values = [each.value for each in result.segments]
            return dict(zip(values, old, strict=True)) if len(old) == len(values) else {}
        if self.result is None:
            return {}
        ids = {each.value: segmentID for each, segmentID in zip(self.result.segments, self.segmentIDs, strict=True)}
        before = overlapping(self.result.labelmap, result.labelmap)
        return {new: ids[value] for new, value in before.items()}

    def _voxels(self) -> list:
        """The image of each segment, and when it was last written: this changes when it is edited."""
        images = [segment.GetRepresentation(mrml.BINARY_LABELMAP) for segment in self._segments()]
        return [(image, image and image.GetMTime()) for image in images]

    def _require_untouched(self) -> None:
        """Refuse to replace what is gone, or what somebody has worked on since: their work would be lost."""
        super()._require_untouched()
        node = self.segmentationNode
        if not self._is_there(node) or not all(self._segments()):
            raise RunError("A segment of the last run was removed: the threshold counts for the next run.")
        if self._voxels() != self._shown:
            for segmentID, found in zip(self.segmentIDs, self.result.segments, strict=True):
                now = mrml.labelmap_of(node, segmentID, self.volumeNode)
                if (now != (self.result.labelmap == found.value)).any():
                    self._edited.add(segmentID)
            self._shown = self._voxels()  # saving, for one, lays images together anew
        if self._edited:
            name = ", ".join(node.GetSegmentation().GetSegment(each).GetName() for each in sorted(self._edited))
            raise RunError(f"{name} was edited since the last run and stays so: the threshold counts for the next run.")


def segments_of_target(segmentationNode, bundle: Bundle) -> list[str]:
    """IDs of the segments that bear names like those a model's results get; `Nodule 2` and `Mass 1` do for nodules."""
    if segmentationNode is None:
        return []
    segmentation = segmentationNode.GetSegmentation()
    words = [label.name for label in bundle.labels]
    name = NUMBERED if bundle.engine == "nodule" else re.compile("|".join(map(re.escape, words)))
    ids = [each for each in segmentation.GetSegmentIDs() if name.fullmatch(segmentation.GetSegment(each).GetName())]
    return ids if name is NUMBERED else ids[: len(words)]


def _like(old, segment: Segment) -> Segment:
    """A segment with the name, colour and terminology of the one that it replaces: the user may have changed them.

    But the number of a nodule is its rank by size, which changes.
    """
    name = segment.name if NUMBERED.fullmatch(old.GetName()) else old.GetName()
    color = tuple(round(255 * channel) for channel in old.GetColor())
    return replace(segment, name=name, color=color, terminology=old.GetTerminology())
