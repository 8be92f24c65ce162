"""Memory of this process: how malloc requests and returns it, and how much is free. ctypes, and torch for CUDA."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Make malloc keep the memory that torch frees for the next layer; call this before the first large allocation.

    By default, glibc returns blocks as large as a feature map to the system at once and requests them again for the next layer,
    page fault by page fault. Without glibc this does nothing.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_ARENA_MAX, 1)  # memory freed by one thread can be used by all


def give_back_freed_memory() -> None:
    """Return the memory kept by `keep_freed_memory` to the system, for other processes between jobs."""
    if libc := _glibc():
        libc.malloc_trim(0)


def free_memory_bytes(kind: str) -> int | None:
    """Free memory of a device (`cuda`, `mps`, `cpu`); None if unknown (macOS)."""
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    if sys.platform == "win32":
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        return status.available if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    if sys.platform != "linux":
        return None
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


class _MemoryStatus(ctypes.Structure):
    """Windows' MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load_percent", ctypes.c_ulong),
        ("total", ctypes.c_ulonglong),
        ("available", ctypes.c_ulonglong),
        ("others", ctypes.c_ulonglong * 5),
    )


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
