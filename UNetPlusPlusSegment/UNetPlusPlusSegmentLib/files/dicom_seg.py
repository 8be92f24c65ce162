"""DICOM SEG: writes segmentations as archives store them, with a reference to their series. Needs highdicom."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.valuerep import DA, DS, TM

from .. import __version__
from ..core.segment import Segment
from .frames import frames_of, order_of
from .geometry import GUESSED_MM
from .images import FileError, quiet
from .writing import whole_file

if TYPE_CHECKING:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.coding import Code

MANUFACTURER, PROGRAM = "UNetPlusPlusSegment contributors", "UNetPlusPlusSegment"
LONGEST = 64  # characters in a DICOM string; the names of several models may be longer
# Attributes that a SEG copies from the series and that may be empty (type 2).
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "StudyDate", "StudyTime",
)  # fmt: skip
TISSUE = "~SCT^123037004^Anatomical Structure~SCT^85756007^Tissue"
TRIAL = Segment(1, "Trial", TISSUE, (0, 0, 0), {})


class Codes(NamedTuple):
    """What a segment is and where it lies; None for what is not given."""

    category: Code
    kind: Code
    modifier: Code | None  # of the kind, such as the side of a kidney
    region: Code | None
    region_modifier: Code | None


def check_dicom_seg(source: Sequence[Path] = ()) -> None:
    """Refuse, before time is spent, if no DICOM SEG can be written.

    Args:
        source: The DICOM files of the slices that it will refer to, as `slices_of` gives them.

    Raises:
        FileError: highdicom is not installed, or the series lacks attributes that a SEG needs.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise FileError(
            "Writing a DICOM SEG needs highdicom, which is not installed: pip install highdicom, or write .seg.nrrd."
        ) from error
    if source:
        images = headers_of(source)
        labelmap = np.zeros((len(source), images[0].Rows, images[0].Columns), np.uint8)
        labelmap[0, 0, 0] = 1  # if one frame can be written, all can
        _segmentation("The DICOM SEG", labelmap, [TRIAL], images, "trial-v0")


def write_dicom_seg(
    path: str | Path, labelmap: np.ndarray, segments: Sequence[Segment], source: Sequence[Path], model: str | None
) -> None:
    """Write a binary DICOM SEG that refers to its series, for archives and Slicer's Quantitative Reporting.

    Attributes that the series lacks and DICOM allows to be empty are written empty, and so are invalid dates and times.

    Args:
        path: The file; an existing one is replaced once the new one is complete.
        labelmap: uint8 (K, J, I), 0 where there is no segment.
        segments: One or more, as DICOM requires; they may be empty.
        source: The DICOM files of the slices, one for each along K, as `slices_of` gives them.
        model: Name and version of the bundle; several are separated by commas. None for segments that people may have drawn or
            corrected: they are written as made semiautomatically.

    Raises:
        FileError: It cannot be written, or the series lacks attributes that a SEG needs.
    """
    if len(set(source)) == 1 < len(source):  # a multi-frame file, whose frames may be stored in any order
        labelmap = labelmap[np.argsort(order_of(frames_of(source[0])))]
    written = _segmentation(str(path), labelmap, segments, headers_of(source), model)
    with whole_file(path) as beside, quiet():
        written.save_as(beside)


def headers_of(source: Sequence[Path]) -> list[Dataset]:
    """The headers of the files, with the attributes that a SEG and an SR need, empty if missing or invalid."""
    images: list[Dataset] = []
    with quiet():
        for file in dict.fromkeys(source):
            image = pydicom.dcmread(file, stop_before_pixels=True, force=True)  # some archives omit the preamble
            image.decode()  # as the SEG is written in UTF-8
            for keyword in MAY_BE_EMPTY:
                if keyword not in image or not _makes_sense(keyword, str(image.get(keyword) or "")):
                    setattr(image, keyword, "")
            if not image.get("SOPClassUID"):
                image.SOPClassUID = image.file_meta.get("MediaStorageSOPClassUID", "")
            images.append(image)
    return images


def _makes_sense(keyword: str, value: str) -> bool:
    """True if a value may be copied: dates, times and sex are often written in forms that DICOM does not allow."""
    if keyword == "PatientSex":
        return value in ("M", "F", "O")
    kind = DA if keyword.endswith("Date") else TM if keyword.endswith("Time") else str
    try:
        kind(value)
    except ValueError:
        return False
    return True


