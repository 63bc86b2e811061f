"""What the benchmarks share: timing, pictures and the yardstick are the package's own; torch is loaded when needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from impasto.evaluation.timing import summarize, time_interleaved, to_markdown

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["make_picture", "show", "summarize", "surroundings", "time_interleaved", "yardstick"]


def make_picture(height: int, width: int, seed: int = 0) -> Tensor:
    from impasto.evaluation import bench

    return bench.make_picture(height, width, seed)


def yardstick(layer: str, side: int, *, backward: bool = False) -> Callable[[], None]:
    from impasto.evaluation import bench

    return bench.yardstick(layer, side, backward=backward)


def surroundings(threads: int | None = None) -> dict[str, Any]:
    from impasto.evaluation import bench

    return bench.surroundings(threads)


def show(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print everything as JSON, then `rows` as a Markdown table."""
    print(json.dumps(result, indent=2))
    if rows:
        print(f"\n{to_markdown(rows)}")
