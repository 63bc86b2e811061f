"""Adaptive instance normalisation, at one layer and all the way through a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.layers import StepDecoder, size_below
from impasto.statistics import Moments, moments

Targets = Mapping[int, tuple[Tensor, Tensor]]
"""By level, means and deviations, each (1 or B, C)."""


def adaptive_instance_norm(content: Tensor, mean: Tensor, deviation: Tensor, own: Moments | None = None) -> Tensor:
    """Give content features a style's channel means and deviations (Huang & Belongie 2017, sec. 5).

    content: (B, C, H, W); mean, deviation: (1 or B, C), of the style's features; own: the content's moments, if they
    are not those of all of `content`. Returns (B, C, H, W).

    Departs from the paper: nothing.
    """
    own = own or moments(content, full=False)
    scale = deviation / own.deviation()
    shift = mean - own.mean * scale
    scale, shift = scale.to(content.dtype), shift.to(content.dtype)
    if len(scale) == 1:  # a convolution of each channel by itself is the quickest way of scaling
        return F.conv2d(content, scale[0, :, None, None, None], shift[0], groups=content.shape[1])
    return content * scale[:, :, None, None] + shift[:, :, None, None]


def decode_normalised(
    decoder: StepDecoder,
    x: Tensor,
    targets: Targets,
    shape: Sequence[int],
    *,
    strength: float = 1.0,
    moments_at: Callable[[int, Tensor], Moments] | None = None,
) -> Tensor:
    """From relu4_1's features `x` to a picture of `shape`, normalised at each level of `targets` on the way.

    strength: from 0, no normalisation, to 1; moments_at: gives the moments by which the features at a level are
    normalised, if they are not their own.
    """
    for level in range(len(decoder.steps), 0, -1):
        if level in targets:
            own = None if moments_at is None else moments_at(level, x)
            normalised = adaptive_instance_norm(x, *targets[level], own)
            x = normalised if strength == 1 else torch.lerp(x, normalised, strength)
        x = decoder.step(level, x, size_below(level, shape))
    return x
