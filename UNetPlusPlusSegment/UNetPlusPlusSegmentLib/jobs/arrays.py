"""The temporary folder through which arrays go to a worker process and come back. The standard library and NumPy only."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import weakref
from collections.abc import Container
from pathlib import Path

import numpy as np

from .protocol import JobError

if sys.platform != "win32":
    import fcntl

PREFIX = "unetpp-arrays-"


def save_array(folder: Path, job: int, name: str, array: np.ndarray) -> str:
    """Write an array that one process hands over to the other; returns the name of the file.

    Raises:
        JobError: There is no room for it.
    """
    file = f"{job}-{name}.npy"
    try:
        np.save(folder / file, array)
    except OSError as error:
        raise JobError(
            "refused",
            f"The {name} cannot be handed over, because {tempfile.gettempdir()} cannot hold it ({error.strerror or error}):"
            " make room there, or set TMPDIR (on Windows TEMP) to a folder on a larger disk.",
        ) from error
    return file


class ArrayFolder:
    """Files named after jobs, `7-volume.npy`; made when first needed, removed with this object or before."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self._folder: tempfile.TemporaryDirectory | None = None
        self._unlock: weakref.finalize | None = None

    @property
    def path(self) -> Path:
        """The folder, which exists from now on.

        Raises:
            OSError: It cannot be made.
        """
        if self._folder is None:
            _remove_those_of_dead_processes()
        while self._folder is None:
            made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # taken for that of a dead process just now
                descriptor = _lock(Path(made.name))
                self._unlock = weakref.finalize(self, os.close, descriptor) if descriptor is not None else None
                self._folder = made
        return Path(self._folder.name)

    def put(self, job: int, name: str, array: np.ndarray) -> str:
        """Write an array, with the type it has, and return the name of the file.

        Raises:
            JobError: There is no room for it.
        """
        return save_array(self.path, job, name, array)

    def sweep(self, under_way: Container[int]) -> None:
        """Remove the files of other jobs; one that Windows still holds goes the next time."""
        for file in self.path.glob("[0-9]*-*.npy") if self._folder else ():  # a crash may leave a core file there
            if int(file.name.partition("-")[0]) not in under_way:
                with contextlib.suppress(OSError):
                    file.unlink()

    def remove(self) -> None:
        """Remove it with all that is in it."""
        if self._folder:
            self._folder.cleanup()
            self._folder = None
            if self._unlock:
                self._unlock()


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor that this returns is closed, at the latest when this process ends, however it does.

    None: folders cannot be locked here, on Windows or on some network drives.

    Raises:
        FileNotFoundError: It is gone.
        BlockingIOError: Another process has locked it.
    """
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, (FileNotFoundError, BlockingIOError)):
            raise
        return None
    return descriptor


def _remove_those_of_dead_processes() -> None:
    """Remove the folders of killed processes whose worker was killed, too, or had not begun yet: else it does it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = _lock(folder)
            if descriptor is not None:
                try:
                    for file in folder.glob("[0-9]*-*.npy"):
                        file.unlink()
                    folder.rmdir()
                finally:
                    os.close(descriptor)
