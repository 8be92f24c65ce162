"""The user's choices in the panel, as arguments of a run, and defaults for new ones. Uses MRML and Slicer; no Qt."""

import slicer

from UNetPlusPlusSegmentLib.core.request import Request
from UNetPlusPlusSegmentLib.scene.sequences import browser_of


class Choices:
    """Reads the parameter node of the panel; without one, nothing is chosen."""

    def __init__(self, parameterNode, models):
        """Read nothing yet.

        Args:
            parameterNode: A `UNetPlusPlusSegmentParameterNode`, or None.
            models: The `ModelList`, which knows the chosen model.
        """
        self._parameters, self._models = parameterNode, models

    @property
    def volume(self):
        """The input volume; None if none is selected."""
        return self._parameters.inputVolume if self._parameters else None

    @property
    def output(self):
        """The segmentation to write to; None for a new one."""
        return self._parameters.outputSegmentation if self._parameters else None

    @property
    def findsNodules(self) -> bool:
        """True if the model finds nodules."""
        model = self._models.chosen if self._parameters else None
        return model is not None and model.finds_nodules

    @property
    def hasShowFrom(self) -> bool:
        """True if *Show from* applies: the model gives its findings a probability, and no points are selected."""
        return self.findsNodules and self._models.chosen.decision is not None and self.points is None

    @property
    def showFrom(self):
        """The lowest probability at which a finding is shown; None if it does not apply."""
        return self._parameters.showFrom if self.hasShowFrom else None

    @property
    def isFrame(self) -> bool:
        """True if the input volume is one frame of a sequence."""
        return browser_of(self.volume) is not None

    @property
    def allFrames(self) -> bool:
        """True if all frames of that sequence will be segmented, into a new sequence."""
        return self.isFrame and self._parameters.allFrames

    @property
    def points(self):
        """The points in nodules; None if they do not apply. If there are points, the region of interest is ignored."""
        return self._parameters.points if self.findsNodules and not self.allFrames else None

    def request(self, existing: str) -> dict:
        """Arguments for the logic's `start`.

        Args:
            existing: `new` or `replace`, as for `start`.
        """
        parameters, allFrames, points = self._parameters, self.allFrames, self.points
        maps = {"probability": parameters.probabilityMap, "uncertainty": parameters.uncertaintyMap}
        return {
            "volumeNode": self.volume,
            "segmentationNode": None if allFrames else self.output,
            "target": parameters.target,
            "speed": parameters.speed.value,
            "device": parameters.device.value,
            "threshold": parameters.threshold,
            "showFrom": self.showFrom,
            "force": parameters.force,
            "model": parameters.model,
            "existing": existing,
            "maps": [name for name, wanted in maps.items() if wanted and not allFrames],
            "roi": None if points else parameters.roi,
            "points": points,
            "allFrames": allFrames,
        }

    def cohortRequest(self) -> Request:
        """The request for every case of a cohort, without box and points, which belong to one volume."""
        parameters, model = self._parameters, self._models.chosen
        return Request(
            parameters.target, model=str(model.folder) if model else None, speed=parameters.speed.value,
            threshold=parameters.threshold, show_from=parameters.showFrom if model and model.decision else None,
            force=parameters.force, device=parameters.device.value,
        )  # fmt: skip


def firstVolume():
    """The first scalar volume of the scene that is visible to users and not a label map; None if there is none."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors():
            return node
    return None


def isMadeFrom(segmentationNode, volumeNode) -> bool:
    """True if the volume is the reference volume of the segmentation; either may be None."""
    if segmentationNode is None or volumeNode is None:
        return False
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReference(role) is volumeNode


def spanVolume(roiNode, volumeNode) -> None:
    """Make a box as large as the volume, so that the user can drag its handles."""
    bounds = [0.0] * 6
    volumeNode.GetRASBounds(bounds)
    ends = list(zip(bounds[::2], bounds[1::2], strict=True))
    roiNode.SetCenterWorld([(low + high) / 2 for low, high in ends])
    roiNode.SetSizeWorld([high - low for low, high in ends])
