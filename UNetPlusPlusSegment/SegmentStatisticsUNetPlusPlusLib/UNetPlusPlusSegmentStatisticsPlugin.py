"""A plugin for Slicer's Segment Statistics: axial diameters and nodule kind of any segment, from `nodule.measurements`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import slicer
from SegmentStatisticsPlugins import SegmentStatisticsPluginBase
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, check_ct
from UNetPlusPlusSegmentLib.scene import mrml, placement

if TYPE_CHECKING:
    from UNetPlusPlusSegmentLib.nodule.measurements import NoduleMeasurements


class UNetPlusPlusSegmentStatisticsPlugin(SegmentStatisticsPluginBase):
    """Long and short axis, mean diameter, nodule kind and solid part, as in the results table of the module."""

    def __init__(self) -> None:
        """Name the measurements; all are made unless the user deselects some."""
        super().__init__()
        self.name = "UNet++ Segment"
        self.title = _("UNet++ Segment")
        self.keys = self.defaultKeys = [
            "long_axis_mm", "short_axis_mm", "mean_diameter_mm", "kind", "solid_long_axis_mm",
        ]  # fmt: skip

    def computeStatistics(self, segmentID: str) -> dict[str, float | str]:
        """Measure the largest piece of a segment on the voxels of the chosen volume, as everywhere in the module.

        Returns:
            The requested measurements by key. An empty segment has no axes, and the kind "", as a text column needs a text in each
            row. Without a volume, the axes are measured on the segment's own grid. `kind` and `solid_long_axis_mm` are left out if
            there is no volume or it does not look like CT, the latter for all but part-solid nodules.
        """
        requested = self.getRequestedKeys()
        parameters = self.getParameterNode()
        segmentationNode = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("Segmentation"))
        volumeNode = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("ScalarVolume"))
        if not requested or not segmentationNode.GetSegmentation().ContainsRepresentation(mrml.BINARY_LABELMAP):
            return {}
        found, isCT = _measure(segmentationNode, segmentID, volumeNode)
        requested = [key for key in requested if isCT or key not in ("kind", "solid_long_axis_mm")]
        statistics = {"kind": ""} if "kind" in requested else {}
        if found:
            statistics |= {key: getattr(found, key) for key in requested if getattr(found, key) is not None}
        return statistics

    def getMeasurementInfo(self, key: str) -> dict[str, str] | None:
        """Names, units and DICOM codes. DICOM has no quantity code for the kind of a nodule."""
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
                _("Mean of the axial long and short axes, as in guidelines for lung nodules."),
                ("81827009", "SCT", "Diameter"),
            ),
            "solid_long_axis_mm": (
                "Solid part axial long axis mm",
                _("Solid part axial long axis"),
                _("Longest diameter of the solid part of a part-solid nodule on any axial slice (-300 HU and more)."),
                ("103339001", "SCT", "Long Axis"),
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
                title=_("Nodule kind"),
                description=_(
                    "Solid, part-solid or ground-glass, from the fraction of voxels at or above -300 HU, without air and the"
                    " outermost pixels of each slice. Intended for lung nodules in CT."
                ),
                units="",
            )
        return None


def _measure(segmentationNode, segmentID: str, volumeNode) -> tuple[NoduleMeasurements | None, bool]:
    """Measurements of a segment (None if it is empty), and whether the volume is CT."""
    # Imported here, as SimpleITK would slow down Slicer's start.
    from UNetPlusPlusSegmentLib.nodule.measurements import measure_nodule

    try:
        array = mrml.volume_from_node(volumeNode).array
    except VolumeError:  # no volume is selected, or it has no voxels
        volume = mrml.segment_on_own_grid(segmentationNode, segmentID)
        return volume and measure_nodule(volume.array > 0, volume), False
    volume = Volume(array, placement.world_ijk_to_ras(volumeNode))
    mask = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
    return measure_nodule(mask, volume), _isCT(volumeNode.GetID(), volumeNode.GetImageData().GetMTime())


@lru_cache(maxsize=1)  # the check reads every voxel, and Segment Statistics calls it for each segment
def _isCT(volumeID: str, _imageTime: int) -> bool:
    try:
        check_ct(mrml.volume_from_node(slicer.mrmlScene.GetNodeByID(volumeID)))
    except VolumeError:
        return False
    return True
