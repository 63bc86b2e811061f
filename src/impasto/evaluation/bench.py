"""Speed of methods by size, precision and runtime, relative to one pass of VGG-19."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.evaluation.timing import summarize, time_interleaved
from impasto.methods import find_method, load
from impasto.networks.backbones import load_backbone
from impasto.ops.machine import give_back_freed_memory
from impasto.stylizers.base import Stylizer

YARDSTICK = "yardstick"
YARDSTICK_SIDE = 512
ALLOWANCE = 16 << 20
"""Tolerance, in bytes, for a reset peak above the memory in use."""


def make_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """Return a random picture, (1, 3, height, width), smooth and with detail; times don't depend on what it shows."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 0.05 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def yardstick(
    layer: str, side: int, *, backward: bool = False, device: str | torch.device = "cpu"
) -> Callable[[], None]:
    """Return a function: a pass of VGG-19 (random weights) to `layer` over a square, or forward and backward."""
    network = load_backbone("vgg19", pretrained=False).to(device)
    picture = make_picture(side, side).to(device).requires_grad_(backward)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            features = network(picture, {layer})[layer]
            if backward:
                picture.grad = None
                features.square().mean().backward()
            wait(features.device)

    return run


def wait(device: torch.device) -> None:
    """Wait until `device` has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def surroundings(threads: int | None = None) -> dict[str, Any]:
    """Return what the times depend on; first sets torch's threads, if `threads` is given."""
    if threads is not None:
        torch.set_num_threads(threads)
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}


@dataclass(frozen=True)
class Case:
    """One row of a benchmark: a method at one size in one precision by one runtime."""

    method: str
    side: int
    precision: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.method} {self.side} {self.precision} {self.runtime}"


def bench(
    methods: Sequence[str],
    sides: Iterable[int],
    precisions: Sequence[str],
    *,
    device: str = "cpu",
    runtimes: Sequence[str] = ("torch",),
    rounds: int = 5,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Time `stylize`, including the painting's encoding, over squares; what is not available is listed as ``missing``.

    Every round times the yardstick (VGG-19 to relu4_1, fp32, 512x512) and then each case.
    """
    models, missing = _load(methods, precisions, runtimes, device, options or {})
    cases = [Case(name, side, precision, runtime) for name, precision, runtime in models for side in sides]
    works = {str(case): _stylizing(models[case.method, case.precision, case.runtime], case.side) for case in cases}
    peaks = {name: peak_memory(work, torch.device(device)) for name, work in works.items()}
    run = yardstick("relu4_1", YARDSTICK_SIDE, device=device)
    found = time_interleaved({YARDSTICK: run, **works}, rounds)
    rows = [_row(case, found[str(case)], found[YARDSTICK], peaks[str(case)]) for case in cases]
    about = {**surroundings(), "device": device, "rounds": rounds}
    return {"surroundings": about, YARDSTICK: summarize(found[YARDSTICK]), "rows": rows, "missing": missing}


def _load(
    methods: Sequence[str], precisions: Sequence[str], runtimes: Sequence[str], device: str, options: Mapping[str, Any]
) -> tuple[dict[tuple[str, str, str], Stylizer], dict[str, str]]:
    """Return the models by method, precision and runtime, and the reasons for those that are not available."""
    models: dict[tuple[str, str, str], Stylizer] = {}
    missing: dict[str, str] = {}
    for name in methods:
        known = find_method(name).Options.model_fields
        ways = itertools.product(precisions if "precision" in known else ("fp32",), runtimes)
        for precision, runtime in ways:
            own = {key: value for key, value in options.items() if key in known}
            own |= {"precision": precision} if "precision" in known else {}
            try:
                models[name, precision, runtime] = load(name, device=device, runtime=runtime, **own)
            except ImpastoError as error:
                missing[f"{name} by {runtime}" if runtime != "torch" else name] = str(error)
    return models, missing


def _stylizing(model: Stylizer, side: int) -> Callable[[], object]:
    photo, painting = make_picture(side, side), make_picture(side, side, seed=1)

    def run() -> None:
        model.stylize(photo, painting)
        wait(model.device)

    return run


def _row(case: Case, seconds: list[float], yardsticks: list[float], peak: int | None) -> dict[str, Any]:
    """Return a row; its spread is that of the ratios, round by round."""
    median = summarize(seconds)["median"]
    ratios = [own / other for own, other in zip(seconds, yardsticks, strict=True)]
    return {
        "method": case.method,
        "side": case.side,
        "precision": case.precision,
        "runtime": case.runtime,
        "seconds": median,
        "megapixels a second": case.side**2 / 1e6 / median,
        "peak memory, GB": None if peak is None else peak / 1e9,
        "ratio": median / summarize(yardsticks)["median"],
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Return the peak of memory while `work` runs: of the process, or of the GPU's tensors; None if unknown."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    give_back_freed_memory()  # otherwise the work would reuse it
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: reset the peak
    except OSError:
        work()
        return None
    held, before = _resident_memory()
    work()
    _, peak = _resident_memory()
    counted_anew = 0 < before <= held + ALLOWANCE  # some kernels accept the request and do nothing
    return peak if counted_anew or peak > before else None


def _resident_memory() -> tuple[int, int]:
    """Return the bytes that the process has in memory now, and at its peak; zeros if the kernel does not say."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    words = {words[0]: words[1] for words in (line.split() for line in lines) if len(words) > 1}
    return int(words.get("VmRSS:", 0)) * 1024, int(words.get("VmHWM:", 0)) * 1024
