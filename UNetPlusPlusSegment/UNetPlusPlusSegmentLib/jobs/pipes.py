"""The pipes between a child process and its parent, kept from all other code in the child. The standard library only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def take_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Take stdin and stdout for the messages of this process alone: from now on, stdin is empty, and prints go to stderr.

    On Windows, a thread that waits for a pipe holds up everything else that looks at it, for as long as it waits: libraries such as
    those of NumPy and SciPy when they are loaded, and other Pythons that inherit it when they start (numpy/numpy#24290,
    python/cpython#78961).
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, answers
