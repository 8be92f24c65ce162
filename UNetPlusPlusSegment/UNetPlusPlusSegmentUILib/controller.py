"""The runs that panel and effect wait for: one timer polls the logic for all of them. Knows the timer of Qt; no widget, no MRML."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import qt

POLL_MS = 100  # between two looks at the worker


class RunWatcher(Protocol):
    """The calls that a watcher of a run gets, on the main thread, from the event loop."""

    def onRunProgress(self, run):
        """Show `run.progress` and `run.device`; called again and again while the run is under way."""

    def onRunEnded(self, run):
        """Take `run.result`. Called once; `onRunFailed` follows if a map could not be made."""

    def onRunFailed(self, run, error):
        """Tell why there is no result, or no map; an error of kind `cancelled` if somebody cancelled the run."""

    def onThresholdChanged(self, run):
        """Take the new `run.result`, after `RunController.makeAnew`."""

    def onThresholdRefused(self, run, error):
        """Tell why the threshold of a result stays as it is."""


class RunController:
    """Polls the logic while there is something to wait for, and tells the watcher of each run.

    Panel, effect and scripts share one logic: whoever polled it, and whoever cancelled a run, its watcher is told at the next
    tick of the timer. Never from inside a script's own poll, which a message box would hold up.
    """

    def __init__(self, logic):
        """Nothing is watched yet.

        Args:
            logic: A `Segmenter`.
        """
        self.logic = logic
        self._watches: dict[object, _Watch] = {}
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.setSingleShot(True)  # one that repeats is silent while a slot of it shows a message box
        self._timer.connect("timeout()", self._onTimer)

    def watch(self, run, watcher: RunWatcher):
        """Tell `watcher` about a run of the logic, until `forget`; returns the run."""
        self._watches[run] = _Watch(watcher, _tellEnd)
        self._timer.start()
        return run

    def makeAnew(self, run, threshold: float, showFrom=None):
        """Apply another threshold to the result of a watched run, or show its findings from another probability on.

        Its watcher is told once that is done, or why it cannot be.
        """
        watch = self._watches[run]
        try:
            run.set_threshold(threshold)
            if showFrom is not None:
                run.set_show_from(showFrom)
        except ValueError as error:
            watch.watcher.onThresholdRefused(run, error)
            return
        if run.jobs:
            watch.awaited = watch.awaited or _tellThreshold
            self._timer.start()

    def forget(self, run):
        """Tell nobody about a run any more; it goes on, unless it is cancelled."""
        self._watches.pop(run, None)

    def close(self):
        """Tell for the last time, after the logic was closed: all runs are over. Poll no more."""
        self._tell()
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimer)  # the connection would keep this object alive

    def _onTimer(self):
        try:
            self.logic.poll()
        finally:
            self._timer.start()
        self._tell()
        if not self.logic.busy and not any(watch.awaited for watch in self._watches.values()):
            self._timer.stop()

    def _tell(self):
        for run, watch in list(self._watches.items()):
            if run not in self._watches:  # forgotten by a call to another watcher
                continue
            if run.running:
                watch.watcher.onRunProgress(run)
            elif watch.awaited and not run.jobs:
                tell, watch.awaited = watch.awaited, None  # first: in a message box the timer goes on
                tell(run, watch.watcher)


@dataclass
class _Watch:
    watcher: RunWatcher
    awaited: Callable | None  # called with run and watcher once the run has no jobs left


def _tellEnd(run, watcher: RunWatcher):
    error = run.error  # a change of the threshold clears it
    if run.result:
        watcher.onRunEnded(run)
    if error:
        watcher.onRunFailed(run, error)


def _tellThreshold(run, watcher: RunWatcher):
    if run.error:
        watcher.onThresholdRefused(run, run.error)
    else:
        watcher.onThresholdChanged(run)
