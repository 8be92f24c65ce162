"""The temporary folder through which arrays go to a worker process and come back. The standard library and NumPy only."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Container
from pathlib import Path

import numpy as np

from .protocol import JobError


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

    @property
    def path(self) -> Path:
        """The folder, which exists from now on.

        Raises:
            OSError: It cannot be made.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="unetpp-", ignore_cleanup_errors=True)
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
