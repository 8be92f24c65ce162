"""Reads LIDC-IDRI as it is downloaded: the readers' outlines (XML) and the DICOM series on which they were drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from slicefolder import PrepareError

READERS = 4  # per scan


@dataclass(frozen=True)
class Outline:
    """One closed line that a reader drew on a slice.

    Attributes:
        image: SOP Instance UID of the slice.
        points: Columns and rows of its pixels, shape (N, 2), in drawing order.
        inclusion: True if the enclosed area belongs to the nodule, False if it is a hole.
    """

    image: str
    points: np.ndarray
    inclusion: bool


@dataclass(frozen=True)
class Reading:
    """All nodules of at least 3 mm in one XML file.

    Attributes:
        path: The file.
        series: UID of the series that was read.
        nodules: For each nodule that a reader marked, the number of that reader and the outlines.
    """

    path: Path
    series: str
    nodules: list[tuple[int, list[Outline]]]


@dataclass(frozen=True)
class Series:
    """One CT series.

    Attributes:
        folder: The folder of its files.
        patient: Its PatientID.
        positions: Position of each image in mm, LPS, by SOP Instance UID.
        duplicates: Files at a position that a file with a lower instance number has too; some scans of LIDC-IDRI have these.
    """

    folder: Path
    patient: str
    positions: dict[str, np.ndarray]
    duplicates: frozenset[Path]


def find_scans(source: Path) -> list[tuple[Reading, Series]]:
    """All readings under a folder, each with its series, sorted by patient.

    Raises:
        PrepareError: There are no readings, one is damaged or duplicated, or its series is missing or incomplete.
    """
    readings = [reading for path in sorted(source.rglob("*.xml")) if (reading := read_xml(path))]
    if not readings:
        raise PrepareError(f"{source} holds no XML file of LIDC-IDRI readings: download the annotations too.")
    folders = _folders_by_series(source)
    seen: dict[str, Path] = {}
    scans = []
    for reading in readings:
        other = seen.setdefault(reading.series, reading.path)
        if other != reading.path:
            raise PrepareError(f"{other} and {reading.path} are readings of the same series: remove one of them.")
        if reading.series not in folders:
            raise PrepareError(
                f"{reading.path} is a reading of series {reading.series}, whose images are not in {source}:"
                " add them, or remove the file."
            )
        series = _read_series(folders[reading.series], reading.series)
        for outline in (outline for _, outlines in reading.nodules for outline in outlines):
            if outline.image not in series.positions:
                raise PrepareError(
                    f"{reading.path} marks image {outline.image}, which is missing from {series.folder}: add it."
                )
        scans.append((reading, series))
    return sorted(scans, key=lambda scan: (scan[1].patient, str(scan[0].path)))


def read_xml(path: Path) -> Reading | None:
    """The readings in an XML file; None if it is not a CT reading (LIDC-IDRI also has chest radiographs).

    Of the two reading rounds, only the second (unblindedReadNodule) is used. Nodules below 3 mm, which are marked by a
    single point, and findings that are not nodules (nonNodule) are left out.

    Raises:
        PrepareError: The file is damaged, or has more readers than LIDC-IDRI has.
    """
    try:
        root = ET.parse(path).getroot()
    except (ET.ParseError, OSError) as error:
        raise PrepareError(f"{path} cannot be read as XML ({error}): download it again.") from error
    if not root.tag.endswith("LidcReadMessage"):
        return None
    sessions = root.findall("{*}readingSession")
    if len(sessions) > READERS:
        raise PrepareError(f"{path} holds {len(sessions)} reading sessions; LIDC-IDRI has {READERS} readers.")
    try:
        series = _text(root, "{*}ResponseHeader/{*}SeriesInstanceUid")
        nodules = [(reader, outlines) for reader, session in enumerate(sessions) for outlines in _nodules(session)]
    except ValueError as error:
        raise PrepareError(f"{path} is not a complete reading of LIDC-IDRI ({error}): download it again.") from error
    return Reading(path, series, nodules)


def _nodules(session: ET.Element) -> Iterator[list[Outline]]:
    """The outlines of each nodule of at least 3 mm that one reader marked."""
    for nodule in session.findall("{*}unblindedReadNodule"):
        outlines = [_outline(roi) for roi in nodule.findall("{*}roi")]
        if any(len(outline.points) > 1 for outline in outlines):
            yield outlines


def _outline(roi: ET.Element) -> Outline:
    points = [(int(_text(edge, "{*}xCoord")), int(_text(edge, "{*}yCoord"))) for edge in roi.findall("{*}edgeMap")]
    inclusion = _text(roi, "{*}inclusion").upper()
    if inclusion not in ("TRUE", "FALSE") or not points:
        raise ValueError(f"a roi with {len(points)} points and inclusion {inclusion}")
    return Outline(_text(roi, "{*}imageSOP_UID"), np.array(points), inclusion == "TRUE")


def _text(element: ET.Element, path: str) -> str:
    found = (element.findtext(path) or "").strip()
    if not found:
        raise ValueError(f"no {path.replace('{*}', '')} in {element.tag.rpartition('}')[2]}")
    return found


def _folders_by_series(source: Path) -> dict[str, Path]:
    """The folder of each series, found from one image per folder."""
    folders: dict[str, Path] = {}
    for folder in sorted({path.parent for path in source.rglob("*.dcm")}):
        folders.setdefault(str(_header(min(folder.glob("*.dcm"))).SeriesInstanceUID), folder)
    return folders


def _read_series(folder: Path, uid: str) -> Series:
    headers = [header for path in sorted(folder.glob("*.dcm")) if (header := _header(path)).SeriesInstanceUID == uid]
    positions, seen, duplicates = {}, set(), set()
    for header in sorted(headers, key=lambda header: int(header.get("InstanceNumber") or 0)):
        place = header.get("ImagePositionPatient")
        if place is None:
            raise PrepareError(
                f"{header.filename} does not say where its slice lies (it has no ImagePositionPatient): download it again."
            )
        positions[str(header.SOPInstanceUID)] = np.array(place, float)
        if tuple(place) in seen:
            duplicates.add(Path(header.filename))
        seen.add(tuple(place))
    return Series(folder, str(headers[0].PatientID), positions, frozenset(duplicates))


def _header(path: Path) -> pydicom.Dataset:
    needed = ["SeriesInstanceUID", "SOPInstanceUID", "PatientID"]
    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=[*needed, "ImagePositionPatient", "InstanceNumber"]
        )
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise PrepareError(f"{path} cannot be read as DICOM ({error}): download it again.") from error
    for tag in needed:
        if tag not in header:
            raise PrepareError(f"{path} has no {tag}: download it again.")
    return header
