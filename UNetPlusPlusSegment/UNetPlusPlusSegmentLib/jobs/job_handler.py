"""What a worker process does with its jobs, and what it keeps from one to the next. torch and NumPy; `worker_main` is the way in."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch.nn.modules.module import register_module_forward_pre_hook

from ..api import load_engine
from ..core.volume import Volume, check_ct, crop
from ..engine.organ import SliceEngine
from ..engine.result import Cut, Result
from ..network.bundle import read_bundle
from ..network.device import choose_device, is_out_of_memory
from ..nodule.engine import NoduleEngine
from .allocator import free_memory_bytes, give_back_freed_memory, keep_freed_memory
from .arrays import save_array
from .protocol import RESULT_GONE, JobError

TOO_LITTLE_MEMORY = (
    "There is not enough memory for this volume: close other programs, crop the volume, or choose another device."
)


@dataclass(frozen=True)
class _Kept:
    """A job's result, the box (K, J, I) of the volume that it is about, and the shape of that volume."""

    job: int
    result: Result
    box: tuple[slice, ...]
    shape: tuple[int, ...]


class Session:
    """The engines, loaded once each, and the last result with its maps."""

    def __init__(self, folder: Path, say: Callable[..., None]) -> None:
        """Prepare the process.

        Args:
            folder: Where arrays come from and go to.
            say: Sends a message, as `worker_main` describes them.
        """
        self.cancelled: int | None = None  # number of the job that is to stop; set by the thread that listens
        self._folder, self._say = folder, say
        self._job = 0
        self._engines: dict[tuple[str, str], SliceEngine] = {}
        self._kept: _Kept | None = None
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
        self,
        volume: str,
        ijk_to_ras: Sequence[Sequence[float]],
        bundle: str,
        device: str,
        options: dict,
        box: Sequence[Sequence[int]] | None,
    ) -> None:
        """Run the network on a volume, or on what lies in a box of its voxels."""
        ct = Volume(np.load(self._folder / volume), np.array(ijk_to_ras))
        with contextlib.suppress(OSError):  # so that there is room for the result
            (self._folder / volume).unlink()
        engine, shape = self._engine(bundle, device), ct.array.shape
        inside = tuple(slice(*along) for along in box or [(0, size) for size in shape])
        if box and isinstance(engine, NoduleEngine) and "points" not in options:
            options["box"], box, inside = inside, None, tuple(slice(size) for size in shape)
        if box:
            of_whole = check_ct(ct, options["force"])  # in a box inside the body there is no air
            ct, options["force"] = crop(ct, inside), True
        result = engine.segment(ct, **options, progress=self._progress())
        if box:
            heed = partial(_notes_of_whole, of_whole, check_ct(ct, force=True))
            result = replace(result, notes=tuple(heed(result.notes)), cut=partial(_with_notes, result.cut, heed))
        self._kept = _Kept(self._job, result, inside, shape)
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
        """The engine for a model folder, loaded anew only if its card has changed, or if it had to help itself."""
        bundle, key = read_bundle(folder), (folder, device)
        engine = self._engines.get(key)
        if (
            engine is None or engine.bundle != bundle or engine.notes
        ):  # notes: memory ran out; perhaps there is some again
            self._engines[key] = load_engine(bundle, device)
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
        if self._kept is None or self._kept.job != of:
            raise JobError("refused", RESULT_GONE)
        return self._kept.result

    def _answer(self, result: Result) -> None:
        self._say(
            "result",
            job=self._job,
            labelmap=self._save("labelmap", result.labelmap),
            segments=[asdict(segment) for segment in result.segments],
            **{key: getattr(result, key) for key in ("notes", "threshold", "device", "slices", "seconds")},
        )

    def _save(self, name: str, array: np.ndarray) -> str:
        """Save a map of the kept result, on all voxels of its volume."""
        self._check()
        whole = array
        if array.shape != self._kept.shape:
            whole = np.zeros(self._kept.shape, array.dtype)
            whole[self._kept.box] = array
        return save_array(self._folder, self._job, name, whole)


def _notes_of_whole(of_whole: Sequence[str], of_part: Sequence[str], notes: Sequence[str]) -> list[str]:
    """The notes of a run in a box: whether it is a CT was asked of the whole volume, not of the box."""
    return [*of_whole, *(note for note in notes if note not in of_part)]


def _with_notes(cut: Callable[[float], Cut], heed: Callable[[Sequence[str]], list[str]], threshold: float) -> Cut:
    labelmap, segments, notes = cut(threshold)
    return labelmap, segments, heed(notes)


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
