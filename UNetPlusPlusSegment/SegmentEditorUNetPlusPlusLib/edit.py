"""One run for the effect: from the logic to a preview, and through the masks into segments. Knows MRML, no Qt."""

import slicer
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.scene import markups, mrml

from .masked_writing import ADD, changes, write


class Edit:
    """A run, and the change that its result makes.

    Attributes:
        run: The run.
        target, speed, roiNode: What was chosen for it.
        preview: Whether its result is to be shown before it is written.
    """

    def __init__(self, logic, host, target, roiNode, preview, points=None, **options):
        """Start the run.

        Args:
            logic: Where it runs.
            host: The effect's C++ side; source volume and segment are the selected ones.
            points: RAS points in the world, one in each nodule to add.
            options: speed and threshold, as in the logic's `find`.

        Raises:
            ValueError: It cannot be done.
        """
        node = host.parameterSetNode()
        self.target, self.speed = target, options["speed"]
        self.roiNode, self.preview = roiNode, preview
        self._segmentationNode, self._segmentID = node.GetSegmentationNode(), node.GetSelectedSegmentID()
        self._adds, self._previewNode = points is not None, None
        self._region = True
        if roiNode is not None:
            if not roiNode.GetNumberOfDefinedControlPoints():
                raise ValueError(_("Draw the box in a slice view first, or choose the whole volume."))
            self._region = markups.inside_roi(roiNode, node.GetSourceVolumeNode())  # now: the box may be moved
        self.run = logic.find(node.GetSourceVolumeNode(), target, roi=roiNode, points=points, **options)

    @property
    def isShown(self):
        """Whether the preview shows the result."""
        return self._previewNode is not None

    def show(self):
        """Show the result as a segmentation of its own, which is neither listed nor saved."""
        node = self._previewNode
        if node is None:
            node = slicer.vtkMRMLSegmentationNode()
            node.SetName("UNet++ preview")
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)
            scene = self.run.volumeNode.GetScene()
            self._previewNode = scene.AddNode(node)
            # Slicer logs an error for each change of a segment whose node has no item; this one is never listed.
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
            item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
            exclude = slicer.vtkMRMLSubjectHierarchyConstants.GetSubjectHierarchyExcludeFromTreeAttributeName()
            hierarchy.SetItemAttribute(item, exclude, "1")
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetSaveWithScene(False)
        node.GetSegmentation().RemoveAllSegments()
        mrml.show_segmentation(self._labelmap, self.run.result.segments, self.run.volumeNode, node)

    def write(self, host, newSegments):
        """Write the result into the segment, or nodules each into a new one, as one step to undo.

        An empty result empties no segment.

        Returns:
            Whether anything was found that could be edited; if not, everything is as it was.

        Raises:
            ValueError: The segment or the volume is gone.
        """
        node, segmentationNode = host.parameterSetNode(), self._segmentationNode
        if node.GetSegmentationNode() is not segmentationNode or not self._isThere(self.run.volumeNode):
            raise ValueError(_("The segmentation or the volume was exchanged since: run again."))
        segmentation, labelmap = segmentationNode.GetSegmentation(), self._labelmap
        if newSegments and self.target == "nodule":
            parts = [(None, labelmap == each.value, each) for each in self.run.result.segments]
        elif segmentation.GetSegment(self._segmentID) is None:
            raise ValueError(_("The segment was removed since: select another, and run again."))
        else:
            parts = [(self._segmentID, labelmap > 0, None)]
        region, written = None if self._adds else self._region, False
        before = selectedID = node.GetSelectedSegmentID()
        with slicer.util.NodeModify(node):
            # The editor's table learns of new segments as the inner block ends: one selected by then would be deselected, and the
            # effect closed.
            with slicer.util.NodeModify(segmentationNode):
                try:
                    for segmentID, found, like in parts:
                        node.SetSelectedSegmentID(segmentID or "")  # by which the editor's masks go
                        codes = changes(host, self.run.volumeNode, found, region if segmentID else None)
                        if ADD not in codes:
                            continue
                        if not written:
                            host.saveStateForUndo()
                        if segmentID is None:
                            selectedID = _add_segment(segmentation, like)
                            node.SetSelectedSegmentID(selectedID)
                        write(host, codes)
                        written = True
                finally:
                    node.SetSelectedSegmentID(before)
            node.SetSelectedSegmentID(selectedID)
        return written

    def end(self):
        """Stop the run, and take the preview away."""
        if self.run.jobs:
            self.run.cancel()
        if self._previewNode is not None and self._isThere(self._previewNode):
            self._previewNode.GetScene().RemoveNode(self._previewNode)
        self._previewNode = None

    @property
    def _labelmap(self):
        labelmap = self.run.result.labelmap
        return labelmap if self._region is True else labelmap * self._region

    def _isThere(self, node):
        return bool(slicer.mrmlScene.IsNodePresent(node))


def _add_segment(segmentation, like):
    """Add an empty segment, named as the found one is, with the first number that is free; returns its ID."""
    taken = {segmentation.GetSegment(each).GetName() for each in segmentation.GetSegmentIDs()}
    kind, number = like.name.rpartition(" ")[0], 1
    while f"{kind} {number}" in taken:
        number += 1
    segmentID = segmentation.AddEmptySegment("", f"{kind} {number}", [channel / 255 for channel in like.color])
    segmentation.GetSegment(segmentID).SetTerminology(like.terminology)
    mrml.keep_name_and_color(segmentation.GetSegment(segmentID))
    return segmentID
