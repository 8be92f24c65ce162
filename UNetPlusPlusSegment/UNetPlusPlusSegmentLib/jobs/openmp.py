"""OpenMP, through which torch divides a layer among threads. The standard library only."""

import os


def let_threads_sleep() -> None:
    """Let threads that wait for each other sleep instead of spinning; call this before torch is imported.

    On a computer that does other things as well, a thread that spins keeps the core that the one it waits for needs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
