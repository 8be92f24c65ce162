"""A pool of threads that each compute a slice. torch only.

torch splits every layer among its threads, which wait for each other at its end: if the system interrupts one of them, all wait, and
small layers are hardly worth splitting. Threads that each compute a slice of their own do not wait.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Answer = TypeVar("Answer")

AHEAD = 4  # tasks in hand for each thread, so that the others go on while one takes long
_setting = threading.Lock()  # held while torch has another number than the user's for threads to come
_here = threading.local()  # in a thread of a pool: `ended`, the event that its results are not wanted any more


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads_of_torch(number: int | None) -> Iterator[None]:
    """Set torch's number of threads for the calling thread, to that of the cores at most, and restore it afterwards.

    Args:
        number: None for the number that the thread has.
    """
    with _setting:  # a thread's first call adopts the number for threads to come
        own = torch.get_num_threads()
    try:
        _set_here(min(number or own, cores()))
        yield
    finally:
        _set_here(own)


def in_order(task: Callable[[Item], Answer], items: Sequence[Item], threads: int | None = None) -> Iterator[Answer]:
    """The results of a task for each item, in the order of the items; each is computed in one thread.

    A few items are computed ahead. After an error in a task, or in the code that uses the results, tasks that have not begun are
    cancelled, and the others are waited for; what they compute by `in_order` ends at its next item.

    Args:
        task: Called in several threads at once, each with one torch thread.
        items: A single item is computed by the calling thread, with all of its torch threads.
        threads: Number of threads; None for torch's own setting.
    """
    threads = min(threads or torch.get_num_threads(), len(items))
    if threads < 2:
        yield from map(task, _while_wanted(items))
        return
    waiting: deque[Future[Answer]] = deque()
    ended = threading.Event()
    with _pool(threads, ended) as pool:
        try:
            for item in _while_wanted(items):
                waiting.append(pool.submit(task, item))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            ended.set()
            for future in waiting:
                future.cancel()


def _while_wanted(items: Sequence[Item]) -> Iterator[Item]:
    """The items; a thread whose pool has ended stops here, which nobody sees."""
    ended = getattr(_here, "ended", None)
    for item in items:
        if ended and ended.is_set():
            raise CancelledError
        yield item


def _pool(threads: int, ended: threading.Event) -> ThreadPoolExecutor:
    """Start all threads of a pool with one torch thread each."""
    begun = threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, "slices", _begin, (ended,))
    with _number_to_come_kept():
        try:
            for _ in pool.map(lambda _: begun.wait(), range(threads)):
                pass
        except BaseException:
            # The system has no more threads, or Ctrl-C: the threads that have begun would wait for the others forever.
            begun.abort()
            pool.shutdown()
            raise
    return pool


def _begin(ended: threading.Event) -> None:
    _here.ended = ended
    torch.get_num_threads()  # a thread's first call adopts the process's setting; made later, it would undo the next line
    torch.set_num_threads(1)


def _set_here(number: int) -> None:
    """Set torch's number of threads for the calling thread alone."""
    if number != torch.get_num_threads():
        with _number_to_come_kept():
            torch.set_num_threads(number)


@contextmanager
def _number_to_come_kept() -> Iterator[None]:
    """Keep the number of torch's threads in threads to come, which `torch.set_num_threads` also changes.

    Only such a thread can read that number, or set it without changing its caller's.
    """
    with _setting:
        number = _in_new_thread(torch.get_num_threads)
        try:
            yield
        finally:
            _in_new_thread(torch.set_num_threads, number)


def _in_new_thread(function: Callable[..., Answer], *arguments: object) -> Answer:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()
