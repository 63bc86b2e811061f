"""Limits the memory of a run, and finds the largest working size within it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from impasto.errors import ImpastoError, OptionError, is_out_of_memory

SHRINK, LEAST_SIDE = 0.8, 16

log = logging.getLogger(__name__)


def limit_memory(gigabytes: float, device: torch.device) -> None:
    """Limit this process to `gigabytes` on `device`: larger requests fail as if memory ran out.

    Raises OptionError if the system can't do this.
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total), device)
        return
    try:
        import resource
    except ImportError:
        raise OptionError("--max-memory needs a GPU or a Unix system") from None
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 1e9), most))


def find_fitting(size: tuple[int, int], attempt: Callable[[tuple[int, int]], object]) -> tuple[int, int]:
    """Return the largest size, (height, width), up to `size`, at which `attempt` does not run out of memory.

    Raises ImpastoError if even the smallest one is too large.
    """
    wanted = size
    while min(size) >= LEAST_SIDE:
        try:
            attempt(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            height, width = size
            size = int(height * SHRINK) // 2 * 2, int(width * SHRINK) // 2 * 2
            continue
        if size != wanted:
            log.warning("%dx%d does not fit into memory: working at %dx%d", wanted[1], wanted[0], size[1], size[0])
        return size
    raise ImpastoError("there is not enough memory for any size: raise --max-memory")
