"""How the C library hands memory out: to a process that paints, what it had once, instead of fresh pages for every map.

A network's maps are allocated and let go thousands of times. glibc gives large ones back to the system at once and asks
for them anew: each page then costs a fault, and all of them together up to half of a CPU's time.
"""

from __future__ import annotations

import ctypes
import functools

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
"""The names of glibc's settings, see mallopt(3)."""

LARGEST = 256 << 20
"""Bytes from which on maps are taken from the system one by one, and given back."""

KEPT, AHEAD = 1 << 30, 256 << 20
"""Bytes that may stay with the process though nobody uses them, and bytes by which it grows at least."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, in one place for all threads; returns whether the C library is glibc.

    It holds for the whole process, so programs call it, not the library.
    """
    library = _glibc()
    settings = {MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT, TOP_PAD: AHEAD, ARENA_MAX: 1}
    return library is not None and all(library.mallopt(name, value) for name, value in settings.items())


def give_back_freed_memory() -> None:
    """Give the system what is kept so far, if the C library is glibc."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has none by that name
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None


def name_bytes(count: float) -> str:
    """A number of bytes as people read it: ``1.5 GB``, ``35 MB``, ``2 kB``; never "0.0 GB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    unit, name = (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{max(0, count) / unit:.0f} {name}"
