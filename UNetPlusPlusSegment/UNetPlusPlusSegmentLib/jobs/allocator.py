"""Memory of a process of our own: how it is taken from the system, given back, and how much is left. ctypes, and torch for CUDA."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc keep what torch frees, for the next layer; call before the first large allocation.

    glibc gives blocks of a feature map's size back to the system at once and fetches them again, page fault by page fault,
    for the next layer. Elsewhere than under glibc this does nothing.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_ARENA_MAX, 1)  # what one thread has freed is there for all


def give_back_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` kept: between jobs, others need it more."""
    if libc := _glibc():
        libc.malloc_trim(0)


def free_memory_bytes(kind: str) -> int | None:
    """Free memory of a device (`cuda`, `mps`, `cpu`); None where it cannot be told (macOS)."""
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    if sys.platform == "win32":
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        return status.available if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    if sys.platform == "linux":
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return None


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
