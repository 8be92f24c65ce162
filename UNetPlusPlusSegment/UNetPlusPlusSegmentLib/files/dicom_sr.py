"""DICOM SR: the measurements of a segmentation as archives store them, with a reference to its DICOM SEG. Needs highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom import Dataset

from .. import __version__
from ..core.segment import Segment
from .dicom_seg import LONGEST, MANUFACTURER, PROGRAM, Codes, codes_of, headers_of, versions_of, without_patient
from .images import FileError, quiet
from .writing import whole_file

if TYPE_CHECKING:
    from highdicom.sr import FindingSite, Measurement
    from pydicom.sr.coding import Code

# Code, unit and derivation of each measurement, as scheme, value and meaning (DICOM CIDs 218, 7181, 7464).
MM, ML, HU = ("UCUM", "mm", "millimeter"), ("UCUM", "ml", "milliliter"), ("UCUM", "[hnsf'U]", "Hounsfield unit")
MEAN = ("SCT", "373098007", "Mean")
MEASURED = {
    "volume_ml": (("SCT", "118565006", "Volume"), ML, None),
    "mean_hu": (("DCM", "112031", "Attenuation Coefficient"), HU, MEAN),
    "long_axis_mm": (("SCT", "103339001", "Long Axis"), MM, None),
    "short_axis_mm": (("SCT", "103340004", "Short Axis"), MM, None),
    "mean_diameter_mm": (("SCT", "81827009", "Diameter"), MM, MEAN),
}
PLACES = {  # the points that show where a measurement was made
    "long_axis_mm": ("POLYLINE", "long_axis_ras"),
    "short_axis_mm": ("POLYLINE", "short_axis_ras"),
    "mean_diameter_mm": ("POINT", "centroid_ras"),
}
CENTER = ("DCM", "111010", "Center")
PROCEDURE = ("SCT", "77477000", "Computed tomography")
TITLE = ("DCM", "126000", "Imaging Measurement Report")


def write_dicom_sr(
    path: str | Path, seg: str | Path, segments: Sequence[Segment], source: Sequence[Path], model: str
) -> None:
    """Write a measurement report (TID 1500) that refers to a DICOM SEG and to its images.

    It contains volume and mean HU of each segment, and the diameters of nodules. As the group of a region (TID 1411) cannot
    have points, a second group (TID 1501) with the same tracking identifier repeats the diameters with the ends of the axes
    and the centre in the patient (SCOORD3D, LPS, mm).

    Args:
        path: The file; an existing one is replaced once the new one is complete.
        seg: The DICOM SEG of the same segments, from `write_dicom_seg`.
        segments: The segments of the DICOM SEG, in the same order, with measurements; one or more.
        source: The DICOM files of the slices, one for each along K.
        model: Name and version of the bundle.

    Raises:
        FileError: It cannot be written, or the series lacks attributes that an SR needs.
    """
    import highdicom as hd

    with quiet():
        images, written = headers_of(source), pydicom.dcmread(seg)
        try:
            report = hd.sr.Comprehensive3DSR(
                evidence=[*images, written],
                content=_content(segments, written, images, model),
                series_instance_uid=hd.UID(),
                series_number=1001,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                is_complete=True,
                is_final=False,
                is_verified=False,
                specific_character_set="ISO_IR 192",  # as in the SEG
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FileError(
                f"{path} cannot be written: the series lacks attributes that a DICOM SR needs, or contradicts itself"
                f" ({without_patient(str(error), images)}). Leave out sr.dcm."
            ) from error
        report.ManufacturerModelName, report.SoftwareVersions = PROGRAM, __version__
        report.SeriesDescription = f"Measurements by {model}"[:LONGEST]
        with whole_file(path) as beside:
            report.save_as(beside)


def _content(segments: Sequence[Segment], seg: Dataset, images: Sequence[Dataset], model: str) -> Any:
    """The content tree of the report: TID 1500, with a TID 1411 for each segment."""
    import highdicom as hd

    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=hd.UID(), name=PROGRAM, manufacturer_name=MANUFACTURER, model_name=model
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(hd.sr.CodedConcept("121007", "DCM", "Device"), device)
        ),
        procedure_reported=_code(PROCEDURE),
        imaging_measurements=[
            group
            for number, segment in enumerate(segments, start=1)
            for group in _groups(segment, number, seg, images, model)
        ],
        title=_code(TITLE),
    )
    return report[0]


def _groups(segment: Segment, number: int, seg: Dataset, images: Sequence[Dataset], model: str) -> list[Any]:
    """The measurement groups of a segment: for its region and, if it has any, for its points."""
    import highdicom as hd

    codes = codes_of(segment.terminology)
    tracking = hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=segment.name)
    about: dict[str, Any] = {
        "tracking_identifier": tracking,
        "finding_category": codes.category,
        "finding_type": codes.kind,
        "finding_sites": _sites(codes),
        "algorithm_id": hd.sr.AlgorithmIdentification(name=model, version=versions_of(model)),
    }
    reference = hd.sr.ReferencedSegment(
        seg.SOPClassUID,
        seg.SOPInstanceUID,
        number,
        source_series=hd.sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID),
    )
    measured = [key for key in MEASURED if segment.measurements.get(key) is not None]
    groups: list[Any] = [
        hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=reference, measurements=[_measurement(segment, key) for key in measured], **about
        )
    ]
    frame = images[0].FrameOfReferenceUID
    placed = [
        _measurement(segment, key, frame) for key in measured if segment.measurements.get(PLACES.get(key, ("", ""))[1])
    ]
    if placed:
        groups.append(hd.sr.MeasurementsAndQualitativeEvaluations(measurements=placed, **about))
    return groups


def _sites(codes: Codes) -> list[FindingSite] | None:
    """Where a segment lies: its region, with the side. Only a site can have a side, so an organ with a side is its own site."""
    import highdicom as hd
    from pydicom.sr.codedict import codes as known

    modifiers = codes.region_modifier, codes.modifier
    side = next((code for code in modifiers if code and code in known.CID244), None)
    site = codes.region or (codes.kind if side else None)
    return [hd.sr.FindingSite(site, laterality=side)] if site else None


def _measurement(segment: Segment, key: str, frame_of_reference: str | None = None) -> Measurement:
    """A measurement with its unit, and with its points if a frame of reference is given."""
    import highdicom as hd

    name, unit, derivation = MEASURED[key]
    coordinates = None
    if frame_of_reference:
        kind, points = PLACES[key]
        lps = np.atleast_2d(np.array(segment.measurements[points], float)) * [-1, -1, 1]
        purpose: dict[str, Any] = {"purpose": _code(CENTER)} if kind == "POINT" else {}
        coordinates = [hd.sr.CoordinatesForMeasurement3D(kind, lps, frame_of_reference, **purpose)]
    return hd.sr.Measurement(
        name=_code(name),
        value=float(f"{segment.measurements[key]:.9g}"),
        unit=_code(unit),
        derivation=_code(derivation) if derivation else None,
        referenced_coordinates=coordinates,
    )


def _code(scheme_value_meaning: Sequence[str]) -> Code:
    from pydicom.sr.coding import Code

    scheme, value, meaning = scheme_value_meaning
    return Code(value, scheme, meaning)
