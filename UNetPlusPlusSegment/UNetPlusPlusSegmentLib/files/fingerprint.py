"""Fingerprints of scans: whether the one under a name is still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from .detached import named_in, pair_of
from .dicom_folder import files_under
from .images import FileError

BLOCK_BYTES = 1 << 16


def fingerprint_of(path: Path, besides: Path) -> str | None:
    """A fingerprint of a scan, which its copies share: 16 hexadecimal digits; None if it cannot be read.

    It is made of the sizes of its files, and of blocks at the start and in the middle of each. Of a DICOM folder, only the names of the
    files count, and the first and the middle one: opening them all takes minutes for a cohort on a network drive. What lies in the
    folder `besides`, or is hidden, does not count.
    """
    path, besides = path.resolve(), besides.resolve()
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            there = [
                each for each in files_under(path) if not each.name.startswith(".") and besides not in each.parents
            ]
            names = "\n".join(each.relative_to(path).as_posix() for each in there)
            digest.update(names.encode("utf-8", "surrogateescape"))
            chosen: Sequence[Path] = there[:: max(1, len(there) // 2)][:2]
        else:
            chosen = [path, *_detached(path)]
        for each in chosen:
            for block in _blocks(each):
                digest.update(block)
    except (OSError, FileError):
        return None
    return digest.hexdigest()[:16]


def _detached(path: Path) -> list[Path]:
    """The files, besides this one, that hold voxels of the volume; of a list or a pattern of names, none."""
    try:
        may_be = [*pair_of(path), *(path.parent / name for name in named_in(path))]
    except FileError:  # reading the scan says what is wrong with its header
        return []
    return [each for each in may_be if each != path and each.is_file()]


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    yield size.to_bytes(8, "little")
    with path.open("rb") as stream:
        yield stream.read(BLOCK_BYTES)
        stream.seek(size // 2)
        yield stream.read(BLOCK_BYTES)
