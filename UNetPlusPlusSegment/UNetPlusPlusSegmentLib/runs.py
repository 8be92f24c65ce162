"""Runs: one CT of the scene through the worker and back into the scene. Reaches MRML through `mrml`; knows no Qt and no torch."""
# ruff: noqa: ANN001, N803, N806 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from . import mrml
from .bundles import Bundle
from .jobs.client import Worker
from .jobs.events import RESULT_GONE, DeviceState, Event, Failed, JobError, MapsReady, Progress, Segmented
from .regions import Segment
from .volumes import Volume

_log = logging.getLogger(__name__)


class RunError(ValueError):
    """What a run cannot do in the scene as it is now; the message says why and what to do."""


class Run:
    """One volume on its way through the worker. The scene stays as it is: `result` is for the caller to use.

    Attributes:
        volumeNode: The CT.
        bundle: The model.
        running: Until there is a result, with all that was asked for, or there will be none.
        progress, device: The worker's last words about them; None before.
        result: The last label map with its notes and numbers; None before.
        error: Why there is no result, no map or no new threshold; None if all is well.
    """

    def __init__(self, worker: Worker, volumeNode, bundle: Bundle, device: str, **options: object) -> None:
        """Hand the volume over to the worker.

        Args:
            worker: Whose events somebody passes on to `take`.
            volumeNode, bundle: See the class.
            device: As in `devices.choose_device`.
            options: speed, threshold and force, as in `Worker.submit`.

        Raises:
            VolumeError: `volumeNode` is no scalar volume with voxels.
            JobError: There is no room to hand it over.
        """
        self.volumeNode, self.bundle = volumeNode, bundle
        self.running = True
        self.progress: Progress | None = None
        self.device: DeviceState | None = None
        self.result: Segmented | None = None
        self.error: Exception | None = None
        own = mrml.volume_from_node(volumeNode)
        # Lying on the side, or feet first, by a transform above it counts: slices are cut as the patient lies in the world.
        volume = Volume(own.array, mrml.world_ijk_to_ras(volumeNode))
        self._worker, self._scene = worker, volumeNode.GetScene()
        self._wanted_threshold: float | None = None
        self._cancelled = False
        asks_device = worker.ask_device(device)
        self._job = worker.submit(volume, bundle.folder, device, **options)
        self.jobs = {asks_device, self._job}

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

    def look(self) -> None:
        """Give up if the volume has left the scene, which the user did or closing the scene."""
        if self.running and not self._is_there(self.volumeNode):
            self._stop(RunError("The input volume was removed from the scene, so the run was stopped."))
            self.running = False

    def cancel(self) -> None:
        """Stop within a second; what is in the scene already stays."""
        self._cancelled = True
        for job in self.jobs:
            self._worker.cancel(job)

    def set_threshold(self, threshold: float) -> None:
        """Cut the result at another probability, in place; of several wishes while the worker is at it, the last one counts.

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
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, DeviceState):
            self.device = event
        elif isinstance(event, MapsReady):
            self._receive_maps(event)
        elif self._cancelled:  # the word came too late for the worker, but not for the scene
            raise JobError("cancelled", "Cancelled.")
        else:
            self._receive(event)
        if not self.jobs:
            self._rethreshold()

    def _receive(self, result: Segmented) -> None:
        self._require_volume()
        self.result = result

    def _receive_maps(self, event: MapsReady) -> None:
        """Only those who asked for maps get any."""

    def _require_untouched(self) -> None:
        """Refuse a new threshold where it would do harm."""
        self._require_volume()

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
        device: str,
        segmentationNode,
        replaces: bool,
        maps: Collection[str],
        **options: object,
    ) -> None:
        """Hand the volume over to the worker.

        Args:
            worker, volumeNode, bundle, device, options: As in `Run`, and so are the errors.
            segmentationNode: See the class; it keeps all other segments.
            replaces: Whether the result takes the place of a segment of its name, if there is one.
            maps: `probability`, `uncertainty`, both or none.
        """
        super().__init__(worker, volumeNode, bundle, device, **options)
        self.segmentationNode = segmentationNode
        self.segmentIDs: list[str] = []
        self.mapNodes: list = []
        self._maps = tuple(maps)
        self._replaced = segment_named(segmentationNode, bundle) if replaces else None
        self._shown: tuple | None = None
        self._edited = False

    @property
    def measurements(self) -> dict[str, Mapping[str, float | str | None]]:
        """`volume_ml`, `mean_hu`, … by the names of the segments; empty if there is no result."""
        segments = self.result.segments if self.result else ()
        pairs = zip(segments, self.segmentIDs, strict=True)
        return {self._name_of(each, segmentID): each.measurements for each, segmentID in pairs}

    def _receive(self, result: Segmented) -> None:
        if self.result is None:
            self._show(result, self._replaced)
            if self._maps:
                self.jobs.add(self._worker.request_maps(self._job, *self._maps))
        else:
            self._require_untouched()
            self._show(result, self.segmentIDs[0])

    def _receive_maps(self, event: MapsReady) -> None:
        self._require_volume()
        for name, array in event.maps.items():
            title = f"{self.volumeNode.GetName()} {self.bundle.target} {name}"
            self.mapNodes.append(mrml.show_scalar_volume(array, self.volumeNode, title))

    def _show(self, result: Segmented, segmentID: str | None) -> None:
        """Put a result into the scene, in place of a segment if it is still there."""
        self._require_volume()
        there = self.segmentationNode if self._is_there(self.segmentationNode) else None
        old = there.GetSegmentation().GetSegment(segmentID) if there and segmentID else None
        segments = [_like(old, each) for each in result.segments] if old else result.segments
        node = mrml.show_segmentation(result.labelmap, segments, self.volumeNode, there, segmentID if old else None)
        self.segmentIDs = [segmentID] if old else list(node.GetSegmentation().GetSegmentIDs()[-len(segments) :])
        self.segmentationNode, self.result = node, result
        self._shown = self._voxels()

    def _voxels(self) -> tuple:
        """What changes when the segment is edited: its image, and when that was last written."""
        segment = self.segmentationNode.GetSegmentation().GetSegment(self.segmentIDs[0])
        image = segment.GetRepresentation(mrml.BINARY_LABELMAP)
        return image, image and image.GetMTime()

    def _require_untouched(self) -> None:
        """Refuse to cut anew what is gone, or what somebody has worked on since: their work would be lost."""
        super()._require_untouched()
        node, segmentID = self.segmentationNode, self.segmentIDs[0]
        if not self._is_there(node) or node.GetSegmentation().GetSegment(segmentID) is None:
            raise RunError("The segment of the last run was removed: the threshold counts for the next run.")
        if not self._edited and self._voxels() != self._shown:
            ours = self.result.labelmap == self.result.segments[0].value
            self._edited = bool((mrml.labelmap_of(node, segmentID, self.volumeNode) != ours).any())
            self._shown = self._voxels()  # saving, for one, lays images together anew
        if self._edited:
            name = node.GetSegmentation().GetSegment(segmentID).GetName()
            raise RunError(f"{name} was edited since the last run and stays so: the threshold counts for the next run.")

    def _name_of(self, segment: Segment, segmentID: str) -> str:
        there = self._is_there(self.segmentationNode)
        own = self.segmentationNode.GetSegmentation().GetSegment(segmentID) if there else None
        return own.GetName() if own else segment.name


def segment_named(segmentationNode, bundle: Bundle) -> str | None:
    """ID of the segment that already bears the name of what a model finds; None if there is none."""
    if segmentationNode is None:
        return None
    segmentation = segmentationNode.GetSegmentation()
    ids = (segmentation.GetSegmentIdBySegmentName(label.name) for label in bundle.labels)
    return next(filter(None, ids), None)


def _like(old, segment: Segment) -> Segment:
    """A segment with the name, colour and terminology of the one that it replaces: the user may have changed them."""
    color = tuple(round(255 * channel) for channel in old.GetColor())
    return replace(segment, name=old.GetName(), color=color, terminology=old.GetTerminology())
