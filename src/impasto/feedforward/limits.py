"""The limits of a run: the free memory, and the detail that half precision needs.

A picture that does not fit into the free memory is cut into tiles. A picture without fine detail is painted in float32:
instance norm, whitening and attention amplify small differences, and in a flat, faded or smooth picture these are as
small as bfloat16's rounding errors. Such pictures are rare and quick to detect.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.feedforward.pass_plan import whole_halo
from impasto.feedforward.stages import IMAGE, Stage, deepest_stride
from impasto.feedforward.tiled_run import Tiling
from impasto.images.tensors import Canvas, Window
from impasto.networks.receptive_field import trace
from impasto.ops.machine import give_back_freed_memory

CPU_WORK, CPU_KEEP, CPU_BACKWARDS = 512 << 20, 1700 << 20, 2560 << 20
"""Most bytes that a CPU uses for features: to paint in one piece, to keep maps of tiles, and to optimise."""

KEEP_LEAST, KEEP_EACH = 512 << 20, 20
"""On a CPU, kept maps may take the larger one of these: a number of bytes, and a number of bytes per pixel."""

CPU_TILE = 208 << 20
"""Bytes that a CPU uses for a tile. Each map then has less than 32 MB, and the C library reuses its memory."""

ASSUMED_FREE = 2 << 30
SMALLEST_TILE = 64
SLACK = 1.25
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return how many bytes this process can still allocate on `device`; a guess if the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    found = [value for value in (_available(), _left_in_group()) if value is not None]
    return min(found, default=ASSUMED_FREE)


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _left_in_group() -> int | None:
    """Return the bytes that are left of a container's limit; the file cache counts as free."""
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Budget:
    """Bytes for work in one piece, for maps kept between passes, and for a tile."""

    work: int
    keep: int
    tile: int


