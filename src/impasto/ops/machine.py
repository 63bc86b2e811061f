"""The machine's cores and memory: the number of threads, how they wait, whether freed memory is kept.

A container's quota and a process' affinity count, not the number of cores of the machine. Threads that wait by spinning
are faster on an idle machine; on a busy one they take the core from the thread that they wait for, and a second of work
becomes a minute. OpenMP reads these settings when torch is loaded, so nothing here loads torch.

A network's maps are allocated and freed thousands of times. glibc returns large ones to the system at once and requests
them again: each page costs a fault, together up to half of a CPU's time.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CGROUPS, OWN_GROUPS, LOAD = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/loadavg")
V1 = ("cpu", "cpu,cpuacct", "cpuacct,cpu")
IDLE = 0.25
"""A machine is idle if less than this share of its cores was busy in the last minute."""


@dataclass
class Kernels:
    """Which kernels `cpu_kernels` uses: its own, or torch's alone if `special` is False; the pictures are the same."""

    special: bool = True


KERNELS = Kernels()
"""The setting of this process."""

THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"


@dataclass(frozen=True)
class Cores:
    """The cores that the system lets this process use.

    machine: logical cores of the machine; affinity: those on which it may run; quota: time in cores that its control
    group gets, None if unlimited.
    """

    machine: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """Number of threads that get a core each, at least 1."""
        whole = self.affinity if self.quota is None else min(self.affinity, math.floor(self.quota + 0.01))
        return max(1, whole)

    @property
    def limited(self) -> bool:
        """Whether this is less than the machine."""
        return self.usable < self.machine


def find_cores() -> Cores:
    """Return the cores of this process."""
    machine = os.cpu_count() or 1
    try:
        affinity = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows have none
        affinity = machine
    return Cores(machine, affinity, find_quota())


def find_quota() -> float | None:
    """Return the time in cores by control groups, version 1 or 2, the smallest of all levels; None if unlimited."""
    found = [quota for folder in _groups() if (quota := _read_quota(folder)) is not None]
    return min(found, default=None)


def _groups() -> Iterator[Path]:
    """Yield the folders of this process' control groups and of their parents."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in (*lines, "0::/", "1:cpu:/"):  # in a container, its own group is often the root
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        roots = [""] if not controllers else V1 if "cpu" in controllers.split(",") else []
        for root in roots:
            folder = Path(os.path.normpath(f"{CGROUPS / root}/{path}"))
            while folder.is_relative_to(CGROUPS):
                yield folder
                folder = folder.parent


def _read_quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        except (OSError, ValueError):
            return None
    try:
        share = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return share if share > 0 else None  # version 1 writes -1 for none


def is_idle(cores: Cores) -> bool:
    """Return whether nobody else uses the machine, as far as the system tells; False if we may use only part of it."""
    if cores.limited:
        return False
    try:
        words = LOAD.read_text(encoding="ascii").split()
        return (
            float(words[0]) < IDLE * cores.machine and int(words[3].partition("/")[0]) <= 2
        )  # this process and a reader
    except (OSError, ValueError, IndexError):
        return sys.platform != "linux"


def set_threads(environment: MutableMapping[str, str], *, shared: bool = False) -> None:
    """Set in `environment` how many threads OpenMP starts and how they wait, unless the user has set it.

    Must run before torch is loaded. shared: others will work at the same time, whatever the machine does now.
    """
    cores = find_cores()
    if cores.limited:
        environment.setdefault(THREADS, str(cores.usable))
    if WAITING not in environment and (shared or not is_idle(cores)):
        environment[WAITING] = "PASSIVE"
        environment.setdefault("KMP_BLOCKTIME", "0")  # the same setting for LLVM's and Intel's OpenMP


def describe_threads(environment: MutableMapping[str, str]) -> str:
    """Describe the cores and the settings in a few words."""
    cores = find_cores()
    limits = [] if cores.affinity == cores.machine else [f"affinity {cores.affinity}"]
    limits += [] if cores.quota is None else [f"container's quota {cores.quota:g}"]
    usable = f", {cores.usable} usable ({', '.join(limits)})" if limits else ""
    waiting = "passively" if environment.get(WAITING, "").upper() == "PASSIVE" else "actively"
    return f"{cores.machine} logical cores{usable}, threads wait {waiting}"


# --- memory

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


def _glibc() -> Any:
    """Return the C library, if it is glibc, or None."""
    import ctypes

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
