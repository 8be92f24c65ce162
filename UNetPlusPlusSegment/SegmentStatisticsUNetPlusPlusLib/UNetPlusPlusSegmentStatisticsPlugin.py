"""A plugin of Slicer's Segment Statistics: axial diameters and kind of any segment. What it measures with is `nodule.measurements`."""

from __future__ import annotations

from functools import lru_cache

import slicer
from SegmentStatisticsPlugins import SegmentStatisticsPluginBase
from slicer.i18n import tr as _

from UNetPlusPlusSegmentLib.core.volume import Volume, VolumeError, check_ct
from UNetPlusPlusSegmentLib.scene import mrml


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
        if not requested:
            return {}
        from UNetPlusPlusSegmentLib.core.masks import (
            largest_component,  # brings SimpleITK, which would slow down Slicer's start
        )
        from UNetPlusPlusSegmentLib.nodule.measurements import measure_nodule

        parameters = self.getParameterNode()
        segmentationNode = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("Segmentation"))
        volumeNode = slicer.mrmlScene.GetNodeByID(parameters.GetParameter("ScalarVolume"))
        if not segmentationNode.GetSegmentation().ContainsRepresentation(mrml.BINARY_LABELMAP):
            return {}
        try:
            array = mrml.volume_from_node(volumeNode).array
        except VolumeError:  # none chosen, or nothing to measure on
            volume, isCT = mrml.segment_on_own_grid(segmentationNode, segmentID), False
            found = volume and measure_nodule(largest_component(volume.array > 0, corners=True), volume)
        else:
            volume = Volume(array, mrml.world_ijk_to_ras(volumeNode))
            isCT = _isCT(volumeNode.GetID(), volumeNode.GetImageData().GetMTime())
            mask = mrml.labelmap_of(segmentationNode, segmentID, volumeNode)
            found = measure_nodule(largest_component(mask, corners=True), volume)
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
                _("Largest diameter on any axial slice, of the largest piece of a segment."),
                ("103339001", "SCT", "Long Axis"),
            ),
            "short_axis_mm": (
                "Axial short axis mm",
                _("Axial short axis"),
                _("Largest extent at right angles to the axial long axis, on the same slice."),
                ("103340004", "SCT", "Short Axis"),
            ),
            "mean_diameter_mm": (
                "Mean axial diameter mm",
                _("Mean axial diameter"),
                _("Mean of axial long and short axis, by which guidelines on lung nodules go."),
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
                title=_("Nodule kind"),
                description=_(
                    "Solid, part-solid or ground-glass: by the share of voxels from -300 HU on, air and the outermost"
                    " pixels of every slice left out. Meant for lung nodules in CT."
                ),
                units="",
            )
        return None


@lru_cache(maxsize=1)  # it looks at every voxel, and Segment Statistics asks segment by segment
def _isCT(volumeID: str, _imageTime: int) -> bool:
    try:
        check_ct(mrml.volume_from_node(slicer.mrmlScene.GetNodeByID(volumeID)))
    except VolumeError:
        return False
    return True
