"""Progress: how far a run has come, phase by phase, and the time left. The standard library only."""

from __future__ import annotations

import time

LUNGS, SEARCH, CANDIDATES = "lungs", "search", "candidates"  # the phases of a search for nodules
OVERVIEW, SLICES, BETWEEN = "overview", "slices", "slices between"  # those of an organ; the last one may come again


def in_words(done: int, total: int, phase: str) -> str:
    """`candidates 3 of 9`; the name of a phase in which nothing is counted."""
    return f"{phase} {done} of {total}" if total else phase


class Pace:
    """The speed of the phase under way."""

    def __init__(self) -> None:
        """Nothing has been reported yet."""
        self._phase, self._done = "", 0
        self._first = 0.0, 0  # time and number done of its first report, which took as long as all before

    def seconds_left(self, done: int, total: int, phase: str) -> float | None:
        """The seconds to the end of a phase, by the speed since its first report; None at that report."""
        now = time.monotonic()
        begins = phase != self._phase or done <= self._done
        self._phase, self._done = phase, done
        if begins:
            self._first = now, done
            return None
        began, before = self._first
        return (now - began) / (done - before) * (total - done)
