"""Fingerprints: whether the scan, or the result, under a name is still the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from .detached import data_files_of
from .dicom_folder import files_under, shape_of
from .dicom_headers import DIRECTORY_CLASS, DamagedFileError, class_of, is_dicom, read_header, start_of
from .images import FileError

# Before the digits, to tell fingerprints from those of earlier formulas. Whatever changes which digits a scan gets needs another one.
FORMULA = "2:"
BLOCKS, BLOCK_BYTES = 32, 1 << 13
# The families of SOP classes of what is made from a scan and stored beside it: presentation states, segmentations and registrations,
# reports, documents, and what radiotherapy plans. To read whole headers of these takes seconds.
BESIDE = tuple(f"1.2.840.10008.5.1.4.1.1.{family}." for family in (11, 66, 88, 104, 481))


def fingerprint_of(path: Path, besides: Path | None = None) -> str | None:
    """A fingerprint of a scan, or of another file, which its copies share: `FORMULA` and 16 hexadecimal digits.

    It is made of the sizes of the files and of blocks from all parts of them. Of the slices in a DICOM folder, whose names count too, and
    of the files that a header lists, only the first and the middle one are opened: to open them all takes minutes for a cohort on a
    network drive. What lies in a folder `besides` within a DICOM folder does not count, nor does what is no slice, unless it is named
    like the slices.

    Returns:
        None if it cannot be read, or if its slices or voxels are not there, as without their drive.
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
        if not chosen:
            return None
        for each in chosen:
            for block in _blocks(each):
                digest.update(block)
    except (OSError, FileError):
        return None
    return FORMULA + digest.hexdigest()[:16]


def fingerprints_differ(one: str | None, other: str | None) -> bool:
    """True if two fingerprints are certainly those of different files; False also if one is unknown, or of an earlier formula."""
    return one != other and all((each or "").startswith(FORMULA) for each in (one, other))


def _slices(folder: Path, besides: Path | None) -> list[Path]:
    """The slices in a folder; of the files in one place that are named alike, the first and the middle one stand for all."""
    top, away = folder.resolve(), besides and besides.resolve()
    aside = folder / away.relative_to(top) if away and top in away.parents else None
    alike: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in files_under(folder):
        if aside not in path.parents:
            alike[path.parent, shape_of(path.name)].append(path)
    return [path for paths in alike.values() if any(map(_is_slice, _two_of(paths))) for path in paths]


def _is_slice(path: Path) -> bool:
    """Whether a file is a DICOM image that may belong to a scan, or is damaged and may have been one."""
    if not (path.is_file() and is_dicom(start_of(path))) or class_of(path).startswith((DIRECTORY_CLASS, *BESIDE)):
        return False
    try:
        return read_header(path) is not None
    except DamagedFileError:
        return True


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