def budget(device: torch.device) -> Budget:
    """Return the budget of a run on `device`."""
    free = free_memory(device)
    if device.type == "cpu":
        work = min(CPU_WORK, free // 4)
        return Budget(work, min(CPU_KEEP, free // 4), min(CPU_TILE, work))
    return Budget(free // 2, free // 4, free // 2)


def backwards_room(device: torch.device) -> int:
    """Return how many bytes a forward and a backward pass may use on `device`."""
    free = free_memory(device)
    return min(CPU_BACKWARDS, free // 2) if device.type == "cpu" else free // 2


def bytes_per_pixel(stages: Sequence[Stage], element: int) -> float:
    """Return the most bytes that `stages` hold per pixel that they work on; element: bytes of a number."""
    return SLACK * _numbers_held(stages) * element


def _numbers_held(stages: Sequence[Stage]) -> float:
    """Return the most numbers that `stages` hold at once, in maps and within a layer, per pixel of the picture."""
    at, channels, widest = {IMAGE: 1}, {IMAGE: 3}, []
    last = {IMAGE: len(stages)}  # the number of the last stage that starts from a map
    for number, stage in enumerate(stages):
        layers = 0.0
        for edge in stage.edges:
            source, outcome = edge.source, edge.outcome
            at[outcome], channels[outcome], held = trace(edge.path, at[source], channels[source])
            layers, last[source] = max(layers, held), max(number, last.get(source, 0))
        widest.append(layers)
    most, live = 0.0, {IMAGE}
    for number, stage in enumerate(stages):
        live |= {edge.outcome for edge in stage.edges}
        maps = sum(channels[name] / at[name] ** 2 for name in live)
        most = max(most, maps + widest[number])
        live = {name for name in live if last.get(name, -1) > number}
    return most


def choose_tiling(
    stages: Sequence[Stage], size: tuple[int, int], device: torch.device, element: int, *, most: int = 0
) -> Tiling | None:
    """Return how to cut a picture of `size`, (height, width), for `device`; None if it fits in one piece.

    most: largest tile, if not 0.
    """
    room, each = budget(device), bytes_per_pixel(stages, element)
    height, width = size
    if not most and height * width * each <= room.work:
        return None
    align = deepest_stride(stages)
    halo = whole_halo(stages)
    tile = int((room.tile / each) ** 0.5) - 2 * halo
    tile = max(SMALLEST_TILE, tile // align * align)
    keep = min(room.keep, max(KEEP_LEAST, KEEP_EACH * height * width)) if device.type == "cpu" else room.keep
    return Tiling(min(tile, most) if most else tile, keep)


def free(device: torch.device) -> None:
    """Release cached memory after memory ran out."""
    gc.collect()
    give_back_freed_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def smaller(
    tiling: Tiling | None, stages: Sequence[Stage], size: tuple[int, int], device: torch.device, element: int
) -> Tiling:
    """Return the next smaller tiling, with half the tile and half the kept maps; raises ImpastoError at the end."""
    height, width = size
    if tiling is None:
        found = choose_tiling(stages, size, device, element, most=max(height, width) // 2)
        assert found is not None
    else:
        found = Tiling(tiling.tile // 2, tiling.keep // 2)
    if found.tile < SMALLEST_TILE:
        raise too_large(size, device)
    return found


def too_large(size: tuple[int, int], device: torch.device, bytes_each: float = 24) -> ImpastoError:
    """Return the error for the smallest tiling, with a size that fits; bytes_each: what a pixel takes in any case."""
    height, width = size
    longer = max(16, int(max(height, width) * (free_memory(device) / (bytes_each * height * width)) ** 0.5))
    fits = f"--size {min(longer, max(height, width) // 2)} fits"
    return ImpastoError(f"not enough memory for {width}x{height} even in the smallest tiles; {fits}")


def estimate(stages: Sequence[Stage], size: tuple[int, int], device: torch.device, element: int) -> int:
    """Return the bytes for painting a picture of `size`, (height, width), on `device`, besides its own pixels."""
    tiling = choose_tiling(stages, size, device, element)
    each = bytes_per_pixel(stages, element)
    if tiling is None:
        return int(each * size[0] * size[1])
    halo = whole_halo(stages)
    sides = [min(side, tiling.tile + 2 * halo) for side in size]
    return int(each * sides[0] * sides[1]) + tiling.keep


LEAST_STEP, LEAST_DEVIATION = 0.01, 0.02
"""Differences of neighbouring pixels (root mean square), deviation of all pixels. Below these, bfloat16 is 17 to 45 dB
from float32; above, at least 36 dB, usually 50 (nine methods, pictures of 8 bits a channel)."""

GRID, PATCH = 4, 64
"""Number of patches a side that are checked, and their side in pixels."""


def has_fine_detail(content: Canvas, masks: Sequence[Tensor] = ()) -> bool:
    """Return whether bfloat16 resolves the picture well enough to paint it as float32 does.

    masks: (1, 1, H, W) in [0, 1], regions that are measured separately: each must have detail. Checks 16 patches,
    evenly spread, in less than a millisecond for any size.
    """
    patches = list(_patches(*content.size))
    parts = [content.read(patch).float() for patch in patches]
    if not masks:
        return _is_detailed(parts, [torch.ones_like(part[:, :1]) for part in parts])
    shares = ([mask[..., p.top : p.bottom, p.left : p.right].float() for p in patches] for mask in masks)
    return all(_is_detailed(parts, [share.to(parts[0].device) for share in region]) for region in shares)


def _patches(height: int, width: int) -> list[Window]:
    def starts(side: int) -> list[int]:
        if side <= GRID * PATCH:
            return list(range(0, side, PATCH))
        return [round(number * (side - PATCH) / (GRID - 1)) for number in range(GRID)]

    return [
        Window(top, left, min(top + PATCH, height), min(left + PATCH, width))
        for top in starts(height)
        for left in starts(width)
    ]


def _is_detailed(parts: Sequence[Tensor], shares: Sequence[Tensor]) -> bool:
    """Apply the thresholds over all `parts`, (1, 3, h, w), weighted by `shares`, (1, 1, h, w)."""
    steps = torch.zeros(2, device=parts[0].device)  # sums of squared differences, and of their weights
    sums = torch.zeros(3, device=parts[0].device)  # of weights, values and squares
    for part, share in zip(parts, shares, strict=True):
        for axis in (2, 3):
            weight = share.narrow(axis, 1, share.shape[axis] - 1)
            change = part.diff(dim=axis).square().mean(1, keepdim=True)
            steps += torch.stack([(weight * change).sum(), weight.sum()])
        sums += torch.stack([share.sum(), (share * (part - 0.5)).sum() / 3, (share * (part - 0.5).square()).sum() / 3])
    step = steps[0] / steps[1].clamp_min(1)
    count = sums[0].clamp_min(1)
    deviation = sums[2] / count - (sums[1] / count).square()
    return bool((step >= LEAST_STEP**2) & (deviation >= LEAST_DEVIATION**2))
