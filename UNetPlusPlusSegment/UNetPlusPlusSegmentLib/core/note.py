"""Notes for the user about a result. The standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .request import Point


@dataclass(frozen=True)
class Note:
    """A sentence for the user.

    Attributes:
        kind: Short identifier for programs, such as `forced`.
        sentence: Its wording may change. `{place}` stands for the first of `points`, `{s}` for the positions of all of them.
        points: The points that it names: R, A and S in mm.
    """

    kind: str
    sentence: str
    points: tuple[Point, ...] = ()

    @property
    def text(self) -> str:
        """The sentence with its points, in whole mm."""
        if not self.points:
            return self.sentence
        positions = ", ".join(f"{s:.0f}" for _, _, s in self.points)
        return self.sentence.replace("{place}", in_words(self.points[0])).replace("{s}", positions)

    def __str__(self) -> str:
        return self.text


def in_words(point: Sequence[float]) -> str:
    """A point for a message: R, A and S in whole mm."""
    return "(" + ", ".join(f"{x:.0f}" for x in point) + ")"
