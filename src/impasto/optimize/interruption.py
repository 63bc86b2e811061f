"""Ctrl-C during an optimisation: the step is finished, and the run's state is kept to go on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor

from impasto.weights.checkpoints import Checkpoint, State

BEGINNING = "beginning"
"""What a checkpoint calls the picture with which its scale began."""


class Keep(Protocol):
    """What keeps a run's state."""

    def __call__(self, state: Callable[[], State], *, now: bool = False) -> None:
        """Keep what `state` gives, if it is time to, or `now`."""


class TornStep(KeyboardInterrupt):
    """Ctrl-C within a step that could not be finished: the optimiser's state is between two steps."""


@contextmanager
def whole_steps(wanted: bool) -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block; a second one does not wait, and raises TornStep."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def note(number: int, frame: object) -> None:
        if pressed:
            raise TornStep
        pressed.append(number)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # somebody else's, who may not want to wait
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
    """Keeps the state of a scale of a run, whose number and first picture these are, in a checkpoint."""

    def __init__(self, checkpoint: Checkpoint, number: int, beginning: Tensor) -> None:
        self.checkpoint, self.number, self.beginning = checkpoint, number, beginning
        self.last: Callable[[], State] | None = None

    def __call__(self, state: Callable[[], State], *, now: bool = False) -> None:
        """Keep what `state` gives, if it is time to, or `now`."""
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
