"""The parent's side of a cohort in a process of its own: it never blocks. No Qt and no torch."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ..core.request import Request
from .child_process import ChildProcess, python_executable
from .manifest import CohortError


class CohortProcess:
    """A cohort under way; call `poll` about every 0.1 s until it has ended. It ends with this object.

    Attributes:
        running: False once all cases have ended, or the cohort has failed or was cancelled.
        done, total: Cases that have ended, with those of earlier calls, and all of them; 0 of 0 before it has begun.
        case: The one under way; empty for none.
        error: Why it could not be run, or not to its end; None for no reason.
    """

    def __init__(self, inputs: str | Path, folder: str | Path, request: Request) -> None:
        """Start it.

        Args:
            inputs: A folder of volume files and DICOM folders.
            folder: For the results.
            request: For every case.

        Raises:
            CohortError: The process cannot be started.
        """
        self.running = True
        self.error: CohortError | None = None
        self.done = self.total = 0
        self.case = ""
        self._begun_at, self._begun_with = 0.0, 0
        self._folder = tempfile.TemporaryDirectory(prefix="unetpp-cohort-", ignore_cleanup_errors=True)
        command = [python_executable(), "-m", f"{__package__}.cohort_main"]
        try:
            self._process = ChildProcess(command, Path(self._folder.name))
        except OSError as error:
            raise CohortError(f"The process {command[0]} cannot be started ({error.strerror or error}).") from error
        self._process.send({"inputs": str(inputs), "folder": str(folder), "request": request.to_json()})

    @property
    def seconds_left(self) -> float | None:
        """Time left, from that of the cases so far; None until one has ended."""
        ended = self.done - self._begun_with
        return (time.monotonic() - self._begun_at) / ended * (self.total - self.done) if ended > 0 else None

    def poll(self) -> list[dict[str, Any]]:
        """The manifest's lines of the cases that have ended since the last call."""
        records = []
        for line in self._process.received():
            if line is None:
                if self.running:
                    self._end(
                        f"The process of the cohort {self._process.how_it_ended()[1]}. What is done stays done: run it again."
                    )
                break
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a launcher that prints
                message = json.loads(line)
                if message["say"] == "ended":
                    records.append(message["record"])
                elif message["say"] == "progress":
                    if not self.total:
                        self._begun_at, self._begun_with = time.monotonic(), message["done"]
                    self.done, self.total, self.case = message["done"], message["total"], message["case"]
                elif message["say"] == "failed":
                    self._end(message["message"])
                elif message["say"] == "done":
                    self._end("")
        return records

    def cancel(self) -> None:
        """End it at once; what is done stays done."""
        if self.running:
            self._end("Cancelled.")

    def _end(self, reason: str) -> None:
        self.running, self.case = False, ""
        self.error = CohortError(reason) if reason else None
        self._process.close()
        self._folder.cleanup()
