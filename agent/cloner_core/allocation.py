"""Memory that was freed, kept for the next use: what moves packs asks for the same few MiB again and again."""

from __future__ import annotations

import ctypes

# include/malloc.h of glibc
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_LARGEST_FROM_HEAP = 32 << 20  # DEFAULT_MMAP_THRESHOLD_MAX, mallopt(3)
_KEPT_BYTES = 64 << 20


def keep_freed_memory() -> None:
    """Have malloc(3) of this process keep up to 64 MiB of what is freed, big pieces too, instead of giving it back.

    By itself glibc returns a buffer of some MiB to the kernel at once, and each use of the next costs a page fault for
    every 4 KiB of it: half of the system time of a restore. Other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
