"""The jobs of a worker process, and what it keeps between them. torch and NumPy; used by `worker_main`."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch.nn.modules.module import register_module_forward_pre_hook

from ..api import Engine, load_engine
from ..core.progress import Pace
from ..core.request import Request
from ..core.result import Result
from ..core.volume import Volume
from ..engine.maps import Maps
from ..engine.predictor import ProgressCallback
from ..network.bundle import read_bundle
from ..network.device import choose_device, is_out_of_memory
from .allocator import free_memory_bytes, give_back_freed_memory, keep_freed_memory
from .arrays import save_array
from .protocol import RESULT_GONE, JobError

TOO_LITTLE_MEMORY = (
    "There is not enough memory for this volume. Close other programs, crop the volume, or choose another device."
)


class JobHandler:
    """The engines, each loaded once, and the maps of the last run."""

    def __init__(self, folder: Path, say: Callable[..., None]) -> None:
        """Prepare the process.

        Args:
            folder: The folder for arrays in both directions.
            say: Sends a message as in `worker_main`.
        """
        self.cancelled: int | None = None  # number of the job to stop; set by the listening thread
        self._folder, self._say = folder, say
        self._job = 0
        self._engines: dict[tuple[str, str], Engine] = {}
        self._kept: tuple[int, Maps] | None = None  # number of the last segmentation, and its maps
        self._tasks: dict[str, Callable[..., None]] = {
            "segment": self.segment, "threshold": self.threshold, "maps": self.maps, "device": self.device
        }  # fmt: skip
        keep_freed_memory()
        # Checks between layers, so that cancelling need not wait for a whole slice.
        register_module_forward_pre_hook(self._check)

    def handle(self, message: dict) -> None:
        """Run a job and answer, with an error if it fails."""
        task, self._job = self._tasks[message.pop("do")], message.pop("job")
        try:
            self._check()
            task(**message)
        except Exception as error:
            if not isinstance(error, JobError):
                traceback.print_exc()
            kind, sentence = _explain(error)
            self._say("failed", job=self._job, kind=kind, message=sentence)
        give_back_freed_memory()

    def segment(self, volume: str, ijk_to_ras: Sequence[Sequence[float]], bundle: str, request: dict) -> None:
        """Run the network on a volume."""
        ct = Volume(np.load(self._folder / volume), np.array(ijk_to_ras))
        with contextlib.suppress(OSError):  # makes space for the result
            (self._folder / volume).unlink()
        asked = Request.from_json(request)
        maps = self._engine(bundle, asked.device).predict(ct, asked, self._progress())
        self._answer(maps.at(), maps)

    def threshold(self, of: int, threshold: float, show_from: float | None) -> None:
        """Send the last result at another threshold or lowest probability."""
        self._answer(self._last(of).at(threshold, show_from))

    def maps(self, of: int, names: Sequence[str]) -> None:
        """Save maps of the last run."""
        last = self._last(of)
        maps = {"probability": last.probability, "uncertainty": last.uncertainty}
        self._say("maps", job=self._job, maps={name: self._save(name, maps[name]()) for name in names})

    def device(self, device: str) -> None:
        """Report the device that a run would use."""
        chosen = choose_device(device)
        self._say("device", job=self._job, device=chosen.label, free_memory_bytes=free_memory_bytes(chosen.kind))

    def _engine(self, folder: str, device: str) -> Engine:
        """The engine for a model folder, reloaded only if its card has changed or it ran out of memory before."""
        bundle, key = read_bundle(folder), (folder, device)
        engine = self._engines.get(key)
        if engine is None or engine.bundle != bundle or engine.notes:  # notes are there only if it ran out of memory
            self._engines[key] = load_engine(bundle, device)
        self._check()
        return self._engines[key]

    def _progress(self) -> ProgressCallback:
        pace = Pace()

        def progress(done: int, total: int, phase: str) -> None:
            self._check()
            left = pace.seconds_left(done, total, phase)
            self._say("progress", job=self._job, phase=phase, done=done, total=total, seconds_left=left)

        return progress

    def _check(self, *_: object) -> None:
        """Stop the job if the parent has cancelled it."""
        if self.cancelled == self._job:
            raise JobError("cancelled", "Cancelled.")

    def _last(self, of: int) -> Maps:
        if self._kept is None or self._kept[0] != of:
            raise JobError("refused", RESULT_GONE)
        return self._kept[1]

    def _answer(self, result: Result, maps: Maps | None = None) -> None:
        """Send a result, which can no longer be cancelled then, and keep its maps if they are new."""
        labelmap = self._save("labelmap", result.labelmap)
        if maps:
            self._kept = self._job, maps
        self._say("result", job=self._job, labelmap=labelmap, result=result.to_json())

    def _save(self, name: str, array: np.ndarray) -> str:
        self._check()
        return save_array(self._folder, self._job, name, array)


def _explain(error: Exception) -> tuple[str, str]:
    """The kind of a failure, and a sentence for the user."""
    text = " ".join(str(error).split())
    if isinstance(error, JobError):
        return error.kind, text
    if is_out_of_memory(error):
        return "memory", TOO_LITTLE_MEMORY
    if isinstance(error, ValueError) and type(error).__module__.startswith(__package__.partition(".")[0]):
        return "refused", text
    return "crash", f"The worker process failed with an unexpected error ({type(error).__name__}: {text})."
