"""Names, number formats and Markdown tables for the pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paper.intervals import Gain

NAMES = {
    "unet": "U-Net", "wide_unet": "wide U-Net", "unet_plus": "UNet+", "unetpp": "UNet++", "unetpp_ds": "UNet++ with deep supervision",
}  # fmt: skip
NOT_YET = "not yet run"


def percent(value: float | None) -> str:
    """A share in per cent with two decimals; `NOT_YET` for None."""
    return NOT_YET if value is None else f"{100 * value:.2f}"


def points(found: Gain | None) -> str:
    """A gain in points with its interval; `NOT_YET` for None."""
    return found.points if found else NOT_YET


def rows(head: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
    return ["| " + " | ".join(map(str, line)) + " |" for line in (head, ["---"] * len(head), *lines)]
