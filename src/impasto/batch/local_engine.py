"""The engine of `impasto batch` in one process: one painter, or two side by side if one leaves cores idle."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from impasto.batch.painter import Painter
from impasto.batch.pipeline import Outcomes, Pipeline, by_photo, new_run
from impasto.batch.plan import BatchPlan, Item
from impasto.progress import Step
from impasto.stylizers.one_pass import OnePass

SIDE_BY_SIDE = 2
"""Painters on a CPU: a painter's threads wait for each other at every layer, and while it reads and writes.
"""


class LocalEngine:
    """The engine of one process. Raises ImpastoError if weights or masks are not available."""

    def __init__(self, plan: BatchPlan, device: str, runtime: str) -> None:
        self.record, self.run = plan.record, new_run()
        self.painters = [Painter(plan.base, device, runtime)]
        model, self.threads = self.painters[0].model, torch.get_num_threads()
        beside = isinstance(model, OnePass) and model.device.type == "cpu" and model.runtime == "torch"
        self.most = min(self.threads, SIDE_BY_SIDE) if beside else 1
        self.title = f"with {model.name} on {model.device.type}"
        self._large = threading.Lock()

    def paint(self, items: Sequence[Item], outcomes: Outcomes) -> None:
        """Paint all of `items`."""
        left, in_turn = deque(by_photo(items)), _InTurn(outcomes)
        while len(self.painters) < min(self.most, len(left)):
            self.painters.append(self.painters[0].twin())
        pipelines = [
            Pipeline(painter, in_turn, record=self.record, run=self.run, alone=self._alone)
            for painter in self.painters[: len(left)]
        ]
        if self.most == 1:
            with pipelines[0]:
                pipelines[0].paint_all(left)
            return
        with ThreadPoolExecutor(self.most, "paint") as pool:
            try:
                for share in [pool.submit(self._share, work, left) for work in pipelines]:
                    share.result()
            except BaseException:  # Ctrl-C, which reaches only the main thread
                for work in pipelines:
                    work.halted = True
                raise
            finally:
                torch.set_num_threads(self.threads)

    def _share(self, work: Pipeline, left: deque[list[Item]]) -> None:
        """Paint the photos that are `left`, as many as this painter gets to.

        A single painter uses all threads, because the last bits depend on their number.
        """
        torch.set_num_threads(self.threads // self.most)
        with work:
            work.paint_all(_take(left))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until a picture that fills the memory can have all cores for itself."""
        with self._large:
            torch.set_num_threads(self.threads)
            try:
                yield
            finally:
                torch.set_num_threads(self.threads // self.most)


def _take(left: deque[list[Item]]) -> Iterator[list[Item]]:
    """Yield what is left, one after the other; several threads may take at the same time."""
    with contextlib.suppress(IndexError):
        while True:
            yield left.popleft()


class _InTurn:
    """Outcomes that several threads report to."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes, self.lock = outcomes, threading.Lock()

    def succeed(self, item: Item, report: dict[str, Any]) -> None:
        """See `Outcomes`."""
        with self.lock:
            self.outcomes.succeed(item, report)

    def fail(self, item: Item, reason: str) -> None:
        """See `Outcomes`."""
        with self.lock:
            self.outcomes.fail(item, reason)

    def within(self, step: Step) -> None:
        """See `Outcomes`."""
        with self.lock:
            self.outcomes.within(step)
