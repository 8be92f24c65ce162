"""DICOM SEG: a segmentation as archives keep it, beside the series it was made from. With highdicom, where that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.segment import Segment
from .images import FileError
from .writing import whole_file

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

ENDING = ".dcm"


def check_dicom_seg() -> None:
    """Refuse, before time is spent, where no DICOM SEG can be written.

    Raises:
        FileError: highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise FileError(
            "A DICOM SEG is written with highdicom, which is not installed: pip install highdicom, or write .seg.nrrd."
        ) from error


def write_dicom_seg(
    path: str | Path, labelmap: np.ndarray, segments: Sequence[Segment], source: Sequence[Path], model: str
) -> None:
    """Write a binary DICOM SEG that refers to the series it was made from; Slicer's Quantitative Reporting and archives read it.

    Args:
        path: The file; what it held is replaced when the new one is whole.
        labelmap: uint8 (K, J, I), 0 where there is no segment.
        segments: One or more; DICOM knows no segmentation without any. One may be empty.
        source: The DICOM files of the slices, one for each along K.
        model: Name of the bundle, with its version.

    Raises:
        FileError: It cannot be written, or a file of the series lacks what a SEG takes from it.
    """
    import highdicom as hd
    import pydicom
    from pydicom.sr.coding import Code

    by_model = hd.AlgorithmIdentificationSequence(
        model, Code("123110", "DCM", "Artificial Intelligence"), model.rpartition("-v")[2]
    )
    numbered = np.zeros_like(labelmap)
    descriptions = []
    for number, segment in enumerate(segments, start=1):
        numbered[labelmap == segment.value] = number
        category, kind = _codes(segment.terminology)
        color = hd.color.CIELabColor.from_rgb(*segment.color)
        descriptions.append(
            hd.seg.SegmentDescription(number, segment.name, category, kind, "AUTOMATIC", by_model, display_color=color)
        )
    try:
        written = hd.seg.Segmentation(
            [pydicom.dcmread(file, stop_before_pixels=True) for file in source],
            numbered,
            "BINARY",
            descriptions,
            series_instance_uid=hd.UID(),
            series_number=1000,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="UNetPlusPlusSegment",
            manufacturer_model_name=model,
            software_versions=model,
            device_serial_number="none",
            content_description="Research only, not for clinical use",
            omit_empty_frames=bool(numbered.any()),
        )
    except (AttributeError, ValueError) as error:
        raise FileError(
            f"{path} cannot be written: the series lacks what a DICOM SEG takes from it ({error}). Write .seg.nrrd instead."
        ) from error
    with whole_file(path) as beside:
        written.save_as(beside)


def _codes(terminology: str) -> tuple[Code, Code]:
    """Category and type of Slicer's seven-part string."""
    from pydicom.sr.coding import Code

    category, kind = (part.split("^") for part in terminology.split("~")[1:3])
    return Code(category[1], category[0], category[2]), Code(kind[1], kind[0], kind[2])
