"""Corrections: segmentations of a cohort that people have edited, saved next to the original ones and measured. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..core.masks import measure
from ..core.segment import Segment
from ..core.volume import Volume, clean_hu
from ..network.card import NODULE
from ..nodule.measurements import measure_nodule
from ..nodule.segments import TERMINOLOGY
from .manifest import append, write_table

CORRECTED = ".corrected"  # between the name of a case and the ending of its result
KEPT = ("input", "scan", "series", "target", "model", "speed", "threshold", "force")


def corrected_path(folder: Path, case: str) -> Path:
    """The file of a corrected segmentation; it may not exist."""
    return folder / f"{case}{CORRECTED}.seg.nrrd"


def segmentation_path(folder: Path, case: str) -> Path:
    """The segmentation to show for a case: the corrected one if there is one, else the original; it may not exist."""
    corrected = corrected_path(folder, case)
    return corrected if corrected.is_file() else folder / f"{case}.seg.nrrd"


def add_correction(
    folder: Path, record: Mapping[str, Any], volume: Volume, labelmap: np.ndarray, segments: Sequence[Segment]
) -> dict[str, Any]:
    """Measure a corrected segmentation, which is saved as `corrected_path`, and add it to the manifest and the table.

    Args:
        folder: Folder with the results of the cohort.
        record: The manifest line of the case.
        volume: The CT in HU.
        labelmap: uint8 (K, J, I) on the volume's voxels.
        segments: One for each value; their measurements are ignored.

    Returns:
        The manifest line of the correction, whose case is called `<case>.corrected`.

    Raises:
        FileError, CohortError: They cannot be written.
    """
    case = record["case"]
    hu = Volume(clean_hu(volume.array)[0], volume.ijk_to_ras)
    measurements = {}
    for name, segment in zip(names_of(segments), segments, strict=True):
        mask = labelmap == segment.value
        measurements[name] = measure(mask, hu) | measured_as_nodule(segment, mask, hu, record.get("target"))
    line = {
        "case": f"{case}{CORRECTED}",
        "corrects": case,
        **{key: record.get(key) for key in KEPT},
        "status": "corrected",
        "measurements": measurements,
        "version": __version__,
    }
    append(folder, line)
    write_table(folder)
    return line


def names_of(segments: Sequence[Segment]) -> list[str]:
    """The names of segments in the table, which tells those that are called alike apart: `Tumour` and `Tumour (2)`."""
    names: list[str] = []
    for segment in segments:
        name, number = segment.name, 1
        while name in names:
            number += 1
            name = f"{segment.name} ({number})"
        names.append(name)
    return names


def measured_as_nodule(segment: Segment, mask: np.ndarray, volume: Volume, target: str | None) -> dict[str, Any]:
    """What is measured of nodules alone, if a segment is one: by its term, or because nothing else was looked for.

    Args:
        segment: The segment, as it was corrected or drawn.
        mask: bool (K, J, I), its voxels.
        volume: The CT in HU, without padding.
        target: The target of the cohort; None if there is none.
    """
    is_nodule = target == NODULE or _type_in(segment.terminology) == _type_in(TERMINOLOGY)
    found = measure_nodule(mask, volume) if is_nodule else None
    return asdict(found) if found else {}


def _type_in(terminology: str) -> str:
    """The type in one of Slicer's terminology strings, without the category and the place, which a user may choose otherwise."""
    return "".join(terminology.split("~")[2:3])
