"""Makes damaged and unusual inputs from real files, and a child process that reads them one after the other.

`python Testing/support/fuzz.py [COUNT] [SEED]` reads COUNT inputs (1,000) and prints the outcomes; it needs the shared data.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pydicom
import SimpleITK as sitk

REPOSITORY = Path(__file__).parents[2]
LIBRARY = REPOSITORY / "UNetPlusPlusSegment"
COUNT, SEED = 1000, 18
LIMIT_S = 20.0
MEMORY_MB, MEMORY_TIMES = 200, 60  # what reading may take beyond what the process has, and how often the file's size
LIMITS = (0, 1, -1, 2, 127, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31))
FLOAT_LIMITS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 0.5)
TEXT_LIMITS = (
    "", "0", "-1", "nan", "inf", "1e30", "2000000", "99999999999999999999", "x", "(1,0,0)", "none", "1 2", "\x00", "é" * 40,
)  # fmt: skip
# Offset and format of every numeric field of a NIfTI-1 header.
NIFTI_FIELDS = (
    [(0, "i"), (70, "h"), (72, "h"), (108, "f"), (112, "f"), (116, "f"), (123, "B"), (252, "h"), (254, "h")]
    + [(offset, "h") for offset in range(40, 56, 2)]
    + [(offset, "f") for offset in (*range(76, 108, 4), *range(256, 328, 4))]
)
SCRIPT = """
import json, resource, sys, warnings
from UNetPlusPlusSegmentLib import files
warnings.simplefilter("error")
for line in sys.stdin:
    with open("/proc/self/clear_refs", "w") as stream:
        stream.write("5")  # the peak begins anew
    try:
        volume, notes = files.read_volume(json.loads(line))
        outcome = {"kind": "noted" if notes else "read", "said": notes, "shape": volume.array.shape}
        del volume
    except (files.FileError, __import__("UNetPlusPlusSegmentLib.core.volume", fromlist=["x"]).VolumeError) as error:
        outcome = {"kind": "refused", "said": [str(error)]}
    except BaseException as error:
        import traceback
        outcome = {"kind": "failed", "said": [traceback.format_exc()]}
    with open("/proc/self/status") as stream:
        memory = {key: int(value.split()[0]) // 1024 for key, _, value in (l.partition(":") for l in stream) if key in ("VmHWM", "VmRSS")}
    print(json.dumps({**outcome, **memory}), flush=True)
"""


class Outcome(NamedTuple):
    """The outcome for an input: `read`, `noted` or `refused`; anything else is a failure."""

    kind: str
    said: list[str]
    seconds: float
    peak_mb: int
    noise: str  # what came on stderr


class Reader:
    """A child process that reads volumes; it is replaced by another one if it dies or takes too long."""

    def __init__(self) -> None:
        self._child: subprocess.Popen | None = None
        self._noise = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.deaths = 0
        self._base_mb = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._noise.close()

    def read(self, path: Path) -> Outcome:
        """Let the process read a file or folder."""
        child = self._child or self._start()
        self._noise.seek(0)
        self._noise.truncate()
        started = time.monotonic()
        child.stdin.write(json.dumps(str(path)) + "\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], LIMIT_S)
        line = child.stdout.readline() if ready else ""
        seconds = time.monotonic() - started
        self._noise.seek(0)
        noise = self._noise.read()
        if not line:
            self._end()
            self.deaths += 1
            return Outcome("died" if ready else "took too long", [f"exit code {child.returncode}"], seconds, 0, noise)
        told = json.loads(line)
        return Outcome(told["kind"], told["said"], seconds, told["VmHWM"] - self._base_mb, noise)

    def _start(self) -> subprocess.Popen:
        self._child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._noise, text=True,
            env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        )  # fmt: skip
        self._child.stdin.write(json.dumps("/nowhere") + "\n")
        self._child.stdin.flush()
        self._base_mb = json.loads(self._child.stdout.readline())["VmRSS"]
        return self._child

    def _end(self) -> None:
        if self._child:
            self._child.kill()
            self._child.wait()
        self._child = None


def inputs(data: Path, folder: Path, count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Make damaged inputs from real files, one at a time: each one replaces the last.

    Args:
        data: The shared data; nothing is written there.
        folder: Where to make them.
        count: How many.
        seed: Of all chance in it.

    Yields:
        What was done, and the file or folder.
    """
    draw, sources = random.Random(seed), _sources(data)
    for index in range(count):
        name, content, families = sources[index % len(sources)]
        family = draw.choice(families)
        damaged, what = family(content, draw)
        ending = name[name.index(".") :]
        if ending == ".dcm" and draw.random() < 0.5:  # among whole slices
            path = folder / "series"
            path.mkdir(exist_ok=True)
            for number, whole in enumerate(_series(data)):
                (path / f"{number:03}.dcm").write_bytes(whole)
            (path / f"{draw.randrange(6):03}.dcm").write_bytes(damaged)
        else:
            path = folder / f"input{ending}"
            path.write_bytes(damaged)
        yield f"{index}: {name}, {what}{', in a series' if path.is_dir() else ''}", path
        _remove(path)


def problem(outcome: Outcome, path: Path) -> str | None:
    """The problem with an outcome; None if it is a result, a result with notes, or a refusal in one sentence."""
    size_mb = sum(p.stat().st_size for p in ([path] if path.is_file() else path.iterdir())) / 1e6
    if outcome.kind not in ("read", "noted", "refused"):
        return f"{outcome.kind}: {outcome.said}"
    if outcome.noise:
        return f"printed {outcome.noise[:300]!r}"
    if any("\n" in said for said in outcome.said):
        return f"said more than a line: {outcome.said}"
    if outcome.peak_mb > MEMORY_MB + MEMORY_TIMES * size_mb:
        return f"took {outcome.peak_mb} MB for a file of {size_mb:.1f} MB"
    return None


def _remove(path: Path) -> None:
    for each in [path] if path.is_file() else [*path.iterdir()]:
        each.unlink()
    if path.is_dir():
        path.rmdir()


Damage = Callable[[bytes, random.Random], tuple[bytes, str]]


def _sources(data: Path) -> list[tuple[str, bytes, list[Damage]]]:
    """Names, contents and kinds of damage: mostly of headers, where a single byte matters."""
    ct = sitk.ReadImage(data / "volumes/abdomen_3mm_ct.nii.gz")[30:70, 30:70, 40:60]
    contents = {}
    with tempfile.TemporaryDirectory() as folder:
        for ending in (".nrrd", ".mha", ".nii", ".nii.gz"):
            path = Path(folder, f"ct{ending}")
            sitk.WriteImage(sitk.Cast(ct, sitk.sitkInt16), path, useCompression=ending == ".nrrd")
            contents[path.name] = path.read_bytes()
    contents["functional.nii"] = (data / "odd_inputs/functional.nii").read_bytes()
    contents["label.nrrd"] = (data / "volumes/chest_lesion_label.nrrd").read_bytes()
    slices = _series(data)
    contents["jpeg2000.dcm"], contents["jpeg2000b.dcm"] = slices[:2]
    for name in ("693_UNCR", "JPEG-LL", "eCT_Supplemental", "liver"):
        contents[f"{name}.dcm"] = (data / f"odd_inputs/{name}.dcm").read_bytes()
    families: dict[str, list[Damage]] = {
        ".nii": [_flip(348), _cut, _extend, _nifti_field, _nifti_field],
        ".nii.gz": [_inside_gzip(_flip(348)), _inside_gzip(_nifti_field), _inside_gzip(_cut), _flip(1000), _cut],
        ".nrrd": [_flip(400), _cut, _extend, _text_field(b":"), _text_field(b":")],
        ".mha": [_flip(300), _cut, _extend, _text_field(b"="), _text_field(b"=")],
        ".dcm": [_flip(2000), _cut, _extend, _dicom_element, _dicom_element, _dicom_element],
    }
    return [(name, content, families[name[name.index(".") :]]) for name, content in contents.items()]


def _series(data: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((data / "volumes/abdomen_dicom").iterdir())[:6]]


def _flip(most: int) -> Damage:
    """Change one to four of the first bytes."""

    def damage(content: bytes, draw: random.Random) -> tuple[bytes, str]:
        changed = bytearray(content)
        places = [draw.randrange(min(most, len(content))) for _ in range(draw.randint(1, 4))]
        for place in places:
            changed[place] = draw.randrange(256)
        return bytes(changed), f"bytes {places} set"

    return damage


def _cut(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    length = draw.choice([draw.randrange(len(content)), draw.randrange(min(600, len(content))), len(content) - 1])
    return content[:length], f"cut to {length} of {len(content)} bytes"


def _extend(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    more = draw.choice([b"\0" * 1000, draw.randbytes(1000), content])
    return content + more, f"extended by {len(more)} bytes"


def _nifti_field(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    offset, form = draw.choice(NIFTI_FIELDS)
    value = draw.choice(FLOAT_LIMITS if form == "f" else LIMITS)
    if form != "f":
        low, high = {"B": (0, 255), "h": (-(2**15), 2**15 - 1), "i": (-(2**31), 2**31 - 1)}[form]
        value = min(max(value, low), high)
    changed = bytearray(content)
    struct.pack_into("<" + form, changed, offset, value)
    return bytes(changed), f"field at {offset} is {value}"


def _inside_gzip(damage: Damage) -> Damage:
    def damaged(content: bytes, draw: random.Random) -> tuple[bytes, str]:
        changed, what = damage(gzip.decompress(content), draw)
        return gzip.compress(changed, 1), f"{what}, compressed"

    return damaged


def _text_field(separator: bytes) -> Damage:
    """Change, remove or duplicate a field of a text header."""

    def damage(content: bytes, draw: random.Random) -> tuple[bytes, str]:
        lines = content.split(b"\n")
        last = next((n for n, line in enumerate(lines) if not line or line.startswith(b"ElementDataFile")), len(lines))
        fields = [n for n in range(last) if separator in lines[n]]
        chosen = draw.choice(fields)
        name = lines[chosen].partition(separator)[0]
        how = draw.choice(["set", "set", "set", "drop", "double"])
        value = draw.choice(TEXT_LIMITS)
        if how == "drop":
            del lines[chosen]
        elif how == "double":
            lines.insert(chosen, lines[chosen])
        else:
            parts = lines[chosen].partition(separator)[2].split()
            if len(parts) > 1 and draw.random() < 0.6:
                parts[draw.randrange(len(parts))] = value.encode()
                value = " ".join(part.decode("latin-1") for part in parts)
            lines[chosen] = name + separator + b" " + value.encode()
        return b"\n".join(lines), f"{name.decode('latin-1')}: {how} {value if how == 'set' else ''}"

    return damage


def _dicom_element(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Remove or empty an element, or give it a value of another type; written without pydicom's checks."""
    data = pydicom.dcmread(io.BytesIO(content))
    element = draw.choice([e for e in data if e.tag.group < 0x7FE1])
    how = draw.choice(["removed", "emptied", "another type", "at its limit"])
    if how == "removed":
        del data[element.tag]
    elif how == "emptied":
        data[element.tag] = pydicom.DataElement(element.tag, element.VR, None)
    else:
        value = draw.choice([b"\xff\xfe x", b"\0\0", b"-1\\-1", b"1e400\\nan ", b"9" * 64, draw.randbytes(8)])
        kind = element.VR if how == "at its limit" and element.VR != "SQ" else draw.choice(["UN", "LO", "OB"])
        data._dict[element.tag] = pydicom.dataelem.RawDataElement(element.tag, kind, len(value), value, 0, False, True)
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data.save_as(stream)
    except Exception:  # pydicom cannot write all of these values
        return _flip(2000)(content, draw)
    return stream.getvalue(), f"{element.tag} {how}"


def run(data: Path, count: int = COUNT, seed: int = SEED) -> tuple[Counter, list[str], dict[str, float]]:
    """Read so many inputs.

    Returns:
        How many ended how; what went wrong, with the input; figures.
    """
    ends: Counter[str] = Counter()
    wrong, slowest, most_mb = [], 0.0, 0
    with tempfile.TemporaryDirectory() as folder, Reader() as reader:
        for what, path in inputs(data, Path(folder), count, seed):
            outcome = reader.read(path)
            ends[outcome.kind] += 1
            slowest, most_mb = max(slowest, outcome.seconds), max(most_mb, outcome.peak_mb)
            trouble = problem(outcome, path)
            if trouble:
                wrong.append(f"{what}: {trouble}")
    return ends, wrong, {"slowest_s": round(slowest, 2), "most_mb": most_mb, "processes": reader.deaths + 1}


def main() -> int:
    arguments = argparse.ArgumentParser(description="Read damaged inputs made of real files.")
    arguments.add_argument("count", type=int, nargs="?", default=COUNT)
    arguments.add_argument("seed", type=int, nargs="?", default=SEED)
    given = arguments.parse_args()
    data = Path(os.environ.get("UNETPP_DATA") or REPOSITORY.parent / "shared" / "data")
    with contextlib.suppress(BrokenPipeError):
        ends, wrong, figures = run(data, given.count, given.seed)
        print(dict(ends), figures)
        print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
