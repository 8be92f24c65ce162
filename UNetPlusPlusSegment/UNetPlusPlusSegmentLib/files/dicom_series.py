"""DICOM series: sorts images into stacks of one patient, study, series, frame of reference, plane and, if needed, acquisition.

Positions are compared with a tolerance, never by a rounded key, which would separate values on either side of a rounding border.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from pydicom.datadict import dictionary_description

from .dicom_aside import without_aside
from .dicom_headers import ACQUISITION, SEQUENTIAL, Header
from .dicom_places import (
    EVEN,
    FEWEST_SLICES,
    LONGEST_HOLE,
    along_normal,
    coincident,
    in_one_plane,
    in_order,
    place_in_words,
    step_of,
)

ACQUISITION_GAP = 1.5  # in steps: a larger distance between two acquisitions separates their stacks

SamePixels = Callable[[Header, Header], bool]


@dataclass
class Stack:
    """Parallel slices that form a volume, unless something is wrong with them.

    Attributes:
        slices: In order along their normal; one file if it has several frames.
        part: What distinguishes it from other stacks of its series, such as "acquisition number 2"; empty if nothing does.
        copies: Number of slices left out because another instance has the same pixels at the same position. Repeated files of the
            same instance do not count.
        aside: Images left out because they do not belong to the stack, such as those of bolus tracking.
        number: Number in `list_series`; 0 if it has none.
    """

    slices: list[Header]
    part: str = ""
    copies: int = 0
    aside: Sequence[Header] = ()
    number: int = field(default=0, compare=False)

    @property
    def first(self) -> Header:
        """The first slice along the normal, which describes the stack."""
        return self.slices[0]

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(header.size[2] for header in self.slices)

    @property
    def places(self) -> int:
        """Number of different positions of its images."""
        if not self.is_usable or self.first.size[2] > 1:
            return self.count
        return self.count - int(coincident(along_normal(self.slices)).sum())

    @property
    def is_usable(self) -> bool:
        """True if all slices have grey values, a pixel size and a position, or if it is a multi-frame file."""
        return all(header.is_usable for header in self.slices) or self.first.size[2] > 1

    def in_words(self) -> str:
        """Number, modality, UID, number of slices and description, for messages; nothing about the patient."""
        first = self.first
        about = [f"{self.count} slice{'s' * (self.count > 1)}", first.description, self.part]
        name = f"{first.modality or 'no modality'} {first.series or 'without UID'} ({', '.join(filter(None, about))})"
        return f"{self.number}: {name}" if self.number else name


def stacks_of(headers: Iterable[Header], same_pixels: SamePixels) -> list[Stack]:
    """Sort the images of a folder into stacks; if a series is split, its largest stack comes first.

    Args:
        headers: Headers of all images; an instance may be there several times.
        same_pixels: Tells whether two images have the same values; called for images at the same position.
    """
    groups: dict[tuple, list[Header]] = defaultdict(list)
    for header in headers:
        groups[header.group].append(header)
    planes = [plane for group in groups.values() for plane in _planes(group)]
    stacks = [stack for plane in planes for stack in _stacks_of_plane(plane, same_pixels)]
    for number, stack in enumerate(stacks, start=1):
        stack.number = number
    return stacks


def _planes(group: Sequence[Header]) -> list[list[Header]]:
    """Group images that differ only in their position along the normal; images without a position form groups of their own."""
    planes: list[list[Header]] = []
    for header in group:
        plane = next((plane for plane in planes if _fits(plane[0], header)), None)
        if plane is None:
            planes.append([header])
        else:
            plane.append(header)
    return planes


def _fits(one: Header, other: Header) -> bool:
    if not (one.is_usable and other.is_usable):
        return one.is_usable == other.is_usable and one.is_placed == other.is_placed
    return in_one_plane(one, other)


def _stacks_of_plane(plane: list[Header], same_pixels: SamePixels) -> list[Stack]:
    whole = Stack(in_order(plane))
    if not plane[0].is_usable or len(plane) == 1:
        return [whole]
    stacks = [cut for part in _split(whole, same_pixels) for cut in _cut_at_gaps(part)]
    return sorted(stacks, key=lambda stack: -stack.count)


def _split(stack: Stack, same_pixels: SamePixels) -> list[Stack]:
    """Split a stack of overlapping acquisitions by the attribute that tells them apart, and leave out duplicate slices."""
    stack = _without_copies(stack, same_pixels)
    stack.slices, stack.aside = without_aside(stack.slices)
    for name in ACQUISITION:
        values = [header.acquisition[name] for header in stack.slices]
        if _overlap(stack.slices, values, only_at_one_place=name == "SliceThickness"):
            return _parts(stack, values, dictionary_description(name).lower(), same_pixels)
    for name in SEQUENTIAL:
        runs = _runs(stack.slices, name)
        # If the runs do not alternate, a single slice may just have a wrong position.
        alternate = sum(a != b for a, b in pairwise(runs)) > len(set(runs))
        if alternate and 2 * max(Counter(runs).values()) >= stack.places and _overlap(stack.slices, runs):
            return _parts(stack, runs, f"run by {dictionary_description(name).lower()}", same_pixels)
    folders = [str(header.path.parent) for header in stack.slices]
    if _overlap(stack.slices, folders, only_at_one_place=True):
        return _parts(stack, folders, "folder", same_pixels)
    return [stack]


def _parts(stack: Stack, values: Sequence[str], called: str, same_pixels: SamePixels) -> list[Stack]:
    parts: dict[str, list[Header]] = defaultdict(list)
    for header, value in zip(stack.slices, values, strict=True):
        parts[value].append(header)
    said = [stack.part] if stack.part else []
    return [
        each
        for value in sorted(parts, key=_natural)
        for each in _split(Stack(parts[value], ", ".join([*said, f"{called} {value or 'not given'}"])), same_pixels)
    ]


def _natural(text: str) -> tuple:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)


def _overlap(slices: Sequence[Header], values: Sequence[str], only_at_one_place: bool = False) -> bool:
    """True if slices with different values cover the same part of the patient and form better stacks if separated.

    In step-and-shoot scans, each step has its own number: separated by it, they would have gaps, or only a slice or two.
    """
    if len(set(values)) < 2:
        return False
    places, pairs = along_normal(slices), pairwise(values)
    parts = [places[[v == value for v in values]] for value in set(values)]
    if any(same and a != b for same, (a, b) in zip(coincident(places), pairs, strict=True)):
        return sum(map(_faults, parts)) < _faults(places)
    if only_at_one_place or sum(a != b for a, b in pairwise(values)) < len(parts):
        return False
    return min(map(len, parts)) >= FEWEST_SLICES and max(map(_faults, parts)) <= _faults(places)


def _faults(places: np.ndarray) -> int:
    """Number of uneven gaps plus number of slices at the position of another one; 1 if there are too few slices to tell."""
    if len(places) < FEWEST_SLICES:
        return 1
    twice = coincident(places)
    apart = places[np.append(True, ~twice)]
    gaps = np.diff(apart)
    return int(twice.sum() + (np.abs(gaps - step_of(apart)) > EVEN * step_of(apart)).sum())


def _runs(slices: Sequence[Header], name: str) -> list[str]:
    """For each slice, the run of the scanner that made it: by number or time, a run ends where the table turns back or stops.

    All slices get the same label if some have the same number or time and position, as their runs cannot be told apart.
    """
    places, values = along_normal(slices), [header.acquisition[name] for header in slices]
    if any(same and a == b for same, (a, b) in zip(coincident(places), pairwise(values), strict=True)):
        return [""] * len(values)
    if name == "InstanceNumber" and 1 < len(set(values)) < len(values) - 1:
        return _repeats(values)
    labels, run, upwards = [""] * len(slices), 1, 0.0
    order = sorted(range(len(slices)), key=lambda index: _natural(values[index]))
    for before, index in pairwise([order[0], *order]):
        towards = float(np.sign(places[index] - places[before]))
        if index != before and (towards == 0 or towards * upwards < 0):
            run, upwards = run + 1, 0.0
        else:
            upwards = upwards or towards
        labels[index] = str(run)
    return labels


def _repeats(numbers: Sequence[str]) -> list[str]:
    """For each slice, how often its instance number has occurred so far; a scanner uses it once per run."""
    return [str(numbers[: index + 1].count(number)) for index, number in enumerate(numbers)]


def _without_copies(stack: Stack, same_pixels: SamePixels) -> Stack:
    """The stack without duplicates (same position and pixels); unchanged if slices at the same position have different pixels."""
    kept, copies = stack.slices[:1], 0
    for header, same_place in zip(stack.slices[1:], coincident(along_normal(stack.slices)), strict=True):
        if not same_place:
            kept.append(header)
        elif not same_pixels(kept[-1], header):
            return stack
        else:
            copies += not header.instance or header.instance != kept[-1].instance
    return Stack(kept, stack.part, copies)


def _cut_at_gaps(stack: Stack) -> list[Stack]:
    """Split a stack where more than two slices would be missing, or where an acquisition ends and another begins after a gap."""
    places = along_normal(stack.slices)
    starts = [] if coincident(places).any() else _starts(stack.slices, places)
    if not starts:
        return [stack]
    said = [stack.part] if stack.part else []
    parts = [stack.slices[a:b] for a, b in pairwise([0, *starts, len(stack.slices)])]
    return [
        replace(
            stack, slices=part, part=", ".join([*said, f"from {place_in_words(part[0])} to {place_in_words(part[-1])}"])
        )
        for part in parts
    ]


def _starts(slices: Sequence[Header], places: np.ndarray) -> list[int]:
    """Indices of the slices that start a new stack."""
    gaps, step = np.diff(places), step_of(places)
    numbers = [header.acquisition["AcquisitionNumber"] for header in slices]
    blocks = {number for number, count in Counter(numbers).items() if count >= FEWEST_SLICES}
    starts = []
    for index, gap in enumerate(gaps):
        beside = float(max([*gaps[max(0, index - 1) : index], *gaps[index + 1 : index + 2]], default=gap))
        before, after = numbers[index : index + 2]
        between = before != after and {before, after} <= blocks and gap > ACQUISITION_GAP * beside
        if between or gap > LONGEST_HOLE * max(step, min(beside, gap)):
            starts.append(index + 1)
    return starts