def _segmentation(
    name: str, labelmap: np.ndarray, segments: Sequence[Segment], images: Sequence[Dataset], model: str | None
) -> Segmentation:
    import highdicom as hd

    made = _made_by(model)
    numbered = np.zeros_like(labelmap)
    descriptions = []
    for number, segment in enumerate(segments, start=1):
        numbered[labelmap == segment.value] = number
        descriptions.append(_description(number, segment, made))
    try:
        with quiet():
            _fill_in_thickness(images)
            return hd.seg.Segmentation(
                images,
                numbered,
                "BINARY",
                descriptions,
                series_instance_uid=hd.UID(),
                series_number=1000,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=MANUFACTURER,
                manufacturer_model_name=PROGRAM,
                software_versions=__version__,
                series_description=made.series[:LONGEST],
                specific_character_set="ISO_IR 192",  # highdicom refuses multiple character sets, as in series from Japan or Korea
                device_serial_number="none",
                content_description="Research only, not for clinical use",
                omit_empty_frames=bool(numbered.any()),
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{name} cannot be written: the series lacks attributes that a DICOM SEG needs, or contradicts itself"
            f" ({without_patient(str(error), images)}). Write .seg.nrrd instead."
        ) from error


def _fill_in_thickness(images: Sequence[Dataset]) -> None:
    """Make slices that do not say how thick they are as thick as they are apart: a SEG must say it, a series need not."""
    measures = plane = images[0]
    places = images
    if frames := images[0].get("PerFrameFunctionalGroupsSequence"):
        shared = images[0].SharedFunctionalGroupsSequence[0]
        measures, plane = shared.PixelMeasuresSequence[0], shared.PlaneOrientationSequence[0]
        places = [frame.PlanePositionSequence[0] for frame in frames]
    if measures.get("SliceThickness") is None:
        normal = np.cross(*np.reshape(plane.ImageOrientationPatient, (2, 3)))
        span_mm = float(np.ptp(np.array([place.ImagePositionPatient for place in places]) @ normal))
        measures.SliceThickness = DS(span_mm / max(len(places) - 1, 1) or GUESSED_MM, auto_format=True)


class _Made(NamedTuple):
    """How segments were made, in DICOM's words."""

    series: str  # its description
    kind: str
    algorithm: AlgorithmIdentificationSequence


def _made_by(model: str | None) -> _Made:
    import highdicom as hd
    from pydicom.sr.coding import Code

    if model is None:
        family = Code("123109", "DCM", "Manual Processing")
        algorithm = hd.AlgorithmIdentificationSequence(PROGRAM, family, __version__)
        return _Made("Segmentation edited by hand", "SEMIAUTOMATIC", algorithm)
    family = Code("123110", "DCM", "Artificial Intelligence")
    algorithm = hd.AlgorithmIdentificationSequence(model[:LONGEST], family, versions_of(model)[:LONGEST])
    return _Made(f"Segmentation by {model}", "AUTOMATIC", algorithm)


def versions_of(model: str) -> str:
    """The versions in the names of one or several models; a model of one's own may have none."""
    return ", ".join(re.findall(r"-v(\d+\.\d+\.\d+)(?=, |$)", model)) or "unknown"


def _description(number: int, segment: Segment, made: _Made) -> SegmentDescription:
    """The description of a segment; highdicom leaves out modifiers, which belong in the item that they modify (PS3.3 C.8.20.4)."""
    import highdicom as hd

    codes = codes_of(segment.terminology)
    description = hd.seg.SegmentDescription(
        number,
        segment.name,
        codes.category,
        codes.kind,
        made.kind,
        made.algorithm,
        anatomic_regions=[codes.region] if codes.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*segment.color),
    )
    if codes.modifier:
        modifiers = [hd.sr.CodedConcept.from_code(codes.modifier)]
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifiers
    if codes.region and codes.region_modifier:
        modifiers = [hd.sr.CodedConcept.from_code(codes.region_modifier)]
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = modifiers
    return description


def without_patient(text: str, images: Sequence[Dataset]) -> str:
    """A message of highdicom without the patient data that it may quote."""
    keywords = {*MAY_BE_EMPTY} - {"PatientSex"}  # a single letter, which tells nobody who it is
    about = {str(image.get(keyword)) for image in images for keyword in keywords if image.get(keyword)}
    for value in sorted(about, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "…", text)
    return " ".join(text.split())


def codes_of(terminology: str) -> Codes:
    """The codes in Slicer's seven-part terminology string; those of a tissue if it lacks category or type."""
    parts = [*terminology.split("~"), *[""] * 7]
    category, kind, modifier, region, region_modifier = (_code_of(parts[index]) for index in (1, 2, 3, 5, 6))
    if category is None or kind is None:
        category, kind, modifier, *_ = codes_of(TISSUE)
    return Codes(category, kind, modifier, region, region_modifier)


def _code_of(part: str) -> Code | None:
    """The code in a part of a terminology string; None if it is incomplete."""
    from pydicom.sr.coding import Code

    found = part.split("^")
    if len(found) != 3 or not all(found):
        return None
    scheme, value, meaning = found
    return Code(value, scheme, meaning[:LONGEST])
