"""How much work a request asks for, estimated from all of it before anything is decoded or loaded."""

from __future__ import annotations

from typing import Any

from impasto.methods import find_method
from impasto.options import Options
from impasto.server.schema import Choice
from impasto.stylizers.base import Stylizer

USUAL_POSITIONS = 4096
"""Places of a painting among which each place of the photo looks, in methods that match."""

COARSE = 3
"""Steps at coarser sizes that cost as much as one at the full size: 4 + 16 + ... pixels are a third of them."""


def sketch(choice: Choice, device: str) -> Stylizer:
    """Return the stylizer of a choice without its networks: it knows its options and at what size it works, no more."""
    method = find_method(choice.method)
    options = method.Options.parse({**method.presets[choice.preset], **choice.options}, method.name)
    found = object.__new__(method)
    Stylizer.__init__(found, options, device=device, preset=choice.preset)
    return found


def count_steps(options: Options, *, styles: int, regions: int) -> float:
    """Passes over all pixels of the result to which the work amounts.

    styles: how many there are, for networks that paint once for each; regions: masks, each painted by itself.
    """
    steps = getattr(options, "steps", 1) + getattr(options, "last_steps", 0)
    steps = max(1, steps + getattr(options, "coarse_steps", 0) / COARSE)
    places = getattr(options, "candidates", 0) * (1 + getattr(options, "rotations", 0))
    steps *= max(1, max(places, getattr(options, "positions", 0)) / USUAL_POSITIONS)
    steps *= _longest_list(options)
    return float(steps * max(1, styles, regions))


def _longest_list(options: Options) -> float:
    """Return how many times as many layers or levels as usual are named."""
    share = 1.0
    for name, field in type(options).model_fields.items():
        value: Any = getattr(options, name)
        if isinstance(value, tuple):
            share = max(share, len(value) / max(len(field.default or ()), 5))
    return share
