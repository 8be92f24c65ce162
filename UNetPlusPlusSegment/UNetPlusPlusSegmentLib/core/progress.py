"""Progress: how far a run has come, phase by phase, and the time left. The standard library only."""

from __future__ import annotations

import time

LUNGS, SEARCH, CANDIDATES = "lungs", "search", "candidates"  # phases of a search for nodules
OVERVIEW, SLICES, BETWEEN = "overview", "slices", "slices between"  # phases for an organ; the last one may repeat


def in_words(done: int, total: int, phase: str) -> str:
    """`candidates 3 of 9`; only the name of the phase if nothing is counted in it."""
    return f"{phase} {done} of {total}" if total else phase


class Pace:
    """The speed of the current phase."""

    def __init__(self) -> None:
        """Nothing has been reported yet."""
        self._phase, self._done = "", 0
        self._first = 0.0, 0  # time and count of its first report, whose duration also covers what came before

    def seconds_left(self, done: int, total: int, phase: str) -> float | None:
        """Seconds to the end of the phase, at its speed since its first report; None at that first report."""
        now = time.monotonic()
        begins = phase != self._phase or done <= self._done
        self._phase, self._done = phase, done
        if begins:
            self._first = now, done
            return None
        began, before = self._first
        return (now - began) / (done - before) * (total - done)
