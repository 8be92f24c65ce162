"""Detached voxels: the files, besides the one that is named, from which a volume is read."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from .images import FileError
from .nifti import IMAGE_ENDINGS
from .reading import volume_ending

HEADER_BYTES = 1 << 20
DATA_FILE = {
    "nrrd": re.compile(rb"^[ \t]*data ?file[ \t]*:[ \t]*([^\n]*)", re.IGNORECASE | re.MULTILINE),
    "meta": re.compile(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\n]*)", re.IGNORECASE | re.MULTILINE),
}
NUMBER = re.compile(r"%[-+#.0-9]*[a-z]")  # as `printf` writes one


def data_files_of(path: Path) -> list[Path]:
    """The files, besides this one, that may hold voxels of a volume and are there; none if its header is damaged.

    Raises:
        FileError: The voxels are in other files, and none of these is there.
    """
    try:
        names = named_in(path)
    except FileError:
        return []
    may_be = pair_of(path)
    for name in names:
        may_be.append(path.parent / name)  # also `list of.raw` and `50% dose.raw`
        if name.strip().upper().startswith("LIST"):
            may_be += [path.parent / line.strip() for line in _text(_start_of(path)).splitlines()]
        elif "%" in name:  # the first and last number, and the step, may follow
            may_be += _numbered(path.parent, name.split()[0])
    # Lines may be too long for a name, for which `Path.is_file` raises an error.
    found = [each for each in dict.fromkeys(may_be) if each != path and os.path.isfile(each)]  # noqa: PTH113
    if not found and (names or path.suffix.lower() == ".hdr"):
        raise FileError(f"There is no data file beside {path}: copy both again.")
    return found


def _numbered(folder: Path, name: str) -> list[Path]:
    """The files with any number that are called as a pattern says, which may be an absolute path."""
    pattern = NUMBER.sub("*", glob.escape(name))
    try:
        found = sorted(glob.glob(pattern, root_dir=folder))  # noqa: PTH207 (`Path.glob` takes no absolute path)
    except ValueError:  # there is a zero byte in it
        return []
    return [folder / each for each in found]


def pair_of(path: Path) -> list[Path]:
    """What the files of a NIfTI pair may be called, if this is one of them; they need not exist."""
    if path.suffix.lower() not in (".hdr", ".img"):
        return []
    return [path.with_suffix(ending) for ending in (".hdr", *IMAGE_ENDINGS)]


def named_in(path: Path) -> list[str]:
    """The data files that the header of a volume names, as the readers would find them: names, patterns or `LIST`.

    Raises:
        FileError: The header has no end, or names no data file.
    """
    kind = {".nrrd": "nrrd", ".nhdr": "nrrd", ".mha": "meta", ".mhd": "meta"}.get(volume_ending(path))
    if kind is None or not path.is_file():
        return []
    start = _start_of(path)
    header = start.replace(b"\r\n", b"\n")
    if kind == "nrrd":
        header, blank, _ = header.replace(b"\r", b"\n").partition(b"\n\n")  # either ends a line
        if len(start) == HEADER_BYTES and not blank:
            raise FileError(f"The header of {path.name} has no end: the file is damaged, copy it again.")
        return [_text(name) for name in DATA_FILE[kind].findall(header)]
    first = DATA_FILE[kind].search(header)
    if first is None:
        raise FileError(f"The header of {path.name} names no data file: the file is damaged, copy it again.")
    name = _text(first[1].rstrip())
    return [] if name.upper() == "LOCAL" else [name]


def _start_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(HEADER_BYTES)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")  # as the readers take it
