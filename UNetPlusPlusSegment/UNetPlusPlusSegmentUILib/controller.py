"""The runs that panel and effect wait for: one timer polls the logic for all of them. Uses Qt's timer, but no widget and no MRML."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import qt

POLL_MS = 100  # between two polls of the worker


class RunWatcher(Protocol):
    """What the watcher of a run implements; called on the main thread, from the event loop."""

    def onRunProgress(self, run):
        """Show `run.progress` and `run.device`; called repeatedly during the run."""

    def onRunEnded(self, run):
        """Use `run.result`. Called once; `onRunFailed` follows if a map could not be made."""

    def onRunFailed(self, run, error):
        """Report why there is no result, or no map; the error is of kind `cancelled` if the run was cancelled."""

    def onThresholdChanged(self, run):
        """Use the new `run.result`, after `RunController.setThreshold`."""

    def onThresholdRefused(self, run, error):
        """Report why the threshold of a result cannot be changed."""


class RunController:
    """Polls the logic while there is something to wait for, and calls the watcher of each run.

    Panel, effect and scripts share one logic. Whoever polls it or cancels a run, watchers are called only at the next tick of the
    timer: a message box that they open must not block a script's own poll.
    """

    def __init__(self, logic):
        """Watch nothing yet.

        Args:
            logic: A `Segmenter`.
        """
        self.logic = logic
        self._watches: dict[object, _Watch] = {}
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.setSingleShot(True)  # a repeating timer would stop while its slot shows a message box
        self._timer.connect("timeout()", self._onTimer)

    def watch(self, run, watcher: RunWatcher):
        """Call `watcher` about a run of the logic until `forget`; returns the run."""
        self._watches[run] = _Watch(watcher, _tellEnd)
        self._timer.start()
        return run

    def setThreshold(self, run, threshold: float, showFrom=None):
        """Apply another threshold, and another lowest probability of findings, to the result of a watched run.

        Its watcher is called once that is done, and with the reason why one of them cannot be applied.
        """
        watch = self._watches[run]
        for change, value in ((run.set_threshold, threshold), (run.set_show_from, showFrom)):
            try:
                if value is not None:
                    change(value)
            except ValueError as error:  # an edit refuses another threshold, but not another probability
                watch.watcher.onThresholdRefused(run, error)
        if run.jobs:
            watch.awaited = watch.awaited or _tellThreshold
            self._timer.start()

    def forget(self, run):
        """Stop watching a run; the run itself continues unless it is cancelled."""
        self._watches.pop(run, None)

    def close(self):
        """Call the watchers a last time, after the logic was closed and all runs have ended, and stop polling."""
        self._callWatchers()
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimer)  # the connection would keep this object alive

    def _onTimer(self):
        try:
            self.logic.poll()
        finally:
            self._timer.start()
        self._callWatchers()
        if not self.logic.busy and not any(watch.awaited for watch in self._watches.values()):
            self._timer.stop()

    def _callWatchers(self):
        for run, watch in list(self._watches.items()):
            if run not in self._watches:  # another watcher has called `forget` for it
                continue
            if run.running:
                watch.watcher.onRunProgress(run)
            elif watch.awaited and not run.jobs:
                # Cleared first, as the timer goes on while a message box is open.
                tell, watch.awaited = watch.awaited, None
                tell(run, watch.watcher)


@dataclass
class _Watch:
    watcher: RunWatcher
    awaited: Callable | None  # function to call with run and watcher once the run has no jobs left


def _tellEnd(run, watcher: RunWatcher):
    error = run.error  # read first, as a change of the threshold in onRunEnded clears it
    if run.result:
        watcher.onRunEnded(run)
    if error:
        watcher.onRunFailed(run, error)


def _tellThreshold(run, watcher: RunWatcher):
    if run.error:
        watcher.onThresholdRefused(run, run.error)
    else:
        watcher.onThresholdChanged(run)
