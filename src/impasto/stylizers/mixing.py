"""Styles that are whole networks: their kind, and mixing them by mixing what they paint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from impasto.feedforward.stages import Stage
from impasto.feedforward.transformation_network import StagedNetwork, blend_stage
from impasto.stylizers.styles import NETWORK, Style, parts


def mixture_stages(style: Style, build: Callable[[Style], StagedNetwork], strength: float) -> tuple[Stage, ...]:
    """The networks that `build` makes of the parts of `style`, one after the other, then what they paint mixed.

    strength: what is left over up to 1 is the photo.
    """
    rows: list[Stage] = []
    shares: dict[str, float] = {}
    for number, (share, part) in enumerate(parts(style)):
        network, outcome = build(part), f"{number}.painted"
        rows += network.stages(outcome, f"{number}.")
        shares[outcome] = share
    return (*rows, blend_stage(shares, strength))


def network_kind(shape: Mapping[str, Any]) -> str:
    """The kind of a style that is a whole network of that shape."""
    return NETWORK + "-".join(str(value) for value in shape.values())
