"""The parent's side of a cohort that runs in a separate process; it never blocks. No Qt and no torch."""

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
from .protocol import JobError


class CohortProcess:
    """A running cohort; call `poll` about every 0.1 s until it has ended. It is killed with this object.

    Attributes:
        running: False once all cases have ended, or the cohort has failed or was cancelled.
        done, total: Number of cases that have ended, including those of earlier calls, and of all cases; 0 of 0 until it begins.
        case: The current case; empty if there is none.
        error: Why it failed, or a `JobError` of kind `cancelled`; None if it did neither.
    """

    def __init__(self, inputs: str | Path, folder: str | Path, request: Request) -> None:
        """Start it.

        Args:
            inputs: A folder of volume files and DICOM folders.
            folder: Folder for the results.
            request: The request for every case.

        Raises:
            CohortError: The process cannot be started.
        """
        self.running = True
        self.error: CohortError | JobError | None = None
        self.done = self.total = 0
        self.case = ""
        self._begun_at, self._begun_with = 0.0, 0
        self._folder = tempfile.TemporaryDirectory(prefix="unetpp-cohort-", ignore_cleanup_errors=True)
        command = [python_executable(), "-m", f"{__package__}.cohort_main"]
        try:
            self._process = ChildProcess(command, Path(self._folder.name))
        except OSError as error:
            raise CohortError(
                f"The process {command[0]} cannot be started ({error.strerror or error}): restart Slicer, or install it again."
            ) from error
        # Absolute, because the process runs in a folder of its own, which is removed at its end.
        folders = {"inputs": str(Path(inputs).absolute()), "folder": str(Path(folder).absolute())}
        self._process.send({**folders, "request": request.to_json()})

    @property
    def seconds_left(self) -> float | None:
        """Estimated time left, from the cases so far; None until one has ended."""
        ended = self.done - self._begun_with
        return (time.monotonic() - self._begun_at) / ended * (self.total - self.done) if ended > 0 else None

    def poll(self) -> list[dict[str, Any]]:
        """The manifest lines of the cases that have ended since the last call."""
        records = []
        for line in self._process.received():
            if line is None:
                if self.running:
                    how = self._process.how_it_ended()[1]
                    self._end(CohortError(f"The process of the cohort {how}. Run it again: finished cases are kept."))
                break
            with contextlib.suppress(ValueError, KeyError, TypeError):  # ignores what a launcher prints
                message = json.loads(line)
                if message["say"] == "ended":
                    records.append(message["record"])
                elif message["say"] == "progress":
                    if not self.total:
                        self._begun_at, self._begun_with = time.monotonic(), message["done"]
                    self.done, self.total, self.case = message["done"], message["total"], message["case"]
                elif message["say"] == "failed":
                    self._end(CohortError(message["message"]))
                elif message["say"] == "done":
                    self._end(None)
        return records

    def cancel(self) -> None:
        """End it at once; finished cases are kept."""
        if self.running:
            self._end(JobError("cancelled", "Cancelled."))

    def _end(self, error: CohortError | JobError | None) -> None:
        self.running, self.case, self.error = False, "", error
        self._process.close()
        self._folder.cleanup()
