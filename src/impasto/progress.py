"""Progress of long work: the steps that `on_step` gets, and durations in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """A step for `on_step`: number of finished and of all steps, terms of the loss, a function for the picture."""

    index: int
    total: int
    terms: dict[str, float]
    image: Callable[[], Tensor]

    @property
    def loss(self) -> float:
        """The sum of the terms."""
        return sum(self.terms.values())


OnStep = Callable[[Step], None]
OnPart = Callable[[int, int], None]
"""Called with the number of finished parts, such as tiles or pictures, and of all parts."""


def ignore(step: Step) -> None:
    """The `on_step` that does nothing."""


def ignore_part(done: int, total: int) -> None:
    """The `OnPart` that does nothing."""


def as_steps(on_step: OnStep, image: Callable[[], Tensor]) -> OnPart:
    """Return a function that calls `on_step` for finished parts, if the picture is ready only at the end."""
    return lambda done, total: on_step(Step(done, total, {}, image))


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
