"""Settings of the C library: a process that paints reuses freed memory instead of getting new pages for every map.

A network's maps are allocated and freed thousands of times. glibc returns large ones to the system at once and requests
them again: each page costs a fault, together up to half of a CPU's time.
"""

from __future__ import annotations

import ctypes
import functools

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
"""The names of glibc's settings, see mallopt(3)."""

LARGEST = 256 << 20
"""Maps of at least this many bytes are mapped and unmapped one by one."""

KEPT, AHEAD = 1 << 30, 256 << 20
"""Unused bytes that the process may keep, and bytes by which it grows at least."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep freed memory in one place for all threads; returns whether the C library is glibc.

    This applies to the whole process, so programs call it, not the library.
    """
    library = _glibc()
    settings = {MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT, TOP_PAD: AHEAD, ARENA_MAX: 1}
    return library is not None and all(library.mallopt(name, value) for name, value in settings.items())


def give_back_freed_memory() -> None:
    """Return kept memory to the system, if the C library is glibc."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no library of that name
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None


def name_bytes(count: float) -> str:
    """Format a number of bytes: ``1.5 GB``, ``35 MB``, ``2 kB``; never "0.0 GB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    unit, name = (1e6, "MB") if count >= 1e6 else (1e3, "kB")
    return f"{max(0, count) / unit:.0f} {name}"
