"""Ctrl-C during an optimisation: the step is finished, and the run's state is kept for resuming."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor

from impasto.weights.checkpoints import Checkpoint, State

BEGINNING = "beginning"
"""Name, in a checkpoint, of the picture with which its scale began."""


class Keep(Protocol):
    """A function that keeps a run's state."""

    def __call__(self, state: Callable[[], State], *, now: bool = False) -> None:
        """Keep the result of `state`, if it is time to, or `now`."""


class TornStep(KeyboardInterrupt):
    """Ctrl-C within a step that could not be finished, so the optimiser's state is inconsistent."""


@contextmanager
def whole_steps(wanted: bool) -> Iterator[None]:
    """Delay Ctrl-C until the end of the block; a second one raises TornStep at once."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def note(number: int, frame: object) -> None:
        if pressed:
            raise TornStep
        pressed.append(number)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # another program's handler, which may not want to wait
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


class Keeper:
    """Keeps the state of one scale of a run in a checkpoint, with its number and first picture."""

    def __init__(self, checkpoint: Checkpoint, number: int, beginning: Tensor) -> None:
        self.checkpoint, self.number, self.beginning = checkpoint, number, beginning
        self.last: Callable[[], State] | None = None

    def __call__(self, state: Callable[[], State], *, now: bool = False) -> None:
        """Keep the result of `state`, if it is time to, or `now`."""
        self.last = state

        def whole() -> State:
            tensors, values = state()
            return {**tensors, BEGINNING: self.beginning}, values

        self.checkpoint.offer(self.number, whole, now=now)

    def keep_last(self) -> bool:
        """Keep the last state that was offered; return whether there is one."""
        if self.last is not None:
            self(self.last, now=True)
        return self.last is not None
