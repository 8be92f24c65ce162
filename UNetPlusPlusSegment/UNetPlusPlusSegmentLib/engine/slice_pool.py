"""A pool of threads that each compute a slice. torch only.

torch splits every layer among its threads, which wait for each other at its end: if the system interrupts one of them, all wait, and
small layers are hardly worth splitting. Threads that each compute a slice of their own do not wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AHEAD = 4  # tasks in hand for each thread, so that the others go on while one takes long


@contextmanager
def threads_of_torch(number: int | None) -> Iterator[None]:
    """Set torch's number of threads for the calling thread, and restore it afterwards. None changes nothing."""
    own = torch.get_num_threads()
    try:
        torch.set_num_threads(number or own)
        yield
    finally:
        torch.set_num_threads(own)


def in_order(task: Callable[[Item], Answer], items: Sequence[Item], threads: int | None = None) -> Iterator[Answer]:
    """The results of a task for each item, in the order of the items; each is computed in one thread.

    A few items are computed ahead. After an error in a task, or in the code that uses the results, tasks that have not begun are
    cancelled, and the others are waited for.

    Args:
        task: Called in several threads at once, each with one torch thread.
        items: A single item is computed by the calling thread, with all of its torch threads.
        threads: Number of threads; None for torch's own setting.
    """
    threads = min(threads or torch.get_num_threads(), len(items))
    if threads < 2:
        yield from map(task, items)
        return
    waiting: deque[Future[Answer]] = deque()
    with _pool(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(task, item))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _pool(threads: int) -> ThreadPoolExecutor:
    """Start all threads of a pool with one torch thread each. That also changes torch's default, which is then restored."""
    own, begun = torch.get_num_threads(), threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, "slices", _begin)
    try:
        for _ in pool.map(lambda _: begun.wait(), range(threads)):
            pass
    except BaseException:
        # The system has no more threads, or Ctrl-C: the threads that have begun would wait for the others forever.
        begun.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(own)
    return pool


def _begin() -> None:
    torch.get_num_threads()  # a thread's first call adopts the process's setting; made later, it would undo the next line
    torch.set_num_threads(1)
