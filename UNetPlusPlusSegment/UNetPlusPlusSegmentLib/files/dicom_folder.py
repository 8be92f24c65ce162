"""DICOM folders: the headers of all images in a folder and its subfolders. Refuses files that would leave a gap in a series."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from .dicom_headers import DIRECTORY_CLASS, Header, class_of, is_dicom, read_header, start_of
from .images import FileError, printable

PACKED = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # as people send scans
SLICE_ENDINGS = (".dcm", ".dicom", ".ima", ".dc3")


def headers_in(folder: Path) -> tuple[list[Header], list[str]]:
    """Read the header of every DICOM image in a folder and its subfolders.

    Returns:
        The headers, in the order of the file names, and notes on files that were left out.

    Raises:
        FileError: There is no image; a file cannot be read; or a file that is a slice, or is named like one, is damaged or empty.
    """
    headers: list[Header] = []
    no_images, lost, dead, packed = [], [], [], []
    for path in files_under(folder):
        if not path.is_file():
            dead += [path] if path.is_symlink() else []
            continue
        start = start_of(path)
        if not start.strip(b"\0"):
            lost.append(path)
        elif is_dicom(start):
            header = read_header(path)
            if header is not None:
                headers.append(header)
            elif path.name.upper() != "DICOMDIR" and class_of(path) != DIRECTORY_CLASS:
                no_images.append(path)
        elif path.suffix.lower() in PACKED:
            packed.append(path)
        else:
            lost.append(path)
    _check_none_lost([*lost, *dead, *packed], headers)
    if not headers:
        _refuse_without_images(folder, packed)
    return headers, [
        *_left_out(no_images, "not an image"),
        *_left_out(dead, "a broken link"),
        *_left_out(packed, "an archive"),
    ]


def _refuse_without_images(folder: Path, packed: Sequence[Path]) -> NoReturn:
    if packed:
        raise FileError(
            f"The folder {folder} contains no DICOM images, but archives such as {printable(packed[0])}: unpack them first."
        )
    raise FileError(f"The folder {folder} contains no DICOM images: give a folder with a CT series, or a volume file.")


def _left_out(paths: Sequence[Path], why: str) -> list[str]:
    if not paths:
        return []
    more = f", and {len(paths) - 1} more like it" if paths[1:] else ""
    return [f"Left out: {printable(paths[0])} ({why}){more}."]


def files_under(folder: Path) -> Iterator[Path]:
    """All files in a folder and its subfolders, in order; circular links are followed only once."""
    visited = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if os.path.realpath(place) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(place))
        folders.sort()
        yield from (Path(place, name) for name in sorted(names))


def _refuse(error: OSError) -> None:
    raise FileError(
        f"{error.filename} cannot be read ({error.strerror}), so a series may lack slices: make it readable, or remove it."
    ) from error


def _check_none_lost(paths: Sequence[Path], headers: Sequence[Header]) -> None:
    """Refuse files without an image, and broken links, that are named like the slices of a series.

    Other files, such as locks and markers left by programs, do not matter.
    """
    names = {(header.path.parent, shape_of(header.path.name)) for header in headers}
    for path in paths:
        aims = [path.name, path.readlink().name] if path.is_symlink() else [path.name]
        aims += [path.stem] if path.suffix.lower() in PACKED else []
        named_alike = any((path.parent, shape_of(name)) in names for name in aims)
        if named_alike or (
            not path.name.startswith(".") and Path(aims[-1]).suffix.lower() in SLICE_ENDINGS and headers
        ):
            what, way_out = _what_is_wrong(path)
            raise FileError(f"{printable(path)} {what}, so a series would lack a slice: {way_out}, or remove it.")


def _what_is_wrong(path: Path) -> tuple[str, str]:
    """What is wrong with a file that should be a slice, and what to do about it."""
    if not path.exists():
        return "is a broken link", "copy it again"
    if not path.stat().st_size:
        return "is empty", "copy it again"
    if path.suffix.lower() in PACKED:
        return "is an archive", "unpack it"
    if not start_of(path).strip(b"\0"):
        return "contains only zeros", "copy it again"
    return "is not DICOM, though it is named like a slice", "copy it again"


def shape_of(name: str) -> str:
    """A name with its numbers, also hexadecimal ones, replaced by 0, so that slices of a series get the same name."""
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "0", name.lower())
