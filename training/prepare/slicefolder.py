"""Writes slice folders (images/, masks/, slices.csv), either completely or not at all; and what all prepare scripts share."""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from UNetPlusPlusSegmentLib.core.lock import alone_with

LIVER_WINDOW_HU = (-40.0, 160.0)  # HU of stored 0 and 255
NODULE_WINDOW_HU = (-1000.0, 400.0)
SPLITS = ("train", "val", "test")


class PrepareError(ValueError):
    """Raw data that cannot become a slice folder. The message names the file, the reason and what to do."""


@dataclass
class SliceFolder:
    """A slice folder that is being written; use it in a `with` block.

    Slices are written to a hidden folder beside `path`, or beside what `path` links to. It is renamed to `path` when the block ends
    without an error, and deleted otherwise. A second preparation of the same folder meanwhile is refused.

    Attributes:
        path: The folder to make.
        columns: The header of slices.csv. `file` names the image and, if there is no column `mask`, the mask too.
        replace: Whether an existing slice folder at `path` may be replaced.
        rows: The lines of slices.csv so far.
        notes: The lines of notes.txt so far.
    """

    path: Path
    columns: Sequence[str]
    replace: bool = False
    rows: list[dict[str, object]] = field(default_factory=list, init=False)
    notes: list[str] = field(default_factory=list, init=False)

    def __enter__(self) -> SliceFolder:
        self._place = Path(os.path.realpath(self.path))  # a link stays, and the folder that it leads to is replaced
        self._part = self._place.with_name(f".{self._place.name}.part")
        with ExitStack() as made:
            try:
                self._part.parent.mkdir(parents=True, exist_ok=True)
                if not made.enter_context(alone_with(self._part.with_suffix(".lock"))):
                    raise PrepareError(
                        f"Another preparation is writing {self.path}: wait until it is done, or choose another -o FOLDER."
                    )
                self._check_place()
                shutil.rmtree(self._part, ignore_errors=True)  # left by a run that was killed
                made.callback(shutil.rmtree, self._part, ignore_errors=True)
                for name in ("images", "masks"):
                    (self._part / name).mkdir(parents=True)
            except OSError as error:
                raise self._not_written(self.path, error) from error
            self._made = made.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._made:
            if error is None:
                self._finish()
            if isinstance(error, OSError):
                raise self._not_written(self.path, error) from error

    def _check_place(self) -> None:
        """Refuse to replace what exists, unless it is a slice folder that may be replaced."""
        if self.path.exists():
            if not self.replace:
                raise PrepareError(
                    f"{self.path} already exists: choose another -o FOLDER, or add --force to replace it."
                )
            if not (self.path / "slices.csv").is_file():
                raise PrepareError(
                    f"{self.path} is not a slice folder, so --force does not replace it: choose another -o FOLDER."
                )

    def add(self, row: dict[str, object], image: np.ndarray, mask: np.ndarray) -> None:
        """Write one slice.

        Args:
            row: Its line of slices.csv.
            image: uint8 (height, width) or (height, width, 3), or uint16 (height, width).
            mask: uint8 (height, width).

        Raises:
            PrepareError: A slice of the same name has been added already, or the file cannot be written.
        """
        for folder, name, picture in (("images", row["file"], image), ("masks", row.get("mask", row["file"]), mask)):
            path = self._part / folder / str(name)
            if path.exists():
                raise PrepareError(
                    f"Two slices would both be called {folder}/{name}: rename one of their source files."
                )
            how: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
            try:
                Image.fromarray(picture).save(path, **how)
            except OSError as error:
                raise self._not_written(self.path / folder / str(name), error) from error
        self.rows.append(row)

    def file(self, *names: str) -> Path:
        """The path at which a file of the folder lies while the folder is being written."""
        return self._part.joinpath(*names)

    def note(self, text: str) -> None:
        """Print what was unusual or corrected, and keep it in notes.txt of the folder."""
        print(text, file=sys.stderr)
        self.notes.append(text)

    def _finish(self) -> None:
        if not self.rows:
            raise PrepareError(f"The source has no slice to keep, so {self.path} was not written.")
        try:
            with (self._part / "slices.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows)
            if self.notes:
                (self._part / "notes.txt").write_text("\n".join(self.notes) + "\n", encoding="utf-8")
            older = self._part.with_suffix(".older")
            if self._place.exists():
                shutil.rmtree(older, ignore_errors=True)  # left by a run that was killed at this point
                self._place.rename(older)
            self._part.rename(self._place)
            shutil.rmtree(older, ignore_errors=True)
        except OSError as error:
            raise self._not_written(self.path, error) from error

    @staticmethod
    def _not_written(path: Path, error: OSError) -> PrepareError:
        return PrepareError(
            f"{path} cannot be written ({error.strerror or error}). Free space on that disk, or choose another -o FOLDER."
            " No incomplete folder was left behind."
        )


def assign_splits(patients: Iterable[str], given: argparse.Namespace) -> dict[str, str]:
    """The split of every patient: read from the file `given.split`, or drawn with `given.seed`.

    The draw depends only on the patients' names and the seed. Each split with a share above 0 gets at least one patient.

    Raises:
        PrepareError: The file lacks a patient, the shares make no sense, or there are too few patients.
    """
    patients = sorted(set(patients))
    if given.split:
        split_of = read_splits(given.split)
        for patient in patients:
            if patient not in split_of:
                raise PrepareError(f"{given.split} has no line for {patient}: add one, or remove that patient's files.")
        return {patient: split_of[patient] for patient in patients}
    if not (given.val >= 0 and given.test >= 0 and given.val + given.test < 1):
        raise PrepareError(
            f"--val {given.val:g} and --test {given.test:g} must each be 0 or more, and their sum below 1."
        )
    counts = [max(1, round(len(patients) * share)) if share else 0 for share in (given.val, given.test)]
    if sum(counts) >= len(patients):
        raise PrepareError(
            f"{given.source} has {len(patients)} patient(s), too few to divide into splits: give --val 0, or a --split FILE."
        )
    shuffled = random.Random(given.seed).sample(patients, len(patients))
    drawn = ["val"] * counts[0] + ["test"] * counts[1] + ["train"] * (len(patients) - sum(counts))
    return dict(zip(shuffled, drawn, strict=True))


def read_splits(path: Path) -> dict[str, str]:
    """The split of each patient, from a CSV with the columns `patient` and `split`, such as another folder's slices.csv.

    Without a column `patient`, each image counts as a patient, named after its file without the extension.

    Raises:
        PrepareError: The file cannot be read, lacks a column, or gives a patient an unknown split or two splits.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PrepareError(f"{path} cannot be read as a table of patient and split ({error}).") from error
    first = rows[0][1] if rows else {}
    if "split" not in first or not {"patient", "file"} & set(first):
        raise PrepareError(f"{path} needs the columns patient and split, and a line for each patient.")
    found: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        patient, split = row.get("patient") or Path(row.get("file") or "").stem, row["split"]
        if split not in SPLITS:
            raise PrepareError(
                f"{path}, line {line}: {patient} has the split {split!r}; it must be one of {', '.join(SPLITS)}."
            )
        earlier, at = found.setdefault(patient, (split, line))
        if earlier != split:
            raise PrepareError(
                f"{path}: {patient} is in two splits, {earlier} (line {at}) and {split} (line {line});"
                " give all lines of a patient the same split."
            )
    return {patient: split for patient, (split, _) in found.items()}


def to_8_bit(hu: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """HU as uint8 grey values, rounded: 0 at and below the window's lower end, 255 at and above its upper end."""
    low, high = window_hu
    return np.rint((np.clip(hu, low, high) - low) * (255 / (high - low))).astype(np.uint8)


def area_average(picture: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (H, W) or (H, W, 3) to size × size; each new pixel is the rounded mean of the area it covers."""
    channels = np.atleast_3d(picture)
    resized = [_mean_of_area(channels[..., c], size) for c in range(channels.shape[2])]
    return np.rint(np.stack(resized, axis=-1)).astype(np.uint8).reshape(size, size, *picture.shape[2:])


def area_majority(mask: np.ndarray, size: int) -> np.ndarray:
    """Resize bool (H, W) to uint8 size × size: 1 where at least half of the area is marked."""
    return (_mean_of_area(mask, size) >= 0.5).astype(np.uint8)


def chosen_slices(area: np.ndarray, every: int) -> list[int]:
    """The indices of the slices to keep: every N-th between the first and the last slice with an organ, every 2 N-th up to 12 N
    slices beyond these, and every 6 N-th elsewhere; N is `every`.

    If these show nowhere half of the largest area that an organ has in a run of slices, the slice with that area is kept, too, so
    that small lesions are not lost. Of equal ones it is the middle one.

    Args:
        area: How much of the organ each slice shows, in any unit, or bool: (slices,), or (organs, slices).
        every: N.
    """
    areas = np.atleast_2d(area)
    step = np.full(areas.shape[1], 6 * every)
    marked = np.flatnonzero(areas.any(axis=0))
    if marked.size:
        low, high = marked[0], marked[-1] + 1
        step[max(0, low - 12 * every) : high + 12 * every] = 2 * every
        step[low:high] = every
    kept = np.arange(len(step)) % step == 0
    for organ in areas:
        edges = np.flatnonzero(np.diff(organ > 0, prepend=False, append=False))
        for start, end in edges.reshape(-1, 2):
            run, is_kept = organ[start:end], kept[start:end]
            if 2 * run[is_kept].max(initial=0) < run.max():
                largest = np.flatnonzero(run == run.max())
                is_kept[largest[len(largest) // 2]] = True
    return np.flatnonzero(kept).tolist()


def read_rgb(path: Path) -> np.ndarray:
    """A photograph as uint8 (H, W, 3); transparency is dropped."""
    return _read_picture(path, "RGB")


def read_mask(path: Path, image: np.ndarray) -> np.ndarray:
    """A black-and-white mask of an image as bool (H, W), split at the middle grey, because JPEG blurs black and white.

    Raises:
        PrepareError: It cannot be read, differs in size from the image, or is not black and white.
    """
    grey = _read_picture(path, "L")
    if grey.shape != image.shape[:2]:
        raise PrepareError(
            f"{path} has {grey.shape[1]} × {grey.shape[0]} pixels, but its image has {image.shape[1]} × {image.shape[0]}:"
            " they must have the same size."
        )
    between = ((grey > 64) & (grey < 192)).mean()
    if between > 0.1:
        raise PrepareError(
            f"{path} is not a mask: {between:.0%} of its pixels are neither nearly black nor nearly white."
        )
    return grey > 127


def parser_of(description: str, shares: bool = True) -> argparse.ArgumentParser:
    """The arguments that all prepare scripts share; --val and --test only if `shares`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with the unpacked data set")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the slice folder to make")
    parser.add_argument(
        "--split", type=Path, metavar="FILE", help="CSV with the columns patient and split; default: drawn at random"
    )
    if shares:
        parser.add_argument("--val", type=float, default=0.1, help="share of patients for validation (%(default)s)")
        parser.add_argument("--test", type=float, default=0.0, help="share of patients for the test (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random assignment (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace the slice folder if it exists")
    return parser


def run(
    prepare: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, arguments: list[str] | None
) -> int:
    """Parse the arguments and call `prepare`; returns 0, or 1 after printing the reason of a `PrepareError` to stderr (130: Ctrl+C)."""
    given = parser.parse_args(arguments)
    try:
        if not given.source.is_dir():
            raise PrepareError(f"{given.source} is not a folder: give the folder of the unpacked data set.")
        prepare(given)
    except PrepareError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped, and nothing was written.", file=sys.stderr)
        return 130
    return 0


def _mean_of_area(plane: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BOX))


def _read_picture(path: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode))
    except (OSError, SyntaxError) as error:
        raise PrepareError(f"{path} cannot be read as an image ({error}): copy it again.") from error
