"""Fingerprints of scans: whether the one under a name is still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from .dicom_folder import files_under
from .images import FileError

BLOCK_BYTES = 1 << 16
DETACHED = (".raw", ".raw.gz", ".zraw", ".img", ".img.gz")  # voxels of which the header is another file


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
            stem = path.with_suffix("")
            chosen = [path, *(each for ending in DETACHED if (each := stem.with_name(stem.name + ending)).is_file())]
        for each in chosen:
            for block in _blocks(each):
                digest.update(block)
    except (OSError, FileError):
        return None
    return digest.hexdigest()[:16]


def _blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    yield size.to_bytes(8, "little")
    with path.open("rb") as stream:
        yield stream.read(BLOCK_BYTES)
        stream.seek(size // 2)
        yield stream.read(BLOCK_BYTES)
