"""The landscape on which built-in styles are shown, drawn here."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

HEIGHT, WIDTH = 168, 224


@functools.cache
def landscape(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Return a bay in the evening: sky, sun, clouds, mountains, water, meadow, tree; (1, 3, height, width)."""
    y = torch.linspace(0, 1, height).view(-1, 1).expand(height, width)
    x = torch.linspace(0, width / height, width).view(1, -1).expand(height, width)
    rough = _noise(height, width)
    image = _mix(_color(0.25, 0.45, 0.8), _color(1.0, 0.8, 0.6), (y / 0.55).clamp(0, 1))
    image = _lay(image, _color(1.0, 0.97, 0.9), ((rough - 0.55) * 6).clamp(0, 0.9) * (1 - y))
    sun = ((x - 0.95) ** 2 + (y - 0.33) ** 2).sqrt()
    image = _lay(image, _color(1.0, 0.92, 0.55), ((0.085 - sun) * 90).clamp(0, 1))
    for depth, (base, tone) in enumerate(((0.46, (0.5, 0.52, 0.68)), (0.53, (0.28, 0.38, 0.45)))):
        ridge = base - 0.09 * (4 * x + 2 * depth).sin().abs() - 0.06 * (rough - 0.5)
        image = _lay(image, _color(*tone) * (0.7 + 0.6 * rough), ((y - ridge) * height).clamp(0, 1))
    ripples = 0.5 + 0.5 * (140 * y * (1 + y) + 9 * rough + 6 * x).sin()
    water = _mix(
        _color(0.2, 0.42, 0.58), _color(0.95, 0.8, 0.62), ripples * (1.2 - (x - 0.95).abs() * 2).clamp(0.1, 0.8)
    )
    image = _lay(image, water, ((y - 0.58) * height).clamp(0, 1))
    shore = 0.76 + 0.08 * (3 * x + 0.4).sin() + 0.05 * (rough - 0.5)
    meadow = _mix(_color(0.16, 0.34, 0.12), _color(0.65, 0.66, 0.25), rough)
    image = _lay(image, meadow, ((y - shore) * height).clamp(0, 1))
    trunk = ((x - 0.3 - 0.02 * (9 * y).sin()).abs() < 0.017) & (y > 0.3) & (y < 0.86)
    image = _lay(image, _color(0.27, 0.17, 0.1), trunk.float())
    crown = ((x - 0.3) / 0.23) ** 2 + ((y - 0.3) / 0.2) ** 2 + 1.6 * (rough - 0.5)
    leaves = _mix(_color(0.1, 0.24, 0.1), _color(0.42, 0.58, 0.16), (rough * 1.6 - y).clamp(0, 1))
    return _lay(image, leaves, ((1 - crown) * 8).clamp(0, 1))


def _noise(height: int, width: int) -> Tensor:
    """Return smooth noise of several sizes, (height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros(1, 1, height, width)
    for octave in range(1, 6):
        coarse = torch.rand(1, 1, 3 * 2**octave // 2, 2 * 2**octave, generator=generator)
        total += functional.interpolate(coarse, (height, width), mode="bicubic") / 2**octave
    low, high = torch.aminmax(total)
    return ((total - low) / (high - low))[0, 0]


def _color(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1)


def _mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return first + (second - first) * share


def _lay(image: Tensor, over: Tensor, cover: Tensor) -> Tensor:
    return _mix(image, over, cover).clamp(0, 1)
