"""The estimates of --dry-run: memory, tiles, time."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from impasto.feedforward.limits import backwards_room, choose_tiling, estimate, free_memory, has_fine_detail
from impasto.networks.layers import inference
from impasto.ops.machine import name_bytes
from impasto.optimize.descent import seconds_of_steps
from impasto.optimize.tiled_objective import bytes_backwards, choose_tile
from impasto.runs.painting import PaintJob
from impasto.stylizers.base import Stylizer
from impasto.stylizers.one_pass import OnePass
from impasto.stylizers.styles import Style

PROBE = 256
STEPS_PROBE = 192
LARGE_PASS, MANY_STEPS = 4_000_000, 20_000_000
"""Pixels of one pass, and pixels times steps of an optimisation, above which a time estimate is made."""
PROCESS = 450_000_000
"""Bytes of the process before it works."""

BYTES_HELD, FLOATS_HELD = 12, 40
"""Bytes per pixel, at most, for reading, holding and writing a picture as bytes, or as floats."""


def forecast(job: PaintJob) -> dict[str, Any]:
    """Return the peak in bytes, the free bytes, the tile (None: in one piece), seconds; {} if nothing is known.

    Of methods that paint in one pass also: whether the photo has too little detail for half precision.
    """
    model = job.model
    if not isinstance(model, OnePass):
        return _forecast_optimisation(job)
    given = job.inputs.styles[0]
    looked_at = torch.rand(1, 3, 64, 64) if isinstance(given, Tensor) else given
    (style,) = model.encode_styles([looked_at], 64)
    with inference(model.device, "fp32"):
        stages = model.stages(style, size=job.size)
    smooth = _is_too_smooth(job)
    element = 4 if smooth else model.element
    cut = choose_tiling(stages, job.size, model.device, element)
    pixels = math.prod(job.size)
    held = PROCESS + pixels * (BYTES_HELD if job.by_windows else FLOATS_HELD)
    worked = estimate(stages, job.size, model.device, element)
    on_cpu = model.device.type == "cpu"
    return {
        "memory": held + worked if on_cpu else worked,
        "free_memory": free_memory(model.device),
        "tile": None if cut is None else cut.tile,
        "seconds": round(_seconds_a_pixel(model, given, smooth) * pixels * (1 if cut is None else 1.3), 1),
        "too_smooth": smooth,
    }


def _is_too_smooth(job: PaintJob) -> bool:
    """Return whether the photo is painted in full precision, though others are painted in half."""
    model = job.model
    return isinstance(model, OnePass) and model.chooses_half and not has_fine_detail(job.canvas, job.inputs.masks)


def _forecast_optimisation(job: PaintJob) -> dict[str, Any]:
    model, pixels = job.model, math.prod(job.size)
    if model.loss_layers is None:
        return {}
    network, layers = model.loss_layers
    each, room = bytes_backwards(network, layers), backwards_room(model.device)
    tile = choose_tile(network, layers, job.size, room)
    last = model.scales(*job.size)[-1].settings
    remembered = 24 * last.history if last.optimizer == "lbfgs" else 24
    work = (pixels * each if tile is None else room) + pixels * remembered
    return {
        "memory": round(work + (PROCESS + pixels * FLOATS_HELD if model.device.type == "cpu" else 0)),
        "free_memory": free_memory(model.device),
        "tile": tile,
        "seconds": round(_seconds_of_steps(job) * (1 if tile is None else 1.3), 1),
    }


def _seconds_of_steps(job: PaintJob) -> float:
    """Return the seconds of an optimisation, from a few steps at its first size on a small picture."""
    model, given = job.model, job.inputs.styles[0]
    photo = torch.rand(1, 3, STEPS_PROBE, STEPS_PROBE)
    (style,) = model.encode_styles([photo if isinstance(given, Tensor) else given], STEPS_PROBE)
    first = model.scales(STEPS_PROBE, STEPS_PROBE)[0]
    before, model.checkpoint = (model.checkpoint, model.start_from, model.more_terms), None
    model.start_from, model.more_terms = None, ()
    try:
        return seconds_of_steps(
            lambda note: model.transfer(photo, style, on_step=note),
            first.height * first.width,
            model.scales(*job.size),
        )
    finally:
        (model.checkpoint, model.start_from, model.more_terms), model.interrupted = before, False


def expected_seconds(job: PaintJob) -> float | None:
    """Return the seconds of a run; None if it is too small for an estimate."""
    model, pixels = job.model, math.prod(job.size)
    if isinstance(model, OnePass):
        if pixels < LARGE_PASS:
            return None
        return _seconds_a_pixel(model, job.inputs.styles[0], _is_too_smooth(job)) * pixels
    steps = sum(scale.height * scale.width * scale.settings.steps for scale in model.scales(*job.size))
    return _seconds_of_steps(job) if steps >= MANY_STEPS else None


def _seconds_a_pixel(model: Stylizer, given: Tensor | Style, smooth: bool) -> float:
    """Return the seconds per pixel, measured on a small picture, smooth or not, after a warm-up."""
    photo = torch.full((1, 3, PROBE, PROBE), 0.5) if smooth else torch.rand(1, 3, PROBE, PROBE)
    (style,) = model.encode_styles([photo if isinstance(given, Tensor) else given], PROBE)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        model.transfer(photo, style)
        taken.append(time.perf_counter() - start)
    return min(taken) / PROBE**2


def tell(found: dict[str, Any]) -> str:
    """Return a line for people; empty if nothing is known."""
    if not found:
        return ""
    cut = "in one piece" if found["tile"] is None else f"in tiles of {found['tile']} px"
    needed, free = name_bytes(found["memory"]), name_bytes(found["free_memory"])
    smooth = ", in fp32: the photo is too smooth for half precision" if found.get("too_smooth") else ""
    return f"about {needed} of {free} free, {cut}, about {found['seconds']:.0f} s{smooth}"
