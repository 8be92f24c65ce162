"""DICOM series: which slices make a stack. One patient, study, series, frame of reference and plane; one acquisition where it matters.

Slices are compared by tolerance, never by a rounded key, which tears apart what lies on either side of a border.
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

ACQUISITION_GAP = 1.5  # steps: between two acquisitions this is a gap

SamePixels = Callable[[Header, Header], bool]


@dataclass
class Stack:
    """Slices along one normal, of which a volume can be made unless something is wrong with them.

    Attributes:
        slices: In order along their normal; one file if it holds many frames.
        part: What tells it from other stacks of its series, e.g. "acquisition number 2"; empty if nothing does.
        copies: Slices left out as another instance has their pixels at their place. Of one instance in many files nothing is said.
        aside: Images left out as they lie beside the stack, as those of bolus tracking.
    """

    slices: list[Header]
    part: str = ""
    copies: int = 0
    aside: Sequence[Header] = ()
    number: int = field(default=0, compare=False)

    @property
    def first(self) -> Header:
        """The lowest slice, by which the stack is described."""
        return self.slices[0]

    @property
    def count(self) -> int:
        """Images in it."""
        return sum(header.size[2] for header in self.slices)

    @property
    def places(self) -> int:
        """Images in it that lie at places of their own."""
        if not self.is_usable or self.first.size[2] > 1:
            return self.count
        return self.count - int(coincident(along_normal(self.slices)).sum())

    @property
    def is_usable(self) -> bool:
        """True if its slices have grey values, a pixel size and a position."""
        return all(header.is_usable for header in self.slices) or self.first.size[2] > 1

    def in_words(self) -> str:
        """Number, modality, UID, and what helps to choose; nothing of the patient."""
        first = self.first
        about = [f"{self.count} slice{'s' * (self.count > 1)}", first.description, self.part]
        name = f"{first.modality or 'no modality'} {first.series or 'without UID'} ({', '.join(filter(None, about))})"
        return f"{self.number}: {name}" if self.number else name


def stacks_of(headers: Iterable[Header], same_pixels: SamePixels) -> list[Stack]:
    """Sort the images of a folder into stacks, the largest of each series first where it had to be parted.

    Args:
        headers: Of all images; each instance once.
        same_pixels: Whether two images have the same values; called for those at one place.
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
    """Images that could lie on one grid but for their place along the normal; those without a place apart."""
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
    if not plane[0].is_usable or len(plane) == 1:
        return [Stack(plane)]
    whole = Stack(in_order(plane))
    stacks = [cut for part in _parted(whole, same_pixels) for cut in _cut_at_gaps(part)]
    return sorted(stacks, key=lambda stack: -stack.count)


def _parted(stack: Stack, same_pixels: SamePixels) -> list[Stack]:
    """Part a stack by what tells its acquisitions apart, where they overlap, and leave out slices that came twice."""
    stack = _without_copies(stack, same_pixels)
    stack.slices, stack.aside = without_aside(stack.slices)
    for name in ACQUISITION:
        values = [header.acquisition[name] for header in stack.slices]
        if _overlap(stack.slices, values, only_at_one_place=name == "SliceThickness"):
            return _parts(stack, values, dictionary_description(name).lower(), same_pixels)
    for name in SEQUENTIAL:
        runs = _runs(stack.slices, name)
        alternate = sum(a != b for a, b in pairwise(runs)) > len(
            set(runs)
        )  # else one slice may only have a wrong place
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
        for each in _parted(Stack(parts[value], ", ".join([*said, f"{called} {value or 'not given'}"])), same_pixels)
    ]


def _natural(text: str) -> tuple:
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)


def _overlap(slices: Sequence[Header], values: Sequence[str], only_at_one_place: bool = False) -> bool:
    """True if slices of different values cover the same part of the patient, and make better stacks apart.

    Scans made step by step have a number for each step: taken apart, they would have gaps or hold a slice or two.
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
    """The number of gaps of a stack that differ from the others, plus that of slices at the place of another; 1 for a stack too short."""
    if len(places) < FEWEST_SLICES:
        return 1
    twice = coincident(places)
    apart = places[np.append(True, ~twice)]
    gaps = np.diff(apart)
    return int(twice.sum() + (np.abs(gaps - step_of(apart)) > EVEN * step_of(apart)).sum())


def _runs(slices: Sequence[Header], name: str) -> list[str]:
    """For each slice the run that made it: in order of number or time, a run ends where the table turns back or stays.

    All alike where slices of one number or time lie at one place, as nothing says which is of which run.
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
    """For each slice how often its instance number has come so far: a scanner gives it once, so the second is of a second run."""
    return [str(numbers[: index + 1].count(number)) for index, number in enumerate(numbers)]


def _without_copies(stack: Stack, same_pixels: SamePixels) -> Stack:
    """The stack without slices whose pixels lie at the same place in another; as it is if some there differ."""
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
    """Part a stack where more than two slices would be missing, or where one acquisition ends and another begins further on."""
    places = along_normal(stack.slices)
    ends = [] if coincident(places).any() else _ends(stack.slices, places)
    if not ends:
        return [stack]
    said = [stack.part] if stack.part else []
    parts = [stack.slices[a:b] for a, b in pairwise([0, *ends, len(stack.slices)])]
    return [
        replace(
            stack, slices=part, part=", ".join([*said, f"from {place_in_words(part[0])} to {place_in_words(part[-1])}"])
        )
        for part in parts
    ]


def _ends(slices: Sequence[Header], places: np.ndarray) -> list[int]:
    """Indices of slices with which a new stack begins."""
    gaps, step = np.diff(places), step_of(places)
    numbers = [header.acquisition["AcquisitionNumber"] for header in slices]
    blocks = {number for number, count in Counter(numbers).items() if count >= FEWEST_SLICES}
    ends = []
    for index, gap in enumerate(gaps):
        beside = float(max([*gaps[max(0, index - 1) : index], *gaps[index + 1 : index + 2]], default=gap))
        before, after = numbers[index : index + 2]
        between = before != after and {before, after} <= blocks and gap > ACQUISITION_GAP * beside
        if between or gap > LONGEST_HOLE * max(step, min(beside, gap)):
            ends.append(index + 1)
    return ends
