"""What the benchmarks share: interleaved timing, pictures of any size, VGG-19 as the yardstick, a table."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Work = Callable[[], object]


def time_once(work: Work) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_interleaved(works: Mapping[str, Work], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each of `works`, round after round: what slows the machine for a while slows them all."""
    for _ in range(warm_up):
        for work in works.values():
            work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(time_once(work))
    return found


def summarize(seconds: Sequence[float]) -> dict[str, float]:
    """Median, fastest and slowest."""
    return {"median": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds)}


def make_picture(height: int, width: int, seed: int = 0) -> Tensor:
    """A random picture, (1, 3, height, width), smooth and with detail; no method's time depends on what it shows."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (smooth + 0.05 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


def yardstick(layer: str, side: int, *, backward: bool = False) -> Callable[[], None]:
    """One pass of torchvision's VGG-19 (random weights) to `layer` in fp32 over a square picture, or there and back."""
    import torch

    from impasto.backbones import load_backbone

    network = load_backbone("vgg19", pretrained=False)
    picture = make_picture(side, side).requires_grad_(backward)

    def run() -> None:
        with torch.set_grad_enabled(backward):
            features = network(picture, {layer})[layer]
            if backward:
                picture.grad = None
                features.square().mean().backward()

    return run


def surroundings(threads: int | None = None) -> dict[str, Any]:
    """What the times depend on; sets torch's threads first, if `threads` says how many."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine()}


def show(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print everything as JSON, then `rows` as a Markdown table."""
    print(json.dumps(result, indent=2))
    if not rows:
        return
    names = list(rows[0])
    print()
    for cells in (names, ["---"] * len(names), *([_text(row[name]) for name in names] for row in rows)):
        print(f"| {' | '.join(cells)} |")


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
