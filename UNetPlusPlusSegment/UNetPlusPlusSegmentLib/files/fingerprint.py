"""Fingerprints: whether the scan, or the result, under a name is still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from .detached import data_files_of
from .dicom_folder import files_under, shape_of
from .dicom_headers import is_dicom, start_of
from .images import FileError

BLOCKS, BLOCK_BYTES = 32, 1 << 13


def fingerprint_of(path: Path, besides: Path | None = None) -> str | None:
    """A fingerprint of a scan, or of another file, which its copies share: 16 hexadecimal digits; None if it cannot be read.

    It is made of the sizes of the files and of blocks from all parts of them. Of the slices in a DICOM folder, whose names count too, and
    of the files that a header lists, only the first and the middle one are opened: to open them all takes minutes for a cohort on a
    network drive. What is no slice in a DICOM folder, or lies in the folder `besides`, does not count.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            slices = _slices(path, besides)
            names = "\n".join(each.relative_to(path).as_posix() for each in slices)
            digest.update(names.encode("utf-8", "surrogateescape"))
            chosen = _two_of(slices)
        else:
            chosen = [path, *_two_of(data_files_of(path))]
        for each in chosen:
            for block in _blocks(each):
                digest.update(block)
    except (OSError, FileError):
        return None
    return digest.hexdigest()[:16]


def _slices(folder: Path, besides: Path | None) -> list[Path]:
    """The DICOM files in a folder; of those in one place that are named alike, the first one stands for all."""
    top, away = folder.resolve(), besides and besides.resolve()
    aside = folder / away.relative_to(top) if away and away.is_relative_to(top) else None
    found: list[Path] = []
    are_slices: dict[tuple[Path, str], bool] = {}
    for path in files_under(folder):
        if aside in path.parents:
            continue
        alike = path.parent, shape_of(path.name)
        if alike not in are_slices:
            are_slices[alike] = path.is_file() and is_dicom(start_of(path))
        if are_slices[alike]:
            found.append(path)
    return found


def _two_of(paths: Sequence[Path]) -> Sequence[Path]:
    """The first and the middle one."""
    return paths[:: max(1, len(paths) // 2)][:2]


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    yield size.to_bytes(8, "little")
    with path.open("rb") as stream:
        for number in range(BLOCKS):
            stream.seek(max(0, size - BLOCK_BYTES) * number // (BLOCKS - 1))
            yield stream.read(BLOCK_BYTES)
