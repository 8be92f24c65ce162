"""The worker process: reads jobs from stdin, answers on stdout and keeps models loaded. In Slicer, only this process imports torch.

Run as `python -m UNetPlusPlusSegmentLib.jobs.worker_main FOLDER`. Arrays are .npy files in FOLDER; everything else is one JSON object
per line.

To the worker:
    {"do": "segment", "job": 1, "volume": "1-volume.npy", "ijk_to_ras": 4 × 4, "bundle": folder, "request": Request.to_json()}
    {"do": "threshold", "job": 2, "of": 1, "threshold": 0.4, "show_from": 0.7 or null}  arguments of `Maps.at` for the last run
    {"do": "maps", "job": 3, "of": 1, "names": ["probability", "uncertainty"]}
    {"do": "device", "job": 4, "device": "auto"}
    {"do": "cancel", "job": 1}                                          answered by "failed" if the job has not ended
From the worker:
    {"say": "alive"}                        every second while it starts or works
    {"say": "ready"}                        once; before it, jobs are not read
    {"say": "progress", "job": 1, "phase": "slices", "done": 3, "total": 90, "seconds_left": 12.5 or null}
    {"say": "result", "job": 1, "labelmap": file, "result": Result.to_json()}
    {"say": "maps", "job": 3, "maps": {name: file}}
    {"say": "device", "job": 4, "device": label, "free_memory_bytes": number or null}
    {"say": "failed", "job": 1, "kind": "refused", "cancelled", "memory" or "crash", "message": one sentence}
    {"say": "failed", "job": null, …}       it cannot start
When its stdin closes it ends, and removes FOLDER.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .openmp import let_threads_sleep
from .pipes import take_pipes

if TYPE_CHECKING:
    from .job_handler import JobHandler

HEARTBEAT_S = 1.0


def main(folder: Path) -> int:
    """Serve until stdin closes."""
    faulthandler.enable()
    line = Line(folder)
    _in_background(line.beat)
    let_threads_sleep()
    try:  # before a thread reads stdin: on Windows, importing NumPy would then hang
        from .job_handler import JobHandler
    except (ImportError, OSError) as error:
        traceback.print_exc()
        reason = " ".join(str(error).split())
        message = (
            f"The network cannot run, because PyTorch cannot be loaded ({reason}). Install PyTorch again: in Slicer with the"
            " PyTorch Utils module, elsewhere with pip."
        )
        line.say("failed", job=None, kind="refused", message=message)
        return 1
    handler = JobHandler(folder, line.say)
    jobs: queue.SimpleQueue[dict] = queue.SimpleQueue()
    _in_background(_listen, line, handler, jobs)
    line.busy = False
    line.say("ready")
    while True:
        job = jobs.get()
        line.busy = True
        handler.handle(job)
        line.busy = False


class Line:
    """The two pipes to the parent, protected from other code that reads stdin or prints."""

    def __init__(self, folder: Path) -> None:
        self.busy = True
        self._folder, self._lock, self._leaving = folder, threading.Lock(), threading.Lock()
        self._requests, self._answers = take_pipes()

    def say(self, what: str, **more: object) -> None:
        """Write one message; from any thread."""
        text = json.dumps({"say": what, **more})
        try:
            with self._lock:
                self._answers.write(text.encode("ascii") + b"\n")
                self._answers.flush()
        except OSError:
            self.leave()

    def beat(self) -> NoReturn:
        """Report once a second, while busy, that the process is alive."""
        while True:
            if self.busy:
                self.say("alive")
            time.sleep(HEARTBEAT_S)

    def hear(self) -> dict:
        """Wait for the parent's next message; ends the process if the pipe was closed."""
        text = self._requests.readline()
        return json.loads(text) if text else self.leave()

    def leave(self) -> NoReturn:
        """End the process at once and remove its folder, which the parent, now gone, cannot do any more."""
        self._leaving.acquire()  # never released: other threads that get here wait for the end
        os.chdir(self._folder.parent)
        folder = self._folder
        with contextlib.suppress(OSError):
            # Renamed, so that a running job cannot add files; not on Windows, if it is the current folder of a launcher.
            folder = folder.rename(folder.with_suffix(".gone"))
        for file in folder.glob("[0-9]*-*.npy"):
            with contextlib.suppress(OSError):
                file.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
        os._exit(0)


def _listen(line: Line, handler: JobHandler, jobs: queue.SimpleQueue[dict]) -> NoReturn:
    while True:
        message = line.hear()
        if message["do"] == "cancel":
            handler.cancelled = message["job"]
        else:
            jobs.put(message)


def _in_background(function: Callable[..., object], *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
