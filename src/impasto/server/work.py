"""The work of a request, estimated before anything is decoded or loaded."""

from __future__ import annotations

from typing import Any

from impasto.methods import find_method
from impasto.options import Options
from impasto.server.schema import MethodRequest
from impasto.stylizers.base import Stylizer

USUAL_POSITIONS = 4096
"""Places of a painting with which each place of the photo is compared, in matching methods."""

COARSE = 3
"""Steps at coarser sizes that cost as much as one at the full size: 1/4 + 1/16 + ... is a third."""


def sketch(choice: MethodRequest, device: str) -> Stylizer:
    """Return the stylizer of a choice without its networks, for its options and working size."""
    method = find_method(choice.method)
    options = method.Options.parse({**method.presets[choice.preset], **choice.options}, method.name)
    found = object.__new__(method)
    Stylizer.__init__(found, options, device=device, preset=choice.preset)
    return found


def count_steps(options: Options, *, styles: int, regions: int) -> float:
    """Return the work as a number of passes over all pixels of the result.

    styles: number of styles, for networks that paint once for each; regions: number of masks, each painted separately.
    """
    steps = getattr(options, "steps", 1) + getattr(options, "last_steps", 0)
    steps = max(1, steps + getattr(options, "coarse_steps", 0) / COARSE)
    places = getattr(options, "candidates", 0) * (1 + getattr(options, "rotations", 0))
    steps *= max(1, max(places, getattr(options, "positions", 0)) / USUAL_POSITIONS)
    steps *= _longest_list(options)
    return float(steps * max(1, styles, regions))


def _longest_list(options: Options) -> float:
    """Return the number of named layers or levels relative to the usual number."""
    share = 1.0
    for name, field in type(options).model_fields.items():
        value: Any = getattr(options, name)
        if isinstance(value, tuple):
            share = max(share, len(value) / max(len(field.default or ()), 5))
    return share
