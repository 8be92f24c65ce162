"""The temporary folder for arrays sent to a worker process and back. The standard library and NumPy only."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Container
from pathlib import Path

import numpy as np

from .protocol import JobError


def save_array(folder: Path, job: int, name: str, array: np.ndarray) -> str:
    """Write an array for the other process; returns the name of the file.

    Raises:
        JobError: There is not enough disk space.
    """
    file = f"{job}-{name}.npy"
    try:
        np.save(folder / file, array)
    except OSError as error:
        raise JobError(
            "refused",
            f"The {name} cannot be saved in the temporary folder {tempfile.gettempdir()} ({error.strerror or error}). Free some space"
            " there, or set TMPDIR (on Windows TEMP) to a folder on a larger disk.",
        ) from error
    return file


class ArrayFolder:
    """Files named by job, such as `7-volume.npy`; created on first use, removed with this object or earlier."""

    def __init__(self) -> None:
        """Create nothing yet."""
        self._folder: tempfile.TemporaryDirectory | None = None

    @property
    def path(self) -> Path:
        """The folder, created if it does not exist.

        Raises:
            OSError: It cannot be created.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="unetpp-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def put(self, job: int, name: str, array: np.ndarray) -> str:
        """Write an array, in its own type, and return the name of the file.

        Raises:
            JobError: There is not enough disk space.
        """
        return save_array(self.path, job, name, array)

    def sweep(self, under_way: Container[int]) -> None:
        """Remove the files of other jobs; a file that is still open on Windows is removed the next time."""
        for file in self.path.glob("[0-9]*-*.npy") if self._folder else ():  # a crash may leave a core file there
            if int(file.name.partition("-")[0]) not in under_way:
                with contextlib.suppress(OSError):
                    file.unlink()

    def remove(self) -> None:
        """Remove the folder with its contents."""
        if self._folder:
            self._folder.cleanup()
            self._folder = None
