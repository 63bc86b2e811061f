"""Random pictures of overlapping shapes, with edges and textures at all sizes, like photographs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SHAPES = 90


def dead_leaves(seed: int, height: int, width: int) -> Tensor:
    """Return overlapping shapes of all sizes (Lee, Mumford & Huang 2001), (3, height, width) in [0, 1].

    Radii fall off as r^-3, so that the picture's statistics are those of nature at every scale; the shapes are shaded
    and textured with noise of spectrum 1/f. The same for the same seed.
    """
    rng = np.random.default_rng(seed)
    noise = _noise(rng, height, width)
    picture = _colour(rng) + 0.08 * noise
    for radius in np.sort(_radii(rng, min(height, width)))[::-1]:  # small ones last, so that they stay visible
        top, left = rng.uniform(0, height), rng.uniform(0, width)
        turn, flat, power = rng.uniform(0, np.pi), rng.uniform(0.4, 1), rng.choice([1, 2, 8])
        rolled = int(rng.integers(height)), int(rng.integers(width))
        shading, texture = rng.uniform(-0.25, 0.25), rng.uniform(0, 0.4) ** 2
        color = _colour(rng)
        rows, columns = _near(top, radius, height), _near(left, radius, width)
        down, right = (rows - top)[:, None], columns - left
        along = (down * np.sin(turn) + right * np.cos(turn)) / radius
        across = (right * np.sin(turn) - down * np.cos(turn)) / (radius * flat)
        inside = (along.abs() ** power + across.abs() ** power <= 1).float()
        grain = noise[:, ((rows - rolled[0]) % height)[:, None], (columns - rolled[1]) % width]
        shade = shading * along.clamp(-1, 1) + texture * grain
        if len(rows) and len(columns):
            part = picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            part.copy_(torch.lerp(part, color + shade, inside))
    return picture.clamp(0, 1).float()


def _near(center: float, radius: float, side: int) -> Tensor:
    """Return the rows, or columns, of the picture that a shape of this radius may reach: its corners are farthest."""
    reach = radius * 2**0.5
    return torch.arange(max(0, int(center - reach)), min(side, int(center + reach) + 2))


def _radii(rng: np.random.Generator, side: int) -> np.ndarray:
    least, most = side / 20, side / 1.5
    shares = rng.uniform(size=SHAPES)
    return 1 / np.sqrt(shares / most**2 + (1 - shares) / least**2)


def _colour(rng: np.random.Generator) -> Tensor:
    """Return a random colour, mostly dull, (3, 1, 1)."""
    light, tint = rng.beta(1.2, 1.4), rng.normal(size=3) * rng.uniform(0, 0.2)
    return torch.tensor(light + tint - tint.mean(), dtype=torch.float32)[:, None, None]


def _noise(rng: np.random.Generator, height: int, width: int) -> Tensor:
    """Return noise of spectrum 1/f with deviation 1, (1, height, width)."""
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.hypot(down, right)
    frequency[0, 0] = np.inf
    waves = np.fft.rfft2(rng.normal(size=(height, width))) / frequency
    noise = np.fft.irfft2(waves, (height, width))
    return torch.tensor(noise / noise.std(), dtype=torch.float32)[None]
