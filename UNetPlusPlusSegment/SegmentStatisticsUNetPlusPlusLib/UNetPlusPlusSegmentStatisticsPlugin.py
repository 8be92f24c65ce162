"""A plugin of Slicer's Segment Statistics: axial diameters and kind of any segment, as `nodule.measurements` has them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import slicer
from SegmentStatisticsPlugins import SegmentStatisticsPluginBase
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, check_ct
from UNetPlusPlusSegmentLib.scene import mrml

if TYPE_CHECKING:
    from UNetPlusPlusSegmentLib.nodule.measurements import NoduleMeasurements


class UNetPlusPlusSegmentStatisticsPlugin(SegmentStatisticsPluginBase):
    """Long and short axis, their mean, and whether it is solid, as the nodule table of the module has them."""

    def __init__(self) -> None:
        """Name the measurements; all of them are made unless the user deselects some."""
        super().__init__()
        self.name = "UNet++ Segment"
        self.title = _("UNet++ Segment")
        self.keys = self.defaultKeys = ["long_axis_mm", "short_axis_mm", "mean_diameter_mm", "kind"]

    def computeStatistics(self, segmentID: str) -> dict[str, float | str]:
        """Measure a segment, of several pieces the largest, on the voxels of the chosen volume, as everywhere in the module.

        Returns:
            The requested measurements by key; an empty segment has no axes, and no kind ("": a column of texts must have
            one in each row). Without a volume the axes are those on the segment's own grid. `kind` is left out there
            and where the values are not those of a CT.
        """
        requested = self.getRequestedKeys()
        parameters = self.getParameterNode()
        segmentationNode = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("Segmentation"))
        volumeNode = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("ScalarVolume"))
        binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
        if not requested or not segmentationNode.GetSegmentation().ContainsRepresentation(binary):
            return {}
        found, isCT = _measure(segmentationNode, segmentID, volumeNode)
        statistics = {"kind": found.kind if found else ""} if isCT and "kind" in requested else {}
        if found:
            statistics |= {key: getattr(found, key) for key in requested if key != "kind"}
        return statistics

    def getMeasurementInfo(self, key: str) -> dict[str, str] | None:
        """Names, units and DICOM codes. For the kind of a nodule DICOM has no code of a quantity."""
        axis = {
            "long_axis_mm": (
                "Axial long axis mm",
                _("Axial long axis"),
                _("Longest diameter on any axial slice, in the largest connected part of the segment."),
                ("103339001", "SCT", "Long Axis"),
            ),
            "short_axis_mm": (
                "Axial short axis mm",
                _("Axial short axis"),
                _("Longest diameter perpendicular to the axial long axis, on the same slice."),
                ("103340004", "SCT", "Short Axis"),
            ),
            "mean_diameter_mm": (
                "Mean axial diameter mm",
                _("Mean axial diameter"),
                _("Mean of the axial long and short axes, as in guidelines on lung nodules."),
                ("81827009", "SCT", "Diameter"),
            ),
        }
        if key in axis:
            name, title, description, quantity = axis[key]
            mean = self.createCodedEntry("373098007", "SCT", "Mean", True) if key == "mean_diameter_mm" else None
            return self.createMeasurementInfo(
                name=name,
                title=title,
                description=description,
                units=_("mm"),
                quantityDicomCode=self.createCodedEntry(*quantity, True),
                unitsDicomCode=self.createCodedEntry("mm", "UCUM", "millimeter", True),
                derivationDicomCode=mean,
            )
        if key == "kind":
            return self.createMeasurementInfo(
                name="Nodule kind",
                title=_("Nodule type"),
                description=_(
                    "Solid, part-solid or ground-glass, from the fraction of voxels at or above -300 HU, without air and the"
                    " outermost pixels of each slice. Intended for lung nodules in CT."
                ),
                units="",
            )
        return None


def _measure(segmentationNode, segmentID: str, volumeNode) -> tuple[NoduleMeasurements | None, bool]:
    """Measure the largest piece of a segment; also tells if that was on a CT. An empty segment has no measurements."""
    from UNetPlusPlusSegmentLib.core.masks import (
        largest_component,  # brings SimpleITK, which would slow down Slicer's start
    )
    from UNetPlusPlusSegmentLib.nodule.measurements import measure_nodule

    try:
        array = mrml.volume_from_node(volumeNode).array
    except VolumeError:  # none chosen, or nothing to measure on
        volume = mrml.segment_on_own_grid(segmentationNode, segmentID)
        return volume and measure_nodule(largest_component(volume.array > 0, corners=True), volume), False
    volume = Volume(array, mrml.world_ijk_to_ras(volumeNode))
    mask = largest_component(mrml.labelmap_of(segmentationNode, segmentID, volumeNode), corners=True)
    return measure_nodule(mask, volume), _isCT(volumeNode.GetID(), volumeNode.GetImageData().GetMTime())


@lru_cache(maxsize=1)  # it looks at every voxel, and Segment Statistics asks segment by segment
def _isCT(volumeID: str, _imageTime: int) -> bool:
    try:
        check_ct(mrml.volume_from_node(slicer.mrmlScene.GetNodeByID(volumeID)))
    except VolumeError:
        return False
    return True
