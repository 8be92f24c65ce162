"""Events that a worker process reports to its parent. The standard library and NumPy only; no Qt and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.result import Result

RESULT_GONE = (
    "The maps of this run are no longer available, because another run followed or the worker process was restarted: run"
    " the segmentation again."
)


class JobError(ValueError):
    """A job that ended without a result; the message is a sentence for the user.

    Attributes:
        kind: `cancelled`; `refused`: the input, the model or the device cannot be used; `memory`: not enough memory;
            `hang`: the worker stopped responding; `crash`: anything else.
        details: The last lines of the worker's stderr, for a log.
    """

    def __init__(self, kind: str, message: str, details: str = "") -> None:
        super().__init__(message)
        self.kind, self.details = kind, details


@dataclass(frozen=True)
class Progress:
    """How far a job is: slices or candidates done and in total, in a phase of the run.

    Attributes:
        phase: As in `core.progress`. At its end, `done` equals `total`; both are 0 if nothing is counted.
        seconds_left: Time to the end of the phase; None until the speed is known.
        frame: For a sequence, the number of the frame, from 1, and the number of frames.
    """

    job: int
    phase: str
    done: int
    total: int
    seconds_left: float | None
    frame: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class ResultReady:
    """A job's result; the maps stay in the worker."""

    job: int
    result: Result


@dataclass(frozen=True, eq=False)
class MapsReady:
    """The requested maps by name (`probability`, `uncertainty`): float32 (K, J, I) on the volume's own voxels."""

    job: int
    maps: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class DeviceState:
    """The device that a job would use now, and its free memory (None if unknown)."""

    job: int
    device: str
    free_memory_bytes: int | None


@dataclass(frozen=True)
class Failed:
    """A job that ended without a result, and the reason."""

    job: int
    error: JobError


Ended = ResultReady | MapsReady | DeviceState | Failed  # how a job may end
Event = Progress | Ended


def event_from_message(message: Mapping, folder: Path, details: str) -> Event:
    """Convert a message of the worker about a job to an event, and load the arrays that it names.

    Args:
        message: A message as in `worker_main`.
        folder: The folder of the arrays.
        details: Used for `JobError.details` if the job failed.

    Raises:
        KeyError, TypeError, ValueError, OSError: The message is invalid, or an array is missing.
    """
    say, job = message["say"], message["job"]
    if say == "progress":
        return Progress(job, message["phase"], message["done"], message["total"], message["seconds_left"])
    if say == "result":
        return ResultReady(job, Result.from_json(message["result"], np.load(folder / message["labelmap"])))
    if say == "maps":
        return MapsReady(job, {name: np.load(folder / file) for name, file in message["maps"].items()})
    if say == "device":
        return DeviceState(job, message["device"], message["free_memory_bytes"])
    if say == "failed":
        return Failed(job, JobError(message["kind"], message["message"], details))
    raise ValueError(f"unknown message {say!r}")
