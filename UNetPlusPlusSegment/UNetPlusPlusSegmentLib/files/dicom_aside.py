"""Images with the identifiers of a scan that are not part of it, mostly repeated at one position: bolus tracking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dicom_headers import ACQUISITION, SEQUENTIAL, Header
from .dicom_places import EVEN, FEWEST_SLICES, LONGEST_HOLE, along_normal, coincident, step_of


def without_aside(slices: Sequence[Header]) -> tuple[list[Header], list[Header]]:
    """Separate the slices of a stack from extra images at one or two positions.

    Such a position has several images, or lies between two slices that are one step apart. If the stack needs a slice there, an
    image is that slice if it is the only one whose acquisition attributes agree with the other slices.

    Args:
        slices: In order along their normal.

    Returns:
        The slices, and the extra images. If they cannot be separated, all are slices.
    """
    places = along_normal(slices)
    groups = np.split(np.arange(len(slices)), np.flatnonzero(~coincident(places)) + 1)
    centres = np.array([places[group[0]] for group in groups])
    step = step_of(centres)
    crowded = np.array([len(group) > 1 for group in groups])
    between = np.append(np.append(False, np.abs(centres[2:] - centres[:-2] - step) <= EVEN * step), False)
    odd = (crowded | between)[: len(groups)]
    if not 0 < odd.sum() < FEWEST_SLICES or len(groups) < FEWEST_SLICES * (1 + odd.sum()):
        return list(slices), []
    scan = [(float(centres[n]), slices[group[0]]) for n, group in enumerate(groups) if not odd[n]]
    kept = {header for _, header in scan}
    for n in np.flatnonzero(odd):
        images = [slices[index] for index in groups[n]]
        own = _own(images, float(centres[n]), scan, step)
        if own is None:
            return list(slices), []
        kept.update(own)
    return [h for h in slices if h in kept], [h for h in slices if h not in kept]


def _own(
    images: Sequence[Header], place: float, scan: Sequence[tuple[float, Header]], step: float
) -> list[Header] | None:
    """Which of the images at one position is the slice of the scan; empty if it needs none there, None if it is unclear."""
    below = [(at, header) for at, header in scan if at < place]
    above = [(at, header) for at, header in scan if at > place][::-1]
    steps = 1.0
    if below and above:
        if above[-1][0] - below[-1][0] < (2 - EVEN) * step:
            return []
    else:
        steps = abs(place - (below or above)[-1][0]) / step
        if abs(steps - round(steps)) > EVEN or steps > LONGEST_HOLE:
            return []
        steps = round(steps)
    fitting = [image for image in images if _fits(image, below, above, [header for _, header in scan], steps)]
    if len(fitting) == 1 or (not fitting and not (below and above)):
        return fitting
    return None


def _fits(
    image: Header,
    below: Sequence[tuple[float, Header]],
    above: Sequence[tuple[float, Header]],
    scan: Sequence[Header],
    steps: float,
) -> bool:
    """True if an image shares what all slices have in common, and its number or time fits its position, or `steps` beyond the end."""
    for name in ACQUISITION:
        if {header.acquisition[name] for header in scan} == {scan[0].acquisition[name]} != {image.acquisition[name]}:
            return False
    for name in SEQUENTIAL if below and above else ("InstanceNumber",):
        turns = np.diff([_number(header, name) for header in scan])
        if not ((turns > 0).all() or (turns < 0).all()):
            continue
        if below and above:
            ends = [_number(side[-1][1], name) for side in (below, above)]
        else:
            last, before = (_number(header, name) for _, header in (below or above)[-1:-3:-1])
            ends = [last, last + (steps + 0.5) * (last - before)]
        if not min(ends) < _number(image, name) < max(ends):
            return False
    return True


def _number(header: Header, name: str) -> float:
    try:
        return float(header.acquisition[name])
    except ValueError:
        return np.nan
