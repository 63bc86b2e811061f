"""How many cores this process may use, and how its threads wait for each other.

A container's quota and a process' affinity count, not the number of cores that the machine has. Threads that wait by
spinning are quicker on an idle machine; on a busy one they take the core from the very thread that they wait for, and a
second of work becomes a minute.

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
"""A machine is idle if less than this share of its cores was busy over the last minute."""


@dataclass
class Kernels:
    """Which kernels `cpu_kernels` uses: its own, or with `special` False torch's alone, whose pictures are the same."""

    special: bool = True


KERNELS = Kernels()
"""Of this process."""

THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"


@dataclass(frozen=True)
class Cores:
    """What the system lets this process use.

    machine: logical cores that there are; affinity: those on which it may run; quota: cores' worth of time that its
    control group gets, None if it is not limited.
    """

    machine: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """How many threads get a core each, at least 1."""
        whole = self.affinity if self.quota is None else min(self.affinity, math.floor(self.quota + 0.01))
        return max(1, whole)

    @property
    def limited(self) -> bool:
        """Whether it is less than the machine."""
        return self.usable < self.machine


def find_cores() -> Cores:
    """The cores of this process."""
    machine = os.cpu_count() or 1
    try:
        affinity = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS and Windows know none
        affinity = machine
    return Cores(machine, affinity, find_quota())


def find_quota() -> float | None:
    """Cores' worth of time by control groups, version 1 or 2, the smallest of all levels; None: no limit."""
    found = [quota for folder in _groups() if (quota := _read_quota(folder)) is not None]
    return min(found, default=None)


def _groups() -> Iterator[Path]:
    """The folders of the control groups of this process, and of those around them."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in (*lines, "0::/", "1:cpu:/"):  # in a container its own group is often the root
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
    """Whether nobody else uses the machine, as far as the system tells; a part of a machine is never our own."""
    if cores.limited:
        return False
    try:
        words = LOAD.read_text(encoding="ascii").split()
        return float(words[0]) < IDLE * cores.machine and int(words[3].partition("/")[0]) <= 2  # now: us, and a reader
    except (OSError, ValueError, IndexError):
        return sys.platform != "linux"


def settle_threads(environment: MutableMapping[str, str], *, shared: bool = False) -> None:
    """Write into `environment` how many threads OpenMP starts and how they wait, where the user has not.

    Has an effect before torch is loaded. shared: others will work beside us, whatever the machine does now.
    """
    cores = find_cores()
    if cores.limited:
        environment.setdefault(THREADS, str(cores.usable))
    if WAITING not in environment and (shared or not is_idle(cores)):
        environment[WAITING] = "PASSIVE"
        environment.setdefault("KMP_BLOCKTIME", "0")  # the same for LLVM's and Intel's OpenMP


def describe_threads(environment: MutableMapping[str, str]) -> str:
    """The cores and the settings in a few words."""
    cores = find_cores()
    limits = [] if cores.affinity == cores.machine else [f"affinity {cores.affinity}"]
    limits += [] if cores.quota is None else [f"container's quota {cores.quota:g}"]
    usable = f", {cores.usable} usable ({', '.join(limits)})" if limits else ""
    waiting = "passively" if environment.get(WAITING, "").upper() == "PASSIVE" else "actively"
    return f"{cores.machine} logical cores{usable}, threads wait {waiting}"
