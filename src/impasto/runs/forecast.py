"""What --dry-run foretells: memory, tiles, time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from impasto.feedforward.tile_size import backwards_room, choose_tiling, estimate, free_memory
from impasto.networks.backbone import Backbone
from impasto.networks.layers import inference
from impasto.networks.receptive_field import reach
from impasto.ops.memory import name_bytes
from impasto.ops.moments import moments
from impasto.optimize.descent import Scale
from impasto.optimize.tiled_objective import bytes_backwards, choose_tile
from impasto.runs.painting import Job
from impasto.stylizers.base import Stylizer
from impasto.stylizers.one_pass import OnePass
from impasto.stylizers.styles import Style

PROBE = 256
PROCESS = 450_000_000
"""Bytes that the process takes before it works."""

BYTES_HELD, FLOATS_HELD, BYTES_OPTIMISED = 12, 40, 280
"""For each pixel, at the most: reading, holding and writing a picture as bytes, or as floats;
or optimising it, with the optimiser's memory."""


class Optimiser(Protocol):
    """A method that optimises, as far as its cost can be told beforehand."""

    @property
    def looks(self) -> tuple[Backbone, set[str]]:
        """The network that every step goes through, and how far."""

    def plan(self, height: int, width: int) -> Sequence[Scale]:
        """The stages in which a picture of height x width is made."""


def forecast(job: Job) -> dict[str, Any]:
    """Bytes at the peak and those that are free, the tile (None: in one piece), seconds."""
    model = job.model
    if not isinstance(model, OnePass):
        return _forecast_steps(cast(Optimiser, model), job.size, model.device)
    given = job.inputs.styles[0]
    looked_at = torch.rand(1, 3, 64, 64) if isinstance(given, Tensor) else given
    (style,) = model.encode_styles([looked_at], 64)
    with inference(model.device, "fp32"):
        stages = model.stages(style, size=job.size)
    cut = choose_tiling(stages, job.size, model.device, model.element)
    pixels = math.prod(job.size)
    held = PROCESS + pixels * (BYTES_HELD if job.by_windows else FLOATS_HELD)
    worked = estimate(stages, job.size, model.device, model.element)
    on_cpu = model.device.type == "cpu"
    return {
        "memory": held + worked if on_cpu else worked,
        "free_memory": free_memory(model.device),
        "tile": None if cut is None else cut.tile,
        "seconds": round(_seconds_a_pixel(model, given) * pixels * (1 if cut is None else 1.3), 1),
    }


def _forecast_steps(model: Optimiser, size: tuple[int, int], device: torch.device) -> dict[str, Any]:
    """The same of an optimisation, whose steps go through a network and back."""
    network, layers = model.looks
    each, pixels = bytes_backwards(network, layers), math.prod(size)
    tile = choose_tile(network, layers, size, backwards_room(device))
    halo = max(reach(network.path(layer)) for layer in layers)
    seen = pixels if tile is None else math.prod(min(side, tile + 2 * halo) for side in size)
    held = PROCESS if device.type == "cpu" else 0
    steps = sum(stage.height * stage.width * stage.settings.steps for stage in model.plan(*size))
    cut = 1.0 if tile is None else 1.5 * ((tile + 2 * halo) / tile) ** 2  # each tile is looked at twice on the way
    return {
        "memory": int(held + pixels * BYTES_OPTIMISED + seen * each),
        "free_memory": free_memory(device),
        "tile": tile,
        "seconds": round(steps * _seconds_a_step(network, layers) * cut, 1),
    }


def _seconds_a_step(network: Backbone, layers: set[str]) -> float:
    """For each pixel: one way through the network and back, measured on a small picture after a first one."""
    taken = []
    for _ in range(3):
        image = torch.rand(1, 3, PROBE, PROBE, device=network.mean.device, requires_grad=True)
        start = time.perf_counter()
        total = torch.stack([moments(found, full=False).total.sum() for found in network(image, layers).values()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        taken.append(time.perf_counter() - start)
    return min(taken) / PROBE**2


def _seconds_a_pixel(model: Stylizer, given: Tensor | Style) -> float:
    """Measured on a small picture, after a first one that warms up."""
    photo = torch.rand(1, 3, PROBE, PROBE)
    (style,) = model.encode_styles([photo if isinstance(given, Tensor) else given], PROBE)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        model.transfer(photo, style)
        taken.append(time.perf_counter() - start)
    return min(taken) / PROBE**2


def tell(found: dict[str, Any]) -> str:
    """One line for people; empty if nothing is known."""
    if not found:
        return ""
    cut = "in one piece" if found["tile"] is None else f"in tiles of {found['tile']} px"
    needed, free = name_bytes(found["memory"]), name_bytes(found["free_memory"])
    return f"about {needed} of {free} free, {cut}, about {found['seconds']:.0f} s"
