"""Events: what a worker process tells its parent. The standard library and NumPy only; knows no Qt and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.result import Result

RESULT_GONE = (
    "The maps of this run are no longer at hand, because another run came after it or the worker process was started"
    " anew: run it again."
)


class JobError(ValueError):
    """A job that came to no result; the text is one sentence for the user.

    Attributes:
        kind: `cancelled`; `refused`: the input, the model or the device cannot be used; `memory`: too little of it;
            `hang`: the worker went silent; `crash`: anything else.
        details: The last lines that the worker wrote on stderr, for a log.
    """

    def __init__(self, kind: str, message: str, details: str = "") -> None:
        super().__init__(message)
        self.kind, self.details = kind, details


@dataclass(frozen=True)
class Progress:
    """Slices done and to do; `seconds_left` is None until the speed is known."""

    job: int
    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True, eq=False)
class ResultReady:
    """A job's result; the maps stay in the worker."""

    job: int
    result: Result


@dataclass(frozen=True, eq=False)
class MapsReady:
    """The maps that were asked for, by name (`probability`, `uncertainty`): float32 (K, J, I), the volume's own voxels."""

    job: int
    maps: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class DeviceState:
    """The device that a job would use now, and its free memory; None where the system does not tell."""

    job: int
    device: str
    free_memory_bytes: int | None


@dataclass(frozen=True)
class Failed:
    """A job that came to no result, and why."""

    job: int
    error: JobError


Event = Progress | ResultReady | MapsReady | DeviceState | Failed


def event_from_message(message: Mapping, folder: Path, details: str) -> Event:
    """Turn a line of the worker about a job into an event, with the arrays that it names.

    Args:
        message: As `worker_main` describes it.
        folder: Where the arrays lie.
        details: For an error.

    Raises:
        KeyError, TypeError, ValueError, OSError: It is no such message, or an array is not there.
    """
    say, job = message["say"], message["job"]
    if say == "progress":
        return Progress(job, message["done"], message["total"], message["seconds_left"])
    if say == "result":
        return ResultReady(job, Result.from_json(message["result"], np.load(folder / message["labelmap"])))
    if say == "maps":
        return MapsReady(job, {name: np.load(folder / file) for name, file in message["maps"].items()})
    if say == "device":
        return DeviceState(job, message["device"], message["free_memory_bytes"])
    if say == "failed":
        return Failed(job, JobError(message["kind"], message["message"], details))
    raise ValueError(f"no message of the worker: {say!r}")
