"""Threads that each take a slice, so that none waits for another at the end of a layer. torch only.

torch puts its threads into every layer, and they meet at its end: one that the system has taken away for another program stops
all. Slices do not wait for each other, and a layer too small to be shared out does not have to be.
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

AHEAD = 2  # tasks in flight, for each thread: one that is computed, and one for when it is done


@contextmanager
def threads_of_torch(number: int | None) -> Iterator[None]:
    """Give the calling thread so many of torch's threads; afterwards it has its own number again. None changes nothing."""
    own = torch.get_num_threads()
    try:
        torch.set_num_threads(number or own)
        yield
    finally:
        torch.set_num_threads(own)


def in_order(task: Callable[[Item], Answer], items: Sequence[Item], threads: int | None = None) -> Iterator[Answer]:
    """The answer of a task to each item, in their order, each computed in a thread with one of torch's threads.

    A few items are computed ahead. The first error of a task, or one of whoever takes the answers, ends the others: those
    that have not begun are dropped, those that have are waited for.

    Args:
        task: Is called in several threads at once. What it calls in turn runs in its own thread.
        items: One alone is done by the calling thread, with all of its threads of torch's.
        threads: As many as torch would put into a layer if None: it counts the processor's cores, as the user allows.
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
    """Threads that have begun. Each has set torch's number for itself, and with it that of all to come: put back by the caller."""
    own, begun = torch.get_num_threads(), threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, "slices", _begin)
    try:
        for _ in pool.map(lambda _: begun.wait(), range(threads)):
            pass
    except (
        BaseException
    ):  # the system has no more threads, or Ctrl-C: those that have begun would wait for the others for ever
        begun.abort()
        pool.shutdown()
        raise
    finally:
        torch.set_num_threads(own)
    return pool


def _begin() -> None:
    torch.get_num_threads()  # the first call of a thread fetches the number of the process: later, it would undo the next line
    torch.set_num_threads(1)
