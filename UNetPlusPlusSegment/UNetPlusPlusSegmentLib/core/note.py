"""Notes for the user about a result. The standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A sentence for the user.

    Attributes:
        kind: Short identifier for programs, such as `forced`.
        text: The sentence; its wording may change.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text
