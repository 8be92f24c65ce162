"""Runs of the network in a session: starts them, follows them, and changes their results. Uses the state of the page, not its widgets."""
# ruff: noqa: ANN001 (Slicer's nodes have no types to import)

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from trame_server.state import State
from trame_server.utils.asynchronous import create_task

from ..core.progress import in_words
from ..core.result import Result
from ..jobs.protocol import JobError
from ..network.bundle import Bundle
from ..scene import showing
from ..scene.logic import Segmenter
from ..scene.scene_runs import SceneRun
from .views import Views

POLL_S = 0.05


class Runs:
    """Runs the network for one session, one run at a time.

    Attributes:
        current: The last run that was started.
        shown: The last run whose result is shown; None if there is none in this case.
        following: The task that follows the current run.
    """

    def __init__(
        self, state: State, views: Views, take_in: Callable[[SceneRun, Result], None], tell: Callable[..., None]
    ) -> None:
        """Run nothing yet.

        Args:
            state: State of the page.
            views: Where the maps of probabilities are shown.
            take_in: Called with each result, which is in the scene already.
            tell: Called with each message, and with `wrong=True` if it is about an error.
        """
        self.current: SceneRun | None = None
        self.shown: SceneRun | None = None
        self.following: asyncio.Task | None = None
        self._state, self._views, self._take_in, self._tell = state, views, take_in, tell
        self._segmenter = Segmenter()
        state.change("threshold")(lambda threshold, **_: self.set_threshold(threshold))
        state.change("show_from")(lambda show_from, **_: self.set_show_from(show_from))
        state.change("overlay")(lambda **_: self._show_overlay())

    def start(self, segmentation, bundle: Bundle, points: list | None = None) -> None:
        """Segment the volume that is shown, replacing segments of the target; or only the nodules at points, adding them."""
        state = self._state
        try:
            run = self._segmenter.start(
                self._views.volume, segmentation, state.target, speed=state.speed, device=state.device,
                threshold=state.threshold, showFrom=state.show_from if bundle.decision else None, model=bundle.name, points=points,
                existing="new" if points else "replace", maps=["probability"],
            )  # fmt: skip
        except ValueError as error:
            self._tell(str(error), wrong=True)
            return
        self._tell("")
        state.update({"running": True, "progress": 0, "progress_text": "Starting …", "took": ""})
        self._follow(run)

    def cancel(self) -> None:
        """Stop the run; the scene is not changed."""
        if self.current and self._state.running:
            self.current.cancel()

    def leave(self) -> None:
        """Stop the run, and show nothing more of it."""
        self.cancel()
        if self.following:
            self.following.cancel()
        self._state.update({"running": False, "progress_text": ""})

    def close(self) -> None:
        """End the worker."""
        self._segmenter.close()

    def set_threshold(self, threshold: float) -> None:
        """Apply another threshold to the last result, without running the network."""
        self._change_result(lambda run: run.set_threshold(float(threshold)))

    def set_show_from(self, probability: float) -> None:
        """Show the findings of the last result from another probability; corrected segments are kept."""
        self._change_result(lambda run: run.set_show_from(float(probability)))

    def _change_result(self, change: Callable[[SceneRun], None]) -> None:
        """Change the result that is shown, or the one that is on its way, unless the value is for another model or target."""
        run, state = self.current if self._state.running else self.shown, self._state
        if run is None or (run.bundle.name, run.target) != (state.model, state.target):
            return
        try:
            change(run)
        except ValueError as error:
            self._tell(str(error), wrong=True)
            return
        if run.jobs and (self.following is None or self.following.done()):
            self._follow(run)

    def _follow(self, run: Any) -> None:
        self.current = run
        self.following = create_task(self._watch(run))

    async def _watch(self, run: SceneRun) -> None:
        """Poll the worker until the run has ended; show its progress, its result as soon as it arrives, and then its map."""
        seen, started = run.result, time.perf_counter()
        try:
            while run.running or run.jobs:
                self._segmenter.poll()
                is_new = run.result is not seen
                # After several thresholds, only the last result.
                if run.result and is_new and (seen is None or not run.jobs):
                    seen = run.result
                    self._show(run, seen)
                    took = f"{seen.scan_slices} slices on {seen.device}, {time.perf_counter() - started:.1f} s from click to mask"
                    self._state.took = self._state.took or took  # kept if only the threshold has changed
                self._show_progress(run)
                await asyncio.sleep(POLL_S)
            self._show_overlay()
            if run.error:
                cancelled = isinstance(run.error, JobError) and run.error.kind == "cancelled"
                self._tell(str(run.error), wrong=not cancelled)
        finally:
            if run is self.current:
                self._state.update({"running": False, "progress_text": ""})
                self._state.flush()

    def _show(self, run: SceneRun, result: Result) -> None:
        """Take in a result; the maps of the run before are removed."""
        if run is not self.shown:
            for each in self.shown.mapNodes if self.shown else ():
                showing.remove(each)
            self.shown = run
        self._take_in(run, result)

    def _show_progress(self, run: SceneRun) -> None:
        if run.running and run.progress:
            done, total, left = run.progress.done, run.progress.total, run.progress.seconds_left
            text = in_words(done, total, run.progress.phase).capitalize()
            text += f", {left:.0f} s left" if left is not None else ""
            self._state.update({"progress": round(100 * done / total) if total else 0, "progress_text": text})
        self._state.flush()

    def _show_overlay(self) -> None:
        maps = self.shown.mapNodes if self.shown else []
        self._views.overlay(maps[-1] if maps and self._state.overlay else None)
