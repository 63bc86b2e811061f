"""Free memory, the memory that a picture needs, and tiles that fit."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from impasto.errors import ImpastoError
from impasto.feedforward.pass_plan import whole_halo
from impasto.feedforward.stages import IMAGE, Stage, deepest_stride, map_channels, map_strides, needed_later
from impasto.feedforward.tiled_run import Tiling
from impasto.networks.receptive_field import widest
from impasto.ops.memory import give_back_freed_memory

CPU_WORK, CPU_KEEP, CPU_BACKWARDS = 512 << 20, 1600 << 20, 2560 << 20
"""Most bytes that a CPU uses for features."""

KEEP_LEAST, KEEP_EACH = 512 << 20, 20
"""Bytes that kept maps may always take of a CPU's memory, and bytes per pixel of a large picture."""

CPU_TILE = 208 << 20
"""Bytes that a CPU uses for a tile: maps below 32 MB each, which the C library reuses without asking the system."""

ASSUMED_FREE = 2 << 30
SMALLEST_TILE = 64
SLACK = 1.25
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return how many bytes a process can still take on `device`, as far as the system tells."""
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
    """Return what a container's limit leaves; the file cache counts as free."""
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
    """Return how many bytes a way through a network and back may take on `device`."""
    free = free_memory(device)
    return min(CPU_BACKWARDS, free // 2) if device.type == "cpu" else free // 2


def bytes_per_pixel(stages: Sequence[Stage], element: int) -> float:
    """Return the most bytes that `stages` hold per pixel that they work on; element: bytes of a number."""
    strides, channels = map_strides(stages), map_channels(stages)
    most, made = 0.0, {IMAGE}
    for number, stage in enumerate(stages):
        made |= set(stage.outcomes)
        live = {IMAGE, *stage.outcomes, *needed_later(stages[number:])} & made
        held = sum(channels[name] / strides[name] ** 2 for name in live)
        most = max(most, held + max(widest(edge.path, strides[edge.source]) for edge in stage.edges))
    return SLACK * most * element


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
