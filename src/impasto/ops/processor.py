"""The cores that this process may use, and how its threads wait for each other.

A container's quota and a process' affinity count, not the number of cores of the machine. Threads that wait by spinning
are faster on an idle machine; on a busy one they take the core from the thread that they wait for, and a second of work
becomes a minute.

Nothing here loads torch: OpenMP reads these settings when torch is loaded.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

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
