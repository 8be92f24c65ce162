"""The parent's side of a worker process: takes jobs and returns events, without blocking. No Qt and no torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.request import Request
from ..core.result import Result
from ..core.volume import Volume
from .arrays import ArrayFolder
from .child_process import ChildProcess, python_executable
from .protocol import RESULT_GONE, Ended, Event, Failed, JobError, Progress, ResultReady, event_from_message

CANCEL_S = 0.5  # time for the worker to stop by itself, before it is killed
SILENCE_S = 120.0  # loading torch for the first time, from a slow disk, may take a minute without a message
AGAIN = ". The next run starts a new worker process."


@dataclass
class _Job:
    number: int
    message: dict
    sent: bool = False
    kill_at: float | None = None  # monotonic time; set when it is cancelled


class Worker(contextlib.AbstractContextManager):
    """A child process that runs jobs one at a time; it is started by the first job, and again after it has died.

    Use it from one thread only, and call `poll` about every 0.1 s while it is `busy`. The child ends with this object, with this
    process, or at `close`, which also removes its temporary folder; a later job starts another child.
    """

    def __init__(self, command: Sequence[str] | None = None, silence_s: float = SILENCE_S) -> None:
        """Start nothing yet.

        Args:
            command: The command of the child, which gets the folder for the arrays as its last argument. If None,
                `worker_main` with PythonSlicer inside Slicer, or with this Python elsewhere.
            silence_s: A busy child that sends no line for this long is treated as hung.
        """
        self._command = list(command or (python_executable(), "-m", f"{__package__}.worker_main"))
        self.silence_s = silence_s
        self._numbers = itertools.count(1)
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._events: list[Event] = []
        self._process: ChildProcess | None = None
        self._arrays = ArrayFolder()
        self._silent_s = self._polled_at = 0.0
        self._ready = False
        self.kept: int | None = None  # the job whose result can be thresholded again

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """ID of the child process (with PythonSlicer, of the launcher); None if there is none."""
        return self._process.pid if self._process else None

    @property
    def busy(self) -> bool:
        """True while `poll` has more events to report."""
        return bool(self._running or self._waiting or self._events)

    def submit(self, volume: Volume, bundle: str | Path, request: Request) -> int:
        """Start segmenting a volume; ends in `ResultReady` or `Failed`, with `Progress` before.

        Args:
            volume: In HU; written to the temporary folder, in its own type, before this returns.
            bundle: The folder of the model.
            request: The request, with box and points for this volume.

        Returns:
            The number of the job, which is also in its events.

        Raises:
            JobError: The temporary folder has no space for the volume.
        """
        number = next(self._numbers)
        try:
            file = self._arrays.put(number, "volume", volume.array)
        except JobError:
            self._arrays.sweep(self._under_way())
            raise
        return self._enqueue(
            number, do="segment", volume=file, ijk_to_ras=volume.ijk_to_ras.tolist(),
            bundle=str(Path(bundle).absolute()), request=request.to_json(),
        )  # fmt: skip

    def rethreshold(self, of: int, threshold: float | None, show_from: float | None = None) -> int:
        """Threshold the last segmentation, job `of`, again (`Maps.at`); ends in `ResultReady` or `Failed`."""
        return self._enqueue(next(self._numbers), do="threshold", of=of, threshold=threshold, show_from=show_from)

    def request_maps(self, of: int, *names: str) -> int:
        """Get `probability`, `uncertainty` or both of the last segmentation, job `of`; ends in `MapsReady` or `Failed`."""
        return self._enqueue(next(self._numbers), do="maps", of=of, names=names)

    def ask_device(self, device: str = "auto") -> int:
        """Ask which device a job would use and how much of its memory is free; ends in `DeviceState` or `Failed`."""
        return self._enqueue(next(self._numbers), do="device", device=device)

    def cancel(self, job: int) -> None:
        """Cancel a job; it ends in `Failed` of kind `cancelled` within a second, unless it has ended already."""
        running = self._running
        if running and running.number == job:
            if not running.sent:  # the child is still loading torch, which the next job will need
                self._end(running, _cancelled(job))
            elif self._process and running.kill_at is None:
                running.kill_at = time.monotonic() + CANCEL_S
                self._process.send({"do": "cancel", "job": job})
        elif job in self._under_way():
            self._waiting = deque(each for each in self._waiting if each.number != job)
            self._events.append(_cancelled(job))
            self._arrays.sweep(self._under_way())

    def poll(self) -> list[Event]:
        """The events since the last call, in order; does not block."""
        now = time.monotonic()
        # A long time between calls is not silence of the worker: this process was blocked, or the computer slept.
        self._silent_s += min(now - self._polled_at, 1.0)
        self._polled_at = now
        self._listen()
        kill_at = self._running.kill_at if self._running else None
        if kill_at is not None and now >= kill_at:
            self._replace("cancelled", "")
        elif self._running and self._silent_s > self.silence_s:
            self._replace("hang", f"The worker process has not answered for {self.silence_s:g} s and was ended{AGAIN}")
        self._advance()
        events, self._events = self._events, []
        return events

    def wait(self, job: int, progress: Callable[[Progress], None] | None = None) -> Ended:
        """Block until a job has ended; events of other jobs are kept for `poll`.

        Args:
            job: Its number.
            progress: Called with each `Progress` of this job. An exception that it raises cancels the job, as KeyboardInterrupt does.

        Raises:
            JobError: The job failed.
        """
        others: list[Event] = []
        try:
            while True:
                events = self.poll()
                others += [event for event in events if event.job != job]
                for event in (event for event in events if event.job == job):
                    if isinstance(event, Failed):
                        raise event.error
                    if not isinstance(event, Progress):
                        return event
                    if progress:
                        progress(event)
                if job not in self._under_way():
                    raise LookupError(f"Job {job} has ended already, or was never submitted.")
                time.sleep(0.01)
        except BaseException:
            self.cancel(job)
            raise
        finally:
            self._events = others + self._events

    def result_of(self, job: int) -> Result:
        """Block until a segmentation has ended, as `wait` does.

        Raises:
            JobError: The job failed.
        """
        ended = self.wait(job)
        if not isinstance(ended, ResultReady):
            raise LookupError(f"Job {job} is not a segmentation.")
        return ended.result

    def close(self) -> None:
        """End the child, drop all jobs and remove the temporary folder."""
        if self._process:
            self._process.close()
        self._forget_process()
        self._waiting.clear()
        self._events.clear()
        self._running = None
        self._arrays.remove()

    def _enqueue(self, number: int, **message: object) -> int:
        self._waiting.append(_Job(number, {"job": number, **message}))
        self._advance()
        return number

    def _under_way(self) -> list[int]:
        return [job.number for job in (self._running, *self._waiting) if job]

    def _advance(self) -> None:
        """Start the next job, and the child if there is none; send the job once the child is ready."""
        while self._running is None and self._waiting:
            if self._process and self._process.has_ended:  # it died after the last job
                self._forget_process()
            self._running = self._waiting.popleft()
            self._silent_s, self._polled_at = 0.0, time.monotonic()
            if self._process is None:
                self._start(self._running)
        if self._running and self._process and not self._running.sent and self._ready:
            self._running.sent = True
            self._process.send(self._running.message)

    def _start(self, job: _Job) -> None:
        if "of" in job.message:
            self._fail("refused", RESULT_GONE)
            return
        try:
            self._process = ChildProcess([*self._command, str(self._arrays.path)], self._arrays.path)
        except OSError as error:
            self._fail(
                "crash",
                f"The worker process {self._command[0]} cannot be started ({error.strerror or error}): check the installation of Python.",
            )

    def _listen(self) -> None:
        process = self._process
        if process is None:
            return
        for line in process.received():
            self._silent_s = 0.0
            self._take(line, process)
            if self._process is not process:
                return

    def _take(self, line: str | None, process: ChildProcess) -> None:
        """Handle a line of the child."""
        if line is None:
            kind, what = process.how_it_ended()
            self._replace(kind, f"The worker process {what}{AGAIN}")
            return
        try:
            message = json.loads(line)
            if message["say"] == "ready":
                self._ready = True
            elif message["say"] != "alive" and message["job"] is None:
                self._replace(message["kind"], message["message"])
            elif message["say"] != "alive" and self._running and message["job"] == self._running.number:
                event = event_from_message(message, self._arrays.path, process.last_words)
                self._settle(self._running, event)
        except (KeyError, TypeError, ValueError, OSError):
            if not self._ready:  # a launcher or a start-up script that prints
                process.note(line)
                return
            said = line.strip()[:60]
            self._replace("crash", f"The worker process sent an invalid message ({said!r}) and was ended{AGAIN}")

    def _settle(self, job: _Job, event: Event) -> None:
        """Handle an event of the running job."""
        cancelled = job.kill_at is not None
        if isinstance(event, Progress):
            if not cancelled:
                self._events.append(event)
        elif isinstance(event, Failed) and event.error.kind in ("memory", "crash"):
            # A new child starts with free memory and a working device.
            self._replace(event.error.kind, str(event.error))
        else:
            if isinstance(event, ResultReady) and job.message["do"] == "segment":
                self.kept = None if cancelled else event.job
            self._end(job, event)

    def _replace(self, kind: str, message: str) -> None:
        """Kill the child and end the running job; the next job starts another child."""
        details = ""
        if self._process:
            self._process.kill()
            details = self._process.last_words
        self._forget_process()
        self._fail(kind, message, details)

    def _forget_process(self) -> None:
        self._process = self.kept = None
        self._ready = False

    def _fail(self, kind: str, message: str, details: str = "") -> None:
        """End the running job, if there is one, without a result."""
        if self._running:
            self._end(self._running, Failed(self._running.number, JobError(kind, message, details)))

    def _end(self, job: _Job, event: Event) -> None:
        """End the running job; if it was cancelled, it ends as cancelled even if its result has arrived."""
        self._events.append(event if job.kill_at is None else _cancelled(event.job))
        self._running = None
        self._arrays.sweep(self._under_way())


def _cancelled(job: int) -> Failed:
    return Failed(job, JobError("cancelled", "Cancelled."))
