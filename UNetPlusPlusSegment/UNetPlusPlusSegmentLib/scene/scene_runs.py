"""Runs that add their result to the scene, and update it there. MRML through `mrml`; no Qt and no torch."""
# ruff: noqa: ANN001, N803, N806 (towards Slicer, Slicer's names; its nodes have no types to import)

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ..core.keeping import with_kept_findings
from ..core.request import Request
from ..core.result import Result
from ..core.segment import Segment, overlapping
from ..jobs.worker_client import Worker
from ..network.bundle import Bundle
from . import mrml, showing
from .runs import Run, RunError

NUMBERED = re.compile(r"(Nodule|Mass) \d+")  # names given by runs; all others come from the user


class SceneRun(Run):
    """A run that adds its result to the scene, all at once when it is complete.

    Attributes:
        segmentationNode: The segmentation that gets the result; None until then if a new one will be created.
        segmentIDs: IDs of the result's segments in it.
        edited: IDs of those known to have been edited by hand.
        mapNodes: The requested probability and uncertainty volumes.
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
        **places: Any,
    ) -> None:
        """Send the volume to the worker.

        Args:
            worker, volumeNode, bundle, request: As for `Run`, with the same errors.
            segmentationNode: The segmentation to add to, or None for a new one; its other segments are kept.
            replaces: True to replace the segments that an earlier run for this target added.
            maps: `probability`, `uncertainty`, both or none.
            places: roi or points, as for `Run`.

        Raises:
            SegmentationError: The segmentation cannot take the result.
        """
        if segmentationNode is not None:
            showing.check_segmentation(segmentationNode, volumeNode)
        replaced = segments_of_target(segmentationNode, bundle, request.target) if replaces else []
        self._replaced = {each: mrml.digest_of(segmentationNode, each) for each in replaced}
        super().__init__(worker, volumeNode, bundle, request, **places)
        self.segmentationNode = segmentationNode
        self.segmentIDs: list[str] = []
        self.mapNodes: list = []
        self._maps = tuple(maps)
        self._replaces = replaces
        self._shown: list = []
        self.edited: set[str] = set()
        self._removed: list[tuple[int, ...]] = []  # a voxel of each finding whose segment the user removed

    @property
    def rows(self) -> list[tuple[str, Mapping[str, object]]]:
        """Name and measurements of each segment of the result that is still in the scene; empty until there is a result."""
        found = zip(self._segments(), self.result.segments, strict=True) if self.result else ()
        return [(own.GetName(), each.measurements) for own, each in found if own]

    @property
    def measurements(self) -> dict[str, Mapping[str, object]]:
        """Measurements by the name of the segment."""
        return dict(self.rows)

    def look_at(self, row: int) -> tuple[float, float, float] | None:
        """The centre of the segment in a row, RAS in the world (mm); None if it is empty."""
        there = [segmentID for segmentID, own in zip(self.segmentIDs, self._segments(), strict=True) if own]
        return mrml.centre_of(self.segmentationNode, there[row])

    def _segments(self) -> list:
        """The `vtkSegment`s of the result; None for each that was removed."""
        there = self._is_there(self.segmentationNode)
        return [self.segmentationNode.GetSegmentation().GetSegment(each) if there else None for each in self.segmentIDs]

    def _receive(self, result: Result) -> None:
        if self.result is None:
            self._require_unedited()
            self._show(result, self._replaced)
            if self._maps:
                self.jobs.add(self._worker.request_maps(self._job, *self._maps))
        else:
            kept: dict[int, str] = {}
            if result.threshold == self.result.threshold:
                result, kept = self._keeping_edits(result, self.result)
            else:
                self._require_untouched(self.result)
            self._show(result, self.segmentIDs, kept)

    def _receive_maps(self, maps: Mapping[str, np.ndarray]) -> None:
        for name, array in maps.items():
            self.mapNodes.append(self._show_map(name, array))

    def _show_map(self, name: str, array: np.ndarray) -> Any:
        """Add a map to the scene, replacing the map of the earlier result if the run replaces that."""
        role = f"unetpp.{self.target}.{name}.{self.volumeNode.GetID()}"
        title = f"{self.volumeNode.GetName()} {self.target} {name}"
        old = self.segmentationNode.GetNodeReference(role) if self._replaces else None
        mapNode = showing.show_scalar_volume(array, self.volumeNode, title, old)
        self.segmentationNode.SetNodeReferenceID(role, mapNode.GetID())
        return mapNode

    def _show(self, result: Result, replaced: Collection[str], kept: Mapping[int, str] = MappingProxyType({})) -> None:
        """Add a result to the scene, replacing those segments of an earlier result that are still there.

        Args:
            result: The result to show.
            replaced: IDs of the earlier segments.
            kept: IDs of earlier segments to leave unchanged, by their value in the result.
        """
        node: Any = self.segmentationNode if self._is_there(self.segmentationNode) else None
        old = [
            each for each in replaced if node and node.GetSegmentation().GetSegment(each) and each not in kept.values()
        ]
        segments = [each for each in result.segments if each.value not in kept]
        labelmap = np.where(np.isin(result.labelmap, [*kept]), 0, result.labelmap) if kept else result.labelmap
        places = self._places(result, old)
        segments = [
            _like(node.GetSegmentation().GetSegment(places[each.value]), each) if each.value in places else each
            for each in segments
        ]
        gone = [each for each in old if each not in places.values()]
        node = showing.show_segmentation(labelmap, segments, self.volumeNode, node, places, gone)
        ids = list(node.GetSegmentation().GetSegmentIDs())
        new = [*places.values()] if places and len(segments) == 1 else ids[len(ids) - len(segments) :]
        self.segmentIDs = [*new, *kept.values()]
        stay = (each for each in result.segments if each.value in kept)
        self.segmentationNode, self.result = node, replace(result, segments=(*segments, *stay))
        self._shown = self._voxels()

    def _places(self, result: Result, old: Sequence[str]) -> dict[int, str]:
        """Which old segments the segments of a result replace: their IDs, by the value of the new segment.

        An organ replaces the segment with the same label. A nodule replaces the nodule that it overlaps, but only from this run at
        another threshold, as other runs may have found other nodules.
        """
        if self.result is None:
            if self.bundle.finds_nodules:
                return {}
            by_name = {self.segmentationNode.GetSegmentation().GetSegment(each).GetName(): each for each in old}
            return {each.value: by_name[each.name] for each in result.segments if each.name in by_name}
        ids = {each.value: segmentID for each, segmentID in zip(self.result.segments, self.segmentIDs, strict=True)}
        if not self.bundle.finds_nodules:
            return {value: segmentID for value, segmentID in ids.items() if segmentID in old}
        before = overlapping(self.result.labelmap, result.labelmap)
        return {new: ids[value] for new, value in before.items() if ids[value] in old}

    def _keeping_edits(self, result: Result, before: Result) -> tuple[Result, dict[int, str]]:
        """Combine the findings from another probability with the segments that were edited by hand.

        Args:
            result: The findings from the new probability.
            before: The result shown so far.

        Returns:
            The new findings, without those that were edited or removed, followed by the edited ones; and the segment IDs of the
            edited ones, by their value.
        """
        if not self._is_there(self.segmentationNode):
            raise RunError("The segmentation of the last run was removed: the new probability applies to the next run.")
        self._note_edits(before)
        self._removed += [
            np.unravel_index((before.labelmap == found.value).argmax(), before.labelmap.shape)
            for found, segment in zip(before.segments, self._segments(), strict=True)
            if segment is None
        ]
        there = {each for each, segment in zip(self.segmentIDs, self._segments(), strict=True) if segment}
        edited = {
            found.value: segmentID
            for found, segmentID in zip(before.segments, self.segmentIDs, strict=True)
            if segmentID in self.edited & there
        }
        result, values = with_kept_findings(result, before, edited, self._removed)
        return result, {values[value]: segmentID for value, segmentID in edited.items()}

    def _voxels(self) -> list:
        """The image of each segment with its modification time, which changes when the segment is edited."""
        images = [segment and segment.GetRepresentation(mrml.BINARY_LABELMAP) for segment in self._segments()]
        return [(image, image and image.GetMTime()) for image in images]

    def _require_untouched(self, result: Result) -> None:
        """Refuse to replace segments that were removed or edited, as the edits would be lost."""
        super()._require_untouched(result)
        node = self.segmentationNode
        if not self._is_there(node) or not all(self._segments()):
            raise RunError("A segment of the last run was removed: the new threshold applies to the next run.")
        self._note_edits(result)
        if self.edited:
            raise RunError(
                f"Edited after the last run, and therefore kept: {self._names(sorted(self.edited))}. The new threshold applies to the next"
                " run."
            )

    def _require_unedited(self) -> None:
        """Refuse to replace segments that were edited during the run, as the edits would be lost."""
        if not self._is_there(self.segmentationNode):
            return
        there = self.segmentationNode.GetSegmentation().GetSegmentIDs()
        edited = [
            each
            for each, before in self._replaced.items()
            if each in there and mrml.digest_of(self.segmentationNode, each) != before
        ]
        if edited:
            raise RunError(
                f"Edited during the run, and therefore kept: {self._names(edited)}. The result was discarded. To segment anew, remove"
                " these segments, and click Apply again."
            )

    def _names(self, segmentIDs: Collection[str]) -> str:
        segmentation = self.segmentationNode.GetSegmentation()
        return ", ".join(segmentation.GetSegment(each).GetName() for each in segmentIDs)

    def _note_edits(self, result: Result) -> None:
        """Add the segments that were edited since the result was shown to `edited`."""
        if self._voxels() == self._shown:
            return
        for segmentID, segment, found in zip(self.segmentIDs, self._segments(), result.segments, strict=True):
            if segment is None:
                continue
            now = mrml.labelmap_of(self.segmentationNode, segmentID, self.volumeNode)
            if (now != (result.labelmap == found.value)).any():
                self.edited.add(segmentID)
        # Images also change without edits: saving, for example, merges them into shared layers.
        self._shown = self._voxels()


def segments_of_target(segmentationNode, bundle: Bundle, target: str) -> list[str]:
    """IDs of the segments with the names that a model gives to a target, in the order of its labels; for nodules, all numbered ones."""
    if segmentationNode is None:
        return []
    segmentation = segmentationNode.GetSegmentation()
    names = {each: segmentation.GetSegment(each).GetName() for each in segmentation.GetSegmentIDs()}
    if bundle.finds_nodules:
        return [each for each, name in names.items() if NUMBERED.fullmatch(name)]
    first = {name: each for each, name in reversed(names.items())}
    return [first[label.name] for label in bundle.labels_of(target) if label.name in first]


def _like(old, segment: Segment) -> Segment:
    """A segment with the name, colour and terminology of the one that it replaces, as the user may have changed them.

    Only the numbered name of a nodule is not kept, as the number is its rank by size.
    """
    name = segment.name if NUMBERED.fullmatch(old.GetName()) else old.GetName()
    color = tuple(round(255 * channel) for channel in old.GetColor())
    return replace(segment, name=name, color=color, terminology=old.GetTerminology())
