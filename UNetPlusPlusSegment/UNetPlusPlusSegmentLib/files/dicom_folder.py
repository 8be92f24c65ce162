"""DICOM folders: the headers of all images in a folder and the folders in it. What would leave a hole in a series is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from .dicom_headers import DIRECTORY_CLASS, Header, class_of, is_dicom, read_header, start_of
from .images import FileError, in_text

PACKED = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")  # as people send scans
SLICE_ENDINGS = (".dcm", ".dicom", ".ima", ".dc3")


def headers_in(folder: Path) -> tuple[list[Header], list[str]]:
    """Read the header of every DICOM image in a folder and the folders in it.

    Returns:
        The headers, in the order of the names, and notes on what was left out.

    Raises:
        FileError: There is no image; a file may not be read; or one that is, or by its name was, a slice is damaged or empty.
    """
    headers: list[Header] = []
    no_images, lost, dead, packed = [], [], [], []
    for path in _files_under(folder):
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
        *_left_out(no_images, "hold no image"),
        *_left_out(dead, "lead nowhere"),
        *_left_out(packed, "are packed"),
    ]


def _refuse_without_images(folder: Path, packed: Sequence[Path]) -> NoReturn:
    if packed:
        raise FileError(
            f"The folder {folder} holds no DICOM image, but packed files, {in_text(packed[0])} for one: unpack them."
        )
    raise FileError(f"The folder {folder} holds no DICOM image: give a folder with a CT series, or a volume file.")


def _left_out(paths: Sequence[Path], why: str) -> list[str]:
    if not paths:
        return []
    more = f" and {len(paths) - 1} more" if paths[1:] else ""
    return [f"Left out, as they {why}: {in_text(paths[0])}{more}."]


def _files_under(folder: Path) -> Iterator[Path]:
    """All files of a folder and the folders in it, in order; a link that leads back is no trap."""
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
    """Refuse files without an image, and links that lead nowhere, which by their names are slices of a series.

    Others, as programs leave them behind (locks, marks that a copy is done), are no loss.
    """
    names = {(header.path.parent, _shape(header.path.name)) for header in headers}
    for path in paths:
        aims = [path.name, path.readlink().name] if path.is_symlink() else [path.name]
        aims += [path.stem] if path.suffix.lower() in PACKED else []
        named_alike = any((path.parent, _shape(name)) in names for name in aims)
        if named_alike or (
            not path.name.startswith(".") and Path(aims[-1]).suffix.lower() in SLICE_ENDINGS and headers
        ):
            what, way_out = _what_is_wrong(path)
            raise FileError(f"{in_text(path)} {what}, so a series would lack a slice: {way_out}, or remove it.")


def _what_is_wrong(path: Path) -> tuple[str, str]:
    """The fault of a file that should be a slice, and what to do with it."""
    if not path.exists():
        return "leads nowhere", "copy it again"
    if not path.stat().st_size:
        return "is empty", "copy it again"
    if path.suffix.lower() in PACKED:
        return "is packed", "unpack it"
    if not start_of(path).strip(b"\0"):
        return "holds nothing but zeros", "copy it again"
    return "is not DICOM, though it is named like a slice", "copy it again"


def _shape(name: str) -> str:
    """A name without what tells the slices of a series apart: its figures, also hexadecimal ones."""
    return re.sub(r"[0-9a-f]*[0-9][0-9a-f]*", "0", name.lower())
