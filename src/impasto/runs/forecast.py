"""What --dry-run foretells: memory, tiles, time."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from impasto.feedforward.tile_size import choose_tiling, estimate, free_memory
from impasto.networks.layers import inference
from impasto.ops.memory import name_bytes
from impasto.runs.painting import Job
from impasto.stylizers.base import Stylizer
from impasto.stylizers.one_pass import OnePass
from impasto.stylizers.styles import Style

PROBE = 256
PROCESS = 450_000_000
"""Bytes that the process takes before it works."""

BYTES_HELD, FLOATS_HELD = 12, 40
"""For each pixel, at the most: reading, holding and writing a picture as bytes, or as floats."""


def forecast(job: Job) -> dict[str, Any]:
    """Bytes at the peak and those that are free, the tile (None: in one piece), seconds; {} for an optimisation."""
    model = job.model
    if not isinstance(model, OnePass):
        return {}
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
