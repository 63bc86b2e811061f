"""The fastest runtime here: measured and stored by `impasto doctor`, used by ``--runtime auto``."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from impasto import __version__
from impasto.errors import ImpastoError, OptionError
from impasto.evaluation.timing import summarize, time_interleaved
from impasto.feedforward.runtimes import AUTO, EXTRAS, RUNTIMES, installed
from impasto.files import write_atomically
from impasto.methods import load
from impasto.networks.layers import in_half
from impasto.stylizers.base import Stylizer

PROBE, ROUNDS = 512, 5
CPU = torch.device("cpu")


def cache_file() -> Path:
    """Return the file of the times."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "impasto" / "runtimes.json"


def surroundings() -> dict[str, Any]:
    """Return everything on which the times depend; times of other surroundings are not used."""
    versions = {"impasto": __version__, "torch": torch.__version__}
    for name in EXTRAS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    cpu = [_processor(), torch.backends.cpu.get_cpu_capability(), os.cpu_count(), torch.get_num_threads()]
    return {"versions": versions, "cpu": cpu}


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure() -> dict[str, float]:
    """Return the seconds of a transfer at 512 px for every runtime, as ``torch fp32``; raises ImpastoError.

    The network is adain's: vgg19-slim and its mirror image, with little else.
    """
    from impasto.evaluation.bench import make_picture

    photo, works = make_picture(PROBE, PROBE), {}
    for runtime in filter(installed, RUNTIMES):
        for precision in ("bf16", "fp32") if in_half(CPU, AUTO) else ("fp32",):
            if (runtime, precision) == ("onnxruntime", "bf16"):
                continue
            model = load("adain", runtime=runtime, precision=precision)
            style = model.encode_style(photo)
            works[f"{runtime} {precision}"] = functools.partial(model.transfer, photo, style)
    return {name: summarize(taken)["median"] for name, taken in time_interleaved(works, ROUNDS).items()}


def store(seconds: Mapping[str, float]) -> None:
    """Store the times for ``--runtime auto``; an unwritable cache is no error."""
    path = cache_file()
    with contextlib.suppress(OSError, ImpastoError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(surroundings() | {"seconds": dict(seconds)}, indent=2).encode())


def recall() -> dict[str, float]:
    """Return the stored times of these surroundings; {} if there are none."""
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
        seconds = {str(name): float(taken) for name, taken in found.pop("seconds").items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return seconds if found == surroundings() else {}


def quickest(seconds: Mapping[str, float], precision: str = AUTO) -> str:
    """Return the fastest runtime of `seconds` in `precision`; torch if nothing is known.

    ``auto`` allows bfloat16 if the processor has it, and onnxruntime, which always works in float32.
    """
    allowed = {name: taken for name, taken in seconds.items() if precision in (AUTO, name.split()[-1])}
    best = min(allowed, key=lambda name: allowed[name], default="torch")
    runtime = best.split()[0]
    return runtime if runtime in RUNTIMES and installed(runtime) else "torch"


def use_quickest(model: Stylizer) -> None:
    """Let the fastest known runtime run `model`; torch stays if that does not fit."""
    if model.device.type == "cpu":
        with contextlib.suppress(OptionError):
            model.use_runtime(quickest(recall(), getattr(model.options, "precision", AUTO)))
