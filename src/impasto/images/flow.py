"""Optical flow: estimating it, warping pictures, where it is reliable, and the warping error.

A flow is (1, 2, H, W) in pixels, x first: how far each pixel of one picture has moved in the other one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import ImpastoError
from impasto.images.color import luma


def has_flow() -> bool:
    """Return whether flow can be estimated here, by the extra ``flow``."""
    try:
        _opencv()
    except ImpastoError:
        return False
    return True


def estimate_flow(first: Tensor, second: Tensor) -> Tensor:
    """Return the flow from `first` to `second`, (1, 3, H, W) in [0, 1], by OpenCV's DIS (Kroeger et al. 2016).

    Raises ImpastoError without the extra ``flow``.
    """
    cv2 = _opencv()
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # As exact as the preset's 25 and 5, in three quarters of the time.
    finder.setGradientDescentIterations(8)
    finder.setVariationalRefinementIterations(3)
    grey = [luma(image).mul(255).round().byte()[0, 0].cpu().numpy() for image in (first, second)]
    found = torch.from_numpy(finder.calc(*grey, None))
    return found.permute(2, 0, 1)[None].to(first).contiguous()


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise ImpastoError("optical flow needs OpenCV: pip install 'impasto[flow]'") from None
    return cv2


def warp(image: Tensor, flow: Tensor, *, sharp: bool = False) -> Tensor:
    """Return `image`, (1, C, H, W), sampled where `flow` points to; beyond the edge, the edge.

    Bilinear, or bicubic if `sharp`, which blurs less when repeated, and may leave the range.
    """
    height, width = image.shape[-2:]
    x, y = _targets(flow)
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    mode = "bicubic" if sharp else "bilinear"
    return functional.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True)


def trusted(flow: Tensor, back: Tensor) -> Tensor:
    """Return where `flow` is reliable: (1, 1, H, W), 1 or 0 (Ruder et al. 2016, sec. 4).

    back: the flow from the other picture. Parts that are hidden or outside there, and edges of moving objects, are 0.
    """
    height, width = flow.shape[-2:]
    x, y = _targets(flow)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    returned = warp(back, flow)
    long = _squared(flow)
    covered = _squared(flow + returned) > 0.01 * (long + _squared(returned)) + 0.5
    change = torch.zeros_like(long)
    change[..., :-1] += _squared(flow[..., 1:] - flow[..., :-1])
    change[..., :-1, :] += _squared(flow[..., 1:, :] - flow[..., :-1, :])
    edge = change > 0.01 * long + 0.002
    return (inside[:, None] & ~(covered | edge)).to(flow)


def warping_error(before: Tensor, after: Tensor, flow: Tensor, back: Tensor) -> float | None:
    """Return the mean squared difference of two results where both show the same object (Lai et al. 2018, sec. 4).

    before, after: results of two frames, (1, 3, H, W) in [0, 1]; flow, back: from the first frame to the second and
    back, measured on the frames themselves. None if no object is in both.
    """
    mask = trusted(flow, back)
    count = float(mask.sum()) * before.shape[1]
    if not count:
        return None
    return float((mask * (warp(after, flow) - before).square()).sum()) / count


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return where each pixel has gone, x and y, (1, H, W) each."""
    height, width = flow.shape[-2:]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    return flow[:, 0] + columns, flow[:, 1] + rows[:, None]


def _squared(vectors: Tensor) -> Tensor:
    return vectors[:, :1].square() + vectors[:, 1:].square()  # faster than a sum over two channels
