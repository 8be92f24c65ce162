"""What a worker process does with its jobs, and what it keeps from one to the next. torch and NumPy; `worker` is the way in."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch.nn.modules.module import register_module_forward_pre_hook

from ..bundles import read_bundle
from ..devices import choose_device
from ..inference import Result, SliceEngine
from ..volumes import Volume
from .events import RESULT_GONE, JobError
from .memory import free_memory_bytes, give_back_freed_memory, is_out_of_memory, keep_freed_memory

TOO_LITTLE_MEMORY = (
    "There is not enough memory for this volume: close other programs, crop the volume, or choose another device."
)


class Session:
    """The engines, loaded once each, and the last result with its maps."""

    def __init__(self, folder: Path, say: Callable[..., None]) -> None:
        """Prepare the process.

        Args:
            folder: Where arrays come from and go to.
            say: Sends a message, as `worker` describes them.
        """
        self.cancelled: int | None = None  # number of the job that is to stop; set by the thread that listens
        self._folder, self._say = folder, say
        self._job = 0
        self._engines: dict[tuple[str, str], SliceEngine] = {}
        self._kept: tuple[int, Result] | None = None
        self._tasks = {"segment": self.segment, "threshold": self.threshold, "maps": self.maps, "device": self.device}
        keep_freed_memory()
        register_module_forward_pre_hook(self._check)  # so that cancelling need not wait for a whole slice

    def handle(self, request: dict) -> None:
        """Do one job and answer, whatever happens."""
        task, self._job = self._tasks[request.pop("do")], request.pop("job")
        try:
            self._check()
            task(**request)
        except Exception as error:
            if not isinstance(error, JobError):
                traceback.print_exc()
            kind, message = _explain(error)
            self._say("failed", job=self._job, kind=kind, message=message)
        give_back_freed_memory()

    def segment(
        self, volume: str, ijk_to_ras: Sequence[Sequence[float]], bundle: str, device: str, options: Mapping
    ) -> None:
        """Run the network on a volume."""
        ct = Volume(np.load(self._folder / volume), np.array(ijk_to_ras))
        result = self._engine(bundle, device).segment(ct, **options, progress=self._progress())
        self._kept = self._job, result
        self._answer(result)

    def threshold(self, of: int, threshold: float) -> None:
        """Cut the last result at another probability."""
        self._answer(self._last(of).with_threshold(threshold))

    def maps(self, of: int, names: Sequence[str]) -> None:
        """Save maps of the last result."""
        result = self._last(of)
        maps = {"probability": result.probability, "uncertainty": result.uncertainty}
        self._say("maps", job=self._job, maps={name: self._save(name, maps[name]()) for name in names})

    def device(self, device: str) -> None:
        """Say what would be used."""
        chosen = choose_device(device)
        self._say("device", job=self._job, device=chosen.label, free_memory_bytes=free_memory_bytes(chosen.kind))

    def _engine(self, folder: str, device: str) -> SliceEngine:
        """The engine for a model folder, loaded anew only if its card has changed."""
        bundle, key = read_bundle(folder), (folder, device)
        if key not in self._engines or self._engines[key].bundle != bundle:
            self._engines[key] = SliceEngine(bundle, device)
        self._check()
        return self._engines[key]

    def _progress(self) -> Callable[[int, int], None]:
        first: tuple[float, int] | None = None

        def progress(done: int, total: int) -> None:
            nonlocal first
            self._check()
            now, left = time.monotonic(), None
            if first is None:  # its time holds all that came before, too, and says nothing about the speed
                first = now, done
            else:
                left = (now - first[0]) / (done - first[1]) * (total - done)
            self._say("progress", job=self._job, done=done, total=total, seconds_left=left)

        return progress

    def _check(self, *_: object) -> None:
        """Stop the job, if the parent wants it no more."""
        if self.cancelled == self._job:
            raise JobError("cancelled", "Cancelled.")

    def _last(self, of: int) -> Result:
        if self._kept is None or self._kept[0] != of:
            raise JobError("refused", RESULT_GONE)
        return self._kept[1]

    def _answer(self, result: Result) -> None:
        self._say(
            "result",
            job=self._job,
            labelmap=self._save("labelmap", result.labelmap),
            segments=[asdict(segment) for segment in result.segments],
            **{key: getattr(result, key) for key in ("notes", "threshold", "device", "slices", "seconds")},
        )

    def _save(self, name: str, array: np.ndarray) -> str:
        self._check()
        file = f"{self._job}-{name}.npy"
        np.save(self._folder / file, array)
        return file


def _explain(error: Exception) -> tuple[str, str]:
    """The kind of a failure, and one sentence for the user."""
    text = " ".join(str(error).split())
    if isinstance(error, JobError):
        return error.kind, text
    if is_out_of_memory(error):
        return "memory", TOO_LITTLE_MEMORY
    if isinstance(error, ValueError) and type(error).__module__.startswith(__package__.partition(".")[0]):
        return "refused", text
    return "crash", f"The worker process met an unexpected error ({type(error).__name__}: {text})."
