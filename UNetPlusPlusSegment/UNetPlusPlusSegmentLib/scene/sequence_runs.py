"""Runs over sequences: segments every frame of a volume sequence into a sequence of segmentations. No Qt and no torch."""
# ruff: noqa: ANN001, N803 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.request import Request
from ..core.result import Result
from ..core.volume import Volume, VolumeError
from ..jobs.protocol import Event, Progress
from ..jobs.worker_client import Worker
from ..network.bundle import Bundle
from . import markups, mrml, placement
from .runs import RunError, Task
from .sequences import SegmentationSequence, browser_of


class SequenceRun(Task):
    """Segments all frames of a volume sequence, one at a time. The scene changes only when all are done.

    `result` is that of the last frame, with the notes, slices and seconds of all frames; `progress` is that of the current frame.

    Attributes:
        segmentationNode: Shows the result of the current frame; None until all are done.
    """

    def __init__(self, worker: Worker, volumeNode, bundle: Bundle, request: Request, roi=None) -> None:
        """Send the first frame to the worker.

        Args:
            worker, volumeNode, bundle, request, roi: As for `Run`; the ROI, as it is now, applies to every frame.

        Raises:
            VolumeError: The volume is not a frame of a sequence, or the ROI is outside a frame.
            JobError: There is no disk space to send it.
        """
        super().__init__(worker, volumeNode, bundle, request)
        self.segmentationNode = None
        self._browserNode = browser_of(volumeNode)
        if self._browserNode is None:
            raise VolumeError(
                f"{volumeNode.GetName()} is not part of a sequence. Choose a frame of a sequence, or segment only this volume."
            )
        self._sequence = SegmentationSequence(volumeNode, self._browserNode)
        self._requests = [self._on_frame(request, roi, item) for item in range(len(self._sequence))]
        self._results: list[Result] = []
        self.jobs = {worker.ask_device(request.device)}
        self._submit()

    @property
    def frames(self) -> list[dict[str, Mapping]]:
        """For each frame, measurements by the name of the segment; empty until there is a result."""
        return [{each.name: each.measurements for each in found.segments} for found in self._results if self.result]

    @property
    def rows(self) -> list[tuple[str, Mapping]]:
        """Name and measurements of the segments of all frames, with the number of the frame in the name."""
        numbered = enumerate(self.frames, start=1)
        return [(f"{name} (frame {n})", found) for n, frame in numbered for name, found in frame.items()]

    def set_threshold(self, threshold: float) -> None:
        """Refuse another threshold, as the maps of earlier frames are not kept.

        Raises:
            RunError: It differs from that of the result.
        """
        if self.result and threshold != self.result.threshold:
            raise RunError(
                "The threshold of a finished sequence cannot be changed: the new threshold applies to the next run."
            )

    def set_show_from(self, probability: float) -> None:
        """Refuse another probability, as for the threshold.

        Raises:
            RunError: It differs from that of the result.
        """
        if self.result and self.result.show_from not in (None, probability):
            raise RunError(
                "The findings of a finished sequence cannot be changed: the new probability applies to the next run."
            )

    def look_at(self, row: int) -> tuple[float, float, float] | None:
        """Go to the frame of a row; returns the centre of its segment, as `SceneRun.look_at` does."""
        item, name = [(item, name) for item, frame in enumerate(self.frames) for name in frame][row]
        return self._sequence.look_at(item, name) if self._is_there(self.segmentationNode) else None

    def take(self, event: Event) -> None:
        """As in `Task`; adds the number of the frame to the progress."""
        if isinstance(event, Progress):
            event = replace(event, frame=(len(self._results) + 1, len(self._sequence)))
        super().take(event)

    def _on_frame(self, request: Request, roi, item: int) -> Request:
        """The request for a frame; the ROI holds other voxels in each, as frames may lie in different places."""
        if roi is None:
            return request
        try:
            return replace(request, **markups.places_in_roi(roi, self._sequence.frame(item), under=self.volumeNode))
        except VolumeError as error:
            raise VolumeError(f"Frame {item + 1}: {error}") from None

    def _submit(self) -> None:
        frame = self._sequence.frame(len(self._results))
        own = mrml.volume_from_node(frame)
        self._volume = Volume(own.array, placement.world_ijk_to_ras(frame, under=self.volumeNode))
        self.jobs.add(self._worker.submit(self._volume, self.bundle.folder, self._requests[len(self._results)]))

    def _in_world(self, result: Result) -> Result:
        frame = self._sequence.frame(len(self._results))
        return markups.result_in_world(result, frame, self._volume, under=self.volumeNode)

    def _receive(self, result: Result) -> None:
        self._sequence.put(len(self._results), result.labelmap, result.segments)
        # The label map is already stored in the sequence.
        self._results.append(replace(result, labelmap=result.labelmap[:0]))
        if len(self._results) < len(self._sequence):
            self._submit()
            return
        if not self._is_there(self._browserNode):
            raise RunError(
                "The sequence browser of the volume was removed from the scene, so the result cannot be shown: load the sequence"
                " and segment it again."
            )
        self.segmentationNode = self._sequence.show()
        numbered = enumerate(self._results, start=1)
        self.result = replace(
            result,
            notes=tuple(
                replace(note, sentence=f"Frame {n}: {note.sentence}") for n, found in numbered for note in found.notes
            ),
            scan_slices=sum(found.scan_slices for found in self._results),
            slices=sum(found.slices for found in self._results),
            seconds=sum(found.seconds for found in self._results),
        )
