"""Comparable times: interleaved rounds, medians and spread, a table. Without torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Work = Callable[[], object]
Clock = Callable[[], float]


def time_once(work: Work, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one call by `clock`."""
    start = clock()
    work()
    return clock() - start


def time_interleaved(
    works: Mapping[str, Work], rounds: int, warm_up: int = 1, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each of `works`, round after round, so that a slow moment affects all of them.

    clock: ``time.process_time`` if others use the same cores: it does not count their time.
    """
    for _ in range(warm_up):
        for work in works.values():
            work()
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(time_once(work, clock))
    return found


def summarize(seconds: Sequence[float]) -> dict[str, float]:
    """Return median, fastest and slowest."""
    return {"median": statistics.median(seconds), "fastest": min(seconds), "slowest": max(seconds)}


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `rows` as a Markdown table, "" for none."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = (names, ["---"] * len(names), *([_text(row[name]) for name in names] for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
