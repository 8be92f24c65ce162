"""Forms: writes one segmentation in several file formats at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..core.segment import Segment
from .dicom_seg import check_dicom_seg, write_dicom_seg
from .dicom_sr import write_dicom_sr
from .surfaces import check_surfaces, write_surfaces
from .writing import check_grid, write_segmentation

FORMS = ("seg.nrrd", "nii.gz", "dcm", "sr.dcm", "stl", "obj")  # in the order in which they are written
SURFACES, DICOM = ("stl", "obj"), ("dcm", "sr.dcm")


def form_of(path: str | Path) -> str:
    """The form that the ending of a file name stands for; empty if it is unknown."""
    name = str(path).lower()
    return next((form for form in sorted(FORMS, key=len, reverse=True) if name.endswith(f".{form}")), "")


def beside(path: Path, forms: Iterable[str] = ()) -> list[Path]:
    """A file and its siblings in other forms, in the order of `FORMS`; an SR brings the SEG that it refers to."""
    own = form_of(path)
    if not own:
        return [path]  # an unknown ending, which `check_output` will refuse
    stem = path.name[: len(path.name) - len(own)]
    wanted = {own, *forms} | ({"dcm"} if "sr.dcm" in {own, *forms} else set())
    return [path if form == own else path.with_name(stem + form) for form in FORMS if form in wanted]


def check_forms(paths: Iterable[str | Path], source: Sequence[Path] = ()) -> None:
    """Refuse, before time is spent, a form that cannot be written.

    Args:
        paths: The files to write.
        source: The DICOM files of the slices that a SEG and an SR will refer to.

    Raises:
        FileError: The package for a form is not installed, or the series lacks what a SEG or SR needs.
    """
    forms = {form_of(path) for path in paths}
    if forms & {*SURFACES}:
        check_surfaces()
    if forms & {*DICOM}:
        check_dicom_seg(source)


def write_forms(
    paths: Sequence[Path],
    labelmap: np.ndarray,
    ijk_to_ras: np.ndarray,
    segments: Sequence[Segment],
    source: Sequence[Path],
    model: str,
    nothing: Sequence[Segment] = (),
) -> None:
    """Write a segmentation to each file, in the form that its name stands for.

    Args:
        paths: From `beside`; an existing file is replaced once the new one is complete.
        labelmap: uint8 (K, J, I), 0 where there is no segment.
        ijk_to_ras: 4 × 4, in mm.
        segments: One for each value of the label map.
        source: The DICOM files of the slices that a SEG and an SR refer to, one for each along K.
        model: Name of the bundle, with its version.
        nothing: Empty segments to write in a SEG and an SR if nothing was found, as both need at least one segment.

    Raises:
        FileError: One cannot be written.
    """
    for path in paths:
        check_grid(path, ijk_to_ras)
    for path in paths:
        form = form_of(path)
        if form == "dcm":
            write_dicom_seg(path, labelmap, segments or nothing, source, model)
        elif form == "sr.dcm":
            seg = next(each for each in paths if form_of(each) == "dcm")
            write_dicom_sr(path, seg, segments or nothing, source, model)
        elif form in SURFACES:
            write_surfaces(path, labelmap, ijk_to_ras, segments)
        else:
            write_segmentation(path, labelmap, ijk_to_ras, segments)
