"""Kinds of slice folders: what their grey values and mask values mean, and where the images come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

Row = Mapping[str, str]  # a line of slices.csv
STORED = 256  # number of values that a stored mask can have


@dataclass(frozen=True)
class DataSource:
    """A source of images.

    Attributes:
        name: Its name.
        licence, citation: Licence and citation of the data, which the model's card repeats.
        volumes: Patterns such as `lits*`: the source gave the rows whose column `volume` matches one of them. If empty, it gave
            all rows.
    """

    name: str
    licence: str
    citation: str
    volumes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("name", "licence", "citation"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} is empty: fill it in.")

    def gave(self, row: Row) -> bool:
        """True if the row comes from this source."""
        return not self.volumes or any(fnmatchcase(row.get("volume", ""), pattern) for pattern in self.volumes)


@dataclass(frozen=True)
class PixelSize:
    """How to find the side of a stored pixel in mm.

    Attributes:
        column: Column of slices.csv with a size in mm; empty: there is none.
        times: Factor from that size to the stored pixels' size.
        usual: Size in mm of the rows where the column is empty; None: such rows are refused.
    """

    column: str = ""
    times: float = 1.0
    usual: float | None = None

    def __post_init__(self) -> None:
        if not self.column and self.usual is None:
            raise ValueError("pixel_mm needs a column of slices.csv, a usual size, or both.")
        if self.times <= 0 or (self.usual is not None and self.usual <= 0):
            raise ValueError("times and usual must be above zero.")

    def known(self, row: Row) -> float | None:
        """The size in mm according to the row; None where the column is empty.

        Raises:
            KeyError, ValueError: There is no such column, or it does not hold a number.
        """
        return self.times * float(row[self.column]) if self.column and row[self.column] else None


@dataclass(frozen=True)
class Unknown:
    """A structure that was not marked separately, so that unmarked does not mean absent.

    Attributes:
        structure: Its name.
        marked_as: The structure as which its pixels are marked; empty: they are not marked at all.
        column, values: The rows for which this holds: those with one of these values in this column. Without a column: all rows.
    """

    structure: str
    marked_as: str = ""
    column: str = ""
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.column) != bool(self.values):
            raise ValueError(
                "column and values go together: give both, or neither if the structure is unknown everywhere."
            )

    def blurs(self, made_of: Sequence[str]) -> bool:
        """True if a label made of these structures is unknown where this structure is.

        The label is known if it contains both the structure and what that was marked as, or neither.
        """
        return (self.structure in made_of) != (self.marked_as in made_of)


@dataclass(frozen=True)
class Kind:
    """How to read the slice folders of one kind.

    Attributes:
        window_hu: For CT, the HU of stored value 0 and of the largest one: 255, or 65535 in 16-bit images. None for colour images.
        structures: From the name of each marked structure to its values in a stored mask. Structures share no value; 0 is background.
            Empty: nothing is marked, and masks are not read; only a teacher can mark such images.
        pixel_mm: The size of a stored pixel.
        sources: Where the images come from.
        group: Column of slices.csv, such as `patient`, whose values must not be spread over several splits.
        unknown: Structures that were not marked separately everywhere.
    """

    window_hu: tuple[float, float] | None
    structures: dict[str, tuple[int, ...]]
    pixel_mm: PixelSize
    sources: tuple[DataSource, ...]
    group: str = "patient"
    unknown: tuple[Unknown, ...] = ()

    def __post_init__(self) -> None:
        check_window(self.window_hu)
        if not self.sources:
            raise ValueError("sources must name at least one source.")
        values = [value for each in self.structures.values() for value in each]
        if len(set(values)) < len(values) or not all(0 < value < STORED for value in values):
            raise ValueError(
                f"structures: mask values must lie in 1…{STORED - 1}, and each can belong to one structure only; got {values}."
            )
        for each in self.unknown:
            if each.marked_as and each.marked_as not in self.structures:
                raise ValueError(
                    f"unknown: {each.marked_as!r} is not one of the structures, {', '.join(self.structures)}."
                )

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return 3 if self.window_hu is None else 1

    @property
    def values(self) -> list[int]:
        """All values that a stored mask may hold, 0 included."""
        return sorted({0, *(value for each in self.structures.values() for value in each)})

    @property
    def names(self) -> set[str]:
        """Names of all structures, both marked and unknown ones."""
        return {*self.structures, *(each.structure for each in self.unknown)}

    def table(self, made_of: Sequence[str]) -> np.ndarray:
        """bool (256,): True at the stored values of these structures."""
        table = np.zeros(STORED, bool)
        table[[value for name in made_of for value in self.structures.get(name, ())]] = True
        return table

    def is_known(self, made_of: Sequence[str], row: Row) -> bool:
        """True if the masks of a row mark every pixel of a label made of these structures.

        Raises:
            KeyError: The row lacks a column that `unknown` refers to.
        """
        unmarked = [Unknown(name) for name in made_of if name not in self.names]
        blurring = [each for each in (*self.unknown, *unmarked) if each.blurs(made_of)]
        return not any(not each.column or row[each.column] in each.values for each in blurring)


def check_window(window_hu: tuple[float, float] | None) -> None:
    """Check that a window's lower end is below its upper end.

    Raises:
        ValueError: It is not.
    """
    if window_hu is not None and window_hu[0] >= window_hu[1]:
        raise ValueError(f"window_hu={list(window_hu)} must be two numbers, the smaller one first.")
