"""The temporary folder for arrays exchanged with a worker process. The standard library and NumPy only."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import weakref
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from .protocol import JobError

if sys.platform != "win32":
    import fcntl

PREFIX = "unetpp-arrays-"


def save_array(folder: Path, job: int, name: str, array: np.ndarray) -> str:
    """Write an array for the other process; returns the name of the file.

    Raises:
        JobError: There is not enough disk space.
    """
    file = f"{job}-{name}.npy"
    with _refused_without_space(name):
        np.save(folder / file, array)
    return file


@contextlib.contextmanager
def _refused_without_space(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(
            "refused",
            f"The {name} cannot be saved in the temporary folder {tempfile.gettempdir()} ({error.strerror or error}). Free some space"
            " there, or set TMPDIR (TEMP on Windows) to a folder on a larger disk.",
        ) from error


class ArrayFolder:
    """A temporary folder of files named by job, such as `7-volume.npy`; created on first use, removed with this object or by `remove`."""

    def __init__(self) -> None:
        """Create nothing yet."""
        self._folder: tempfile.TemporaryDirectory | None = None
        self._unlock: weakref.finalize | None = None

    @property
    def path(self) -> Path:
        """The folder, created if it does not exist.

        Raises:
            OSError: It cannot be created.
        """
        if self._folder is None:
            _remove_those_of_dead_processes()
        while self._folder is None:
            made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
            # Try again if another process has just taken the new folder for an abandoned one.
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                descriptor = _lock(Path(made.name))
                self._unlock = weakref.finalize(self, os.close, descriptor) if descriptor is not None else None
                self._folder = made
        return Path(self._folder.name)

    def put(self, job: int, name: str, array: np.ndarray) -> str:
        """Write an array, keeping its type, and return the name of the file.

        Raises:
            JobError: There is not enough disk space, or the folder cannot be created.
        """
        with _refused_without_space(name):
            folder = self.path
        return save_array(folder, job, name, array)

    def sweep(self, under_way: Container[int]) -> None:
        """Remove the files of all jobs but these; on Windows, files that are still open are removed the next time."""
        # Not "*", as a crash may leave a core file there.
        for file in self.path.glob("[0-9]*-*.npy") if self._folder else ():
            if int(file.name.partition("-")[0]) not in under_way:
                with contextlib.suppress(OSError):
                    file.unlink()

    def remove(self) -> None:
        """Remove the folder with its contents."""
        if self._folder:
            self._folder.cleanup()
            self._folder = None
            if self._unlock:
                self._unlock()


def _lock(folder: Path) -> int | None:
    """Lock a folder until the returned descriptor is closed, which happens at the latest when this process ends.

    Returns:
        None if folders cannot be locked: on Windows, and on some network drives.

    Raises:
        FileNotFoundError: The folder no longer exists.
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
    """Remove the folders of killed processes whose worker could not, because it was killed too or had not started."""
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
