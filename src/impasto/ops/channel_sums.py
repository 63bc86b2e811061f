"""Sums of channels and of their squares, read once, on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from impasto.ops.cpu_kernels import is_free

COLUMNS, ROWS = 256, 4096
"""Numbers side by side in which channels-last maps are summed, and rows of them whose sums are kept in float32."""


def sum_channels(x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Sums of every channel of (1, C, H, W) and of its squares, both (1, C), float64; None: not here.

    As many positions as fill `COLUMNS` are read side by side, each `ROWS` rows in float32 around their own means.
    """
    channels = x.shape[1]
    last = channels == 1 or x.stride(1) == 1  # a part of a channels-last map is none itself
    if not (last and len(x) == 1 and x.numel() and x.dtype in (torch.float32, torch.bfloat16) and is_free(x)):
        return None
    together = max(1, COLUMNS // channels)
    positions = x.permute(0, 2, 3, 1).reshape(-1, channels)
    even = len(positions) // together * together
    parts = [(rows, together) for rows in torch.split(positions[:even].reshape(-1, together * channels), ROWS)]
    parts += [(positions[even:], 1)]
    total = torch.stack([_sum_rows(rows, width) for rows, width in parts if len(rows)]).sum(0)
    return total[:1], total[1:]


def _sum_rows(rows: Tensor, width: int) -> Tensor:
    """Sums of (N, width x C) and of its squares over all but the channels, (2, C), float64."""
    unused = torch.zeros(rows.shape[1])  # of float32: so that the answer is, too
    found = torch.stack(torch.batch_norm_update_stats(rows, unused, unused, 0.0)).double()
    mean, variance = found
    variance.addcmul_(mean, mean)
    return len(rows) * found.view(2, width, -1).sum(1)
