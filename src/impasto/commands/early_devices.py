"""Devices that are not on this machine, as far as that is known before torch is loaded."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
import sys
from pathlib import Path
from typing import TypeVar

import typer

from impasto.errors import OptionError

NODES = ("nvidia*", "dxg", "kfd", "nvmap", "nvhost*", "nvgpu*")
"""Files in /dev of drivers for GPUs: NVIDIA's, Windows' for its Linux, AMD's, and those of NVIDIA's small boards."""
CUDA = "libcuda.so.1"
DEVICES = Path("/dev")
Names = TypeVar("Names", str, list[str] | None)


def check_devices(ctx: typer.Context, names: Names) -> Names:
    """Return names of devices, or one; raises OptionError if one is certainly not here.

    `impasto batch` calls `check_here` itself: Ray may paint on other machines.
    """
    if ctx.command.name != "batch":
        for name in [names] if isinstance(names, str) else names or []:
            check_here(name)
    return names


def check_here(name: str) -> None:
    """Raise OptionError if a device is certainly not here; if that is not certain, torch decides."""
    reason = _why_missing(name)
    if reason:
        raise OptionError(f"--device {name} is not there: {reason}; leave it out, and the fastest one here is used")


def _why_missing(name: str) -> str:
    """Return why a device is not here; empty if it may be."""
    if name == "mps" and sys.platform != "darwin":
        return "only Macs have it"
    if name != "cuda":
        return ""
    if sys.platform == "darwin":
        return "Macs have mps"
    if _is_built_for_cpus():
        return "the installed torch computes on CPUs only (https://pytorch.org has others)"
    if sys.platform == "linux" and not _may_have_gpu():
        return "no driver of NVIDIA's or AMD's is loaded"
    return ""


def _is_built_for_cpus() -> bool:
    """Return whether the installed torch knows neither CUDA nor ROCm, as its version file says."""
    try:
        text = _version_file().read_text(encoding="utf-8")
    except (OSError, importlib.metadata.PackageNotFoundError):
        return False
    values = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= *(.*)$", text, re.MULTILINE))
    return len(values) == 2 and set(values.values()) == {"None"}


def _version_file() -> Path:
    return Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py")))


def _may_have_gpu() -> bool:
    """Return whether Linux has a driver for GPUs: a file of one in /dev, or a library that takes its place."""
    if any(any(DEVICES.glob(pattern)) for pattern in NODES):
        return True
    try:
        ctypes.CDLL(CUDA)
    except OSError:
        return False
    return True
