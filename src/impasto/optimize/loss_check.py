"""Checks the losses of a finished optimisation and words warnings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

ABSURD = 10.0
"""No picture matches a style whose loss, in units of the painting's spread, stays above this."""


def judge_losses(losses: Sequence[Mapping[str, float]], steps: int, units: Mapping[str, float]) -> list[str]:
    """Return a sentence for each problem of a run's losses; none if all is well.

    losses: of every step; steps: at the last size; units: weights of the terms that are relative to the painting's
    spread.
    """
    if not losses:
        return []
    first, last = (sum(terms.values()) for terms in (losses[-min(steps, len(losses))], losses[-1]))
    found = [
        f"the {name} loss stays at {losses[-1][name] / weight:.3g} times the painting's own spread: "
        "take a larger painting, or one with more texture"
        for name, weight in units.items()
        if weight and losses[-1].get(name, 0.0) > ABSURD * weight
    ]
    if last > 2 * first > 0:
        found.append(f"the loss grew from {first:.3g} to {last:.3g}: lower --learning-rate or --style-weight")
    return found


def warn_of_losses(losses: Sequence[Mapping[str, float]], steps: int, units: Mapping[str, float]) -> None:
    """Log what `judge_losses` finds."""
    for oddity in judge_losses(losses, steps, units):
        log.warning("%s", oddity)
