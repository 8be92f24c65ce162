"""A run of the effect: from the logic to a preview, and through the editor's masks into segments. Uses MRML; no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.scene import markups, showing

from .masked_writing import ADD, changes, editable_part, write

if TYPE_CHECKING:
    from UNetPlusPlusSegmentLib.core.segment import Segment


class Edit:
    """A run, and the change of segments that its result makes.

    Attributes:
        run: The run.
        target, speed, roiNode: The choices that it was started with.
        preview: True to show the result, False to write it when it is there.
        refines: True if the box is meant to be a part of the target.
        names: After `write`, the names of new segments, by the value of their finding.
        writtenShare: After `write`, the share of what was found that lies in the editable area.
    """

    def __init__(self, controller, watcher, host, target, roiNode, preview, points=None, refines=False, **options):
        """Start the run.

        Args:
            controller: The `RunController` that polls it.
            watcher: The `RunWatcher` that is called about it until `end`.
            host: The effect's C++ side; source volume and segment are those selected now.
            target, roiNode, preview, refines: See the class.
            points: RAS points in the world, one in each nodule to add.
            options: speed, threshold, device and force, as in the logic's `find`.

        Raises:
            ValueError: The run cannot be started.
        """
        node = host.parameterSetNode()
        self.target, self.speed = target, options["speed"]
        self.roiNode, self.preview, self.refines = roiNode, preview, refines
        self.aimAtSelected(host)
        self._adds, self._previewNode, self.names, self.writtenShare = points is not None, None, {}, 0.0
        self._region = True
        if roiNode is not None:
            self._region = markups.inside_roi(roiNode, node.GetSourceVolumeNode())  # read now, as the box may be moved
        self._controller = controller
        run = controller.logic.find(node.GetSourceVolumeNode(), target, roi=roiNode, points=points, **options)
        self.run = controller.watch(run, watcher)

    def aimAtSelected(self, host):
        """Write the result into the segment that is selected now, whatever is selected later."""
        node = host.parameterSetNode()
        self._segmentationNode, self._segmentID = node.GetSegmentationNode(), node.GetSelectedSegmentID()

    @property
    def isShown(self):
        """True if the preview shows the result."""
        return self._previewNode is not None

    def setThreshold(self, threshold):
        """Apply another threshold to the result; the watcher is called."""
        self._controller.setThreshold(self.run, threshold)

    def show(self):
        """Show the result as a separate segmentation, which is neither listed nor saved."""
        node = self._previewNode
        if node is None:
            node = slicer.vtkMRMLSegmentationNode()
            node.SetName("UNet++ preview")
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            scene = self.run.volumeNode.GetScene()
            self._previewNode = scene.AddNode(node)
            # Slicer logs an error for each change of a segment if its node has no item; this item is never listed.
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
            item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
            exclude = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
            hierarchy.SetItemAttribute(item, exclude, "1")
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetSaveWithScene(False)
        node.GetSegmentation().RemoveAllSegments()
        showing.show_segmentation(self.run.result.labelmap, self.run.result.segments, self.run.volumeNode, node)

    def write(self, host, newSegments):
        """Write the result into the segment, or each finding into a new one, as a single undo step.

        An empty result leaves the segment unchanged.

        Returns:
            True if something was written; False if nothing was found in the editable area, and nothing was changed.

        Raises:
            ValueError: The segment or the volume was removed, the volume shows another image, or another segmentation was selected.
        """
        node, segmentationNode = host.parameterSetNode(), self._segmentationNode
        if node.GetSegmentationNode() is not segmentationNode:
            raise ValueError(_("Another segmentation was selected during the run: click Apply again."))
        self.run.require_volume()
        parts = self._findings() if newSegments else self._whole()
        before, written, editable = node.GetSelectedSegmentID(), [], 0
        with slicer.util.NodeModify(node):
            # The editor's table is updated at the end of the inner block: a new segment selected before that would be deselected,
            # and the effect closed.
            with slicer.util.NodeModify(segmentationNode):
                try:
                    for part in parts:
                        node.SetSelectedSegmentID(part.segmentID)  # the editor's masks depend on the selected segment
                        editable += np.count_nonzero(editable_part(host, self.run.volumeNode, part.found))
                        segmentID = self._writePart(host, part, isFirst=not written)
                        if segmentID:
                            written.append(segmentID)
                finally:
                    node.SetSelectedSegmentID(before)
            if written and parts[0].like:
                node.SetSelectedSegmentID(written[-1])
        self.writtenShare = editable / max(1, sum(np.count_nonzero(part.found) for part in parts))
        return bool(written)

    def _whole(self):
        if self._segmentationNode.GetSegmentation().GetSegment(self._segmentID) is None:
            raise ValueError(
                _("The segment was removed during the run: select another segment, and click Apply again.")
            )
        return [_Part(self._segmentID, self.run.result.labelmap > 0, None if self._adds else self._region)]

    def _findings(self):
        labelmap = self.run.result.labelmap
        return [_Part("", labelmap == each.value, like=each) for each in self.run.result.segments]

    def _writePart(self, host, part, isFirst):
        """Write into one segment; returns its ID, or an empty string if none of its voxels may be edited."""
        node, segmentID = host.parameterSetNode(), part.segmentID
        codes = changes(host, self.run.volumeNode, part.found, part.region)
        if ADD not in codes:
            return ""
        if isFirst:
            host.saveStateForUndo()
        if part.like:
            segmentation = self._segmentationNode.GetSegmentation()
            segmentID = _add_segment(segmentation, part.like)
            self.names[part.like.value] = segmentation.GetSegment(segmentID).GetName()
            node.SetSelectedSegmentID(segmentID)
        write(host, codes)
        return segmentID

    def end(self):
        """Stop the run and its calls to the watcher, and remove the preview."""
        self._controller.forget(self.run)
        if self.run.jobs:
            self.run.cancel()
        if self._previewNode is not None and slicer.mrmlScene.IsNodePresent(self._previewNode):
            showing.remove(self._previewNode)
        self._previewNode = None


@dataclass
class _Part:
    """Voxels for one segment.

    Attributes:
        segmentID: The segment; empty for a new one.
        found: bool (K, J, I) on the voxels of the source volume.
        region: As in `changes`.
        like: The `Segment` that gives a new segment its name, colour and terminology.
    """

    segmentID: str
    found: np.ndarray
    region: np.ndarray | bool | None = None
    like: Segment | None = None


def _add_segment(segmentation, like):
    """Add an empty segment like `like`; its name gets the first free number if it is already in use. Returns its ID."""
    taken = {segmentation.GetSegment(each).GetName() for each in segmentation.GetSegmentIDs()}
    kind, _space, number = like.name.rpartition(" ")
    names = (
        (f"{kind} {n}" for n in count(1))
        if number.isdigit()
        else chain([like.name], (f"{like.name}_{n}" for n in count(1)))
    )
    name = next(each for each in names if each not in taken)
    segmentID = segmentation.AddEmptySegment("", name, [channel / 255 for channel in like.color])
    segmentation.GetSegment(segmentID).SetTerminology(like.terminology)
    showing.keep_name_and_color(segmentation.GetSegment(segmentID))
    return segmentID
