"""A visitor's corrections: read from the scene, saved at once, and written for download."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from .. import files
from ..scene.mrml import SegmentationError
from ..scene.snapshots import Snapshot
from .cases import Case

FORMATS = {"seg.nrrd": ".seg.nrrd", "nifti": ".nii.gz", "dicom": ".dcm", "stl": ".stl"}
Stamp = tuple[int, int] | None


class AutoSave:
    """Saves a segmentation after each change. A change that comes while another is being written is saved next."""

    def __init__(self, said: Callable[[str], None], taken: Callable[[Snapshot], Awaitable[None]]) -> None:
        """Save nothing yet.

        Args:
            said: Called with a sentence for the user after each attempt to save.
            taken: Called with each new state, after the attempt to save it.
        """
        self._said, self._taken = said, taken
        self._path: Path | None = None
        self._take: Callable[[], Snapshot | None] = lambda: None
        self._saved: Snapshot | None = None
        self._stamp: Stamp = None  # of the file when this session last read or wrote it
        self.last: Snapshot | None = None  # the last state that this session has saved of this case
        self.refused = ""  # why the last change was not saved, if the visitor can mend that in the segmentation
        self._task: asyncio.Task | None = None
        self._again = False

    def follow(
        self, path: Path | None, take: Callable[[], Snapshot | None], saved: Snapshot | None, stamp: Stamp
    ) -> None:
        """Save another case from now on.

        Args:
            path: The file; None not to save, but still call `taken`.
            take: Returns the current state; called on the main thread.
            saved: The state that is already saved.
            stamp: `stamp_of` the file, from before its state was read.
        """
        self._path, self._take, self._saved, self._stamp = path, take, saved, stamp
        self.last = None

    def changed(self) -> None:
        """Save soon, as something may have changed. Call it on the thread of the event loop."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._save())

    async def finish(self) -> None:
        """Wait until everything is saved."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _save(self) -> None:
        while self._again:
            self._again = False
            path, now, self.refused = self._path, None, ""
            try:
                now = self._take()
                if now is None or now.same_as(self._saved):
                    continue
                if path is not None:
                    await self._write(path, now)
                if path == self._path:
                    self._saved = now
            except ValueError as error:
                not_saved = f"Not saved: {error}"
                self._said(not_saved)
                if path is not None and isinstance(error, SegmentationError):
                    self.refused = not_saved
            if now is not None:
                await self._taken(now)

    @property
    def is_current(self) -> bool:
        """True if no other session has changed the file since this one read or wrote it."""
        return stamp_of(self._path) == self._stamp

    async def _write(self, path: Path, now: Snapshot) -> None:
        if not self.is_current:
            raise files.FileError(
                f"another session has changed {path.name}. Download your version, or open the case again, without your last changes."
            )
        now.check_overlap()
        writing = asyncio.to_thread(files.write_segmentation, path, now.labelmap, now.ijk_to_ras, now.segments)
        await asyncio.shield(writing)  # not cancelled at the end of the session
        if path == self._path:
            self.last = now
            self._stamp = stamp_of(path)
        self._said(f"Saved: {path.name}")


def stamp_of(path: Path | None) -> Stamp:
    """Modification time and size of a file; None if it does not exist."""
    if path is None or not path.exists():
        return None
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def write(state: Snapshot, case: Case, kind: str, folder: Path) -> Path:
    """Write a segmentation for a download.

    Args:
        state: The segmentation.
        case: Gives the name of the file; a DICOM SEG refers to its series.
        kind: One of `FORMATS`.
        folder: Folder for the file.

    Returns:
        The path of the file.

    Raises:
        FileError, SegmentationError: It cannot be written in this format, or segments overlap.
    """
    state.check_overlap()
    path = folder / (re.sub(r"[^\w.+-]", "_", case.name) + FORMATS[kind])
    if kind == "dicom":
        files.check_dicom_seg()
        source = files.slices_of(case.folders.scan(case.scan), case.series)
        files.write_dicom_seg(path, state.labelmap, state.segments, source, model=None)
    elif kind == "stl":
        files.write_surfaces(path, state.labelmap, state.ijk_to_ras, state.segments)
    else:
        files.write_segmentation(path, state.labelmap, state.ijk_to_ras, state.segments)
    return path
