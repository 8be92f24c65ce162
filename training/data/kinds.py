"""Kinds of slice folders: what stored grey values and stored labels mean, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

Row = Mapping[str, str]  # a line of slices.csv
STORED = 256  # values that a stored mask can have


@dataclass(frozen=True)
class DataSource:
    """The origin of images.

    Attributes:
        licence, citation: Of the data, as a card hands them on.
        volumes: Patterns (`lits*`) of the column `volume` for the rows that come from here; all of the folder if empty.
    """

    name: str
    licence: str
    citation: str
    volumes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("name", "licence", "citation"):
            if not getattr(self, key).strip():
                raise ValueError(f"a source must say its {key}.")

    def gave(self, row: Row) -> bool:
        """True if the row comes from here."""
        return not self.volumes or any(fnmatchcase(row.get("volume", ""), pattern) for pattern in self.volumes)


@dataclass(frozen=True)
class PixelSize:
    """The side of a stored pixel in mm: so many times what a column says, and what is taken where it says nothing."""

    column: str = ""
    times: float = 1.0
    usual: float | None = None

    def __post_init__(self) -> None:
        if not self.column and self.usual is None:
            raise ValueError("give a column of slices.csv, or the usual size, or both.")
        if self.times <= 0 or (self.usual is not None and self.usual <= 0):
            raise ValueError("times and usual must be above zero.")

    def known(self, row: Row) -> float | None:
        """The size that the row says, in mm; None where it says none.

        Raises:
            KeyError, ValueError: There is no such column, or no number in it.
        """
        return self.times * float(row[self.column]) if self.column and row[self.column] else None


@dataclass(frozen=True)
class Unknown:
    """A structure that was not told apart, so that nobody can say that it is absent.

    Attributes:
        structure: Its name.
        marked_as: The structure that its pixels are marked as; as nothing if empty.
        column, values: The rows of which this is true: those with one of these values in this column; all without a column.
    """

    structure: str
    marked_as: str = ""
    column: str = ""
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.column) != bool(self.values):
            raise ValueError("column and values go together: give both, or neither if it is unknown everywhere.")

    def blurs(self, made_of: Sequence[str]) -> bool:
        """True if a label made of these structures is not known where this one is not.

        It is known if it holds both the structure and what that was marked as, or neither.
        """
        return (self.structure in made_of) != (self.marked_as in made_of)


@dataclass(frozen=True)
class Kind:
    """The way to read a slice folder of one kind.

    Attributes:
        window_hu: HU at the least and the greatest stored value for CT, 0 and 255, or 65535 in pictures of 16 bits; None for colour images.
        structures: From the name of what is marked to its values in a stored mask, which exclude each other. 0 is nothing of it.
        pixel_mm: The size of stored pixels.
        sources: Where the images come from.
        group: Column of slices.csv that must not be in two splits.
        unknown: Structures that were not told apart everywhere.
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
            raise ValueError("it names no source.")
        values = [value for each in self.structures.values() for value in each]
        if len(set(values)) < len(values) or not all(0 < value < STORED for value in values):
            raise ValueError(f"structures: values of a mask are 1…{STORED - 1}, each for one structure; got {values}.")
        for each in self.unknown:
            if each.marked_as and each.marked_as not in self.structures:
                raise ValueError(
                    f"unknown: {each.marked_as!r} is no structure; there are {', '.join(self.structures)}."
                )

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return 3 if self.window_hu is None else 1

    @property
    def values(self) -> list[int]:
        """All that a stored mask may hold."""
        return sorted({0, *(value for each in self.structures.values() for value in each)})

    @property
    def names(self) -> set[str]:
        """Of the structures that are marked, or are said to be unknown."""
        return {*self.structures, *(each.structure for each in self.unknown)}

    def table(self, made_of: Sequence[str]) -> np.ndarray:
        """bool (256,): the stored values that belong to any of these structures."""
        table = np.zeros(STORED, bool)
        table[[value for name in made_of for value in self.structures.get(name, ())]] = True
        return table

    def is_known(self, made_of: Sequence[str], row: Row) -> bool:
        """True if a slice shows each pixel of what is made of these structures.

        Raises:
            KeyError: The row lacks the column that says so.
        """
        unmarked = [Unknown(name) for name in made_of if name not in self.names]
        blurring = [each for each in (*self.unknown, *unmarked) if each.blurs(made_of)]
        return not any(not each.column or row[each.column] in each.values for each in blurring)


def check_window(window_hu: tuple[float, float] | None) -> None:
    """Refuse a window without width.

    Raises:
        ValueError: It has none.
    """
    if window_hu is not None and window_hu[0] >= window_hu[1]:
        raise ValueError(f"window_hu={list(window_hu)} must be two numbers, the smaller one first.")
