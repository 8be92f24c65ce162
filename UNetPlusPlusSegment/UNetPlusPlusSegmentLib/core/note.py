"""Notes: what a user should read beside a result. The standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """A sentence for the user.

    Attributes:
        kind: Short identifier, such as `forced`, for programs to compare.
        text: For people; its wording may change.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text
