"""Texture networks and their diversity terms once more, naively, in float64 numpy; pictures are (C, H, W)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EPS = 1e-5


def convolve(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """A convolution of odd kernel that keeps the size and sees the opposite edge beyond every edge."""
    height, width = x.shape[1:]
    half = weight.shape[2] // 2
    out = np.zeros((len(weight), height, width))
    for row in range(height):
        for column in range(width):
            for dy in range(-half, half + 1):
                for dx in range(-half, half + 1):
                    value = x[:, (row + dy) % height, (column + dx) % width]
                    out[:, row, column] += weight[:, :, dy + half, dx + half] @ value
    return out + bias[:, None, None]


def normalise(x: Floats, scale: Floats, shift: Floats) -> Floats:
    """Each channel with mean 0 and deviation 1, then scaled and shifted."""
    out = np.empty_like(x)
    for channel, values in enumerate(x):
        deviation = np.sqrt(((values - values.mean()) ** 2).mean() + EPS)
        out[channel] = (values - values.mean()) / deviation * scale[channel] + shift[channel]
    return out


class Generator:
    """The pyramid with the weights of a state dict, for shares of the textures."""

    def __init__(self, weights: Mapping[str, Floats], shares: Floats) -> None:
        self.weights, self.shares = weights, shares

    def norm(self, x: Floats, name: str) -> Floats:
        scale, shift = (self.shares @ self.weights[f"{name}.{part}"] for part in ("scale", "shift"))
        return normalise(x, scale, shift)

    def block(self, x: Floats, name: str) -> Floats:
        for i in range(3):
            weight, bias = (self.weights[f"{name}.convs.{i}.{part}"] for part in ("weight", "bias"))
            x = np.maximum(self.norm(convolve(x, weight, bias), f"{name}.norms.{i}"), 0)
        return x

    def __call__(self, noises: Sequence[Floats]) -> Floats:
        """The picture of one sample's noise, coarse to fine."""
        x = self.block(noises[0], "branches.0")
        for level, noise in enumerate(noises[1:], start=1):
            larger = x.repeat(2, axis=1).repeat(2, axis=2)
            fine = self.norm(self.block(noise, f"branches.{level}"), f"joins.{level - 1}.fine")
            joined = np.concatenate([self.norm(larger, f"joins.{level - 1}.coarse"), fine])
            x = self.block(joined, f"joins.{level - 1}.block")
        weight = np.tensordot(self.shares, self.weights["colours.weight"], 1)
        bias = self.shares @ self.weights["colours.bias"]
        return np.tensordot(weight, x, 1) + bias[:, None, None]


def julesz(samples: Floats) -> float:
    """Minus the mean logarithm of the distance to the nearest other sample."""
    logs = []
    for i, one in enumerate(samples):
        others = [np.sqrt(((one - other) ** 2).sum()) for j, other in enumerate(samples) if j != i]
        logs.append(np.log(min(others)))
    return float(-np.mean(logs))


def diversity(features: Floats, partners: Sequence[int]) -> float:
    """Minus the mean squared distance to the partners."""
    distances = [((features[i] - features[j]) ** 2).mean() for i, j in enumerate(partners)]
    return float(-np.mean(distances))


def border_ratio(picture: Floats) -> float:
    """How much opposite borders differ, by how much neighbours inside do: about 1 where they join."""
    across = np.abs(picture[:, :, 0] - picture[:, :, -1]).mean() + np.abs(picture[:, 0] - picture[:, -1]).mean()
    inside = np.abs(np.diff(picture, axis=2)).mean() + np.abs(np.diff(picture, axis=1)).mean()
    return float(across / inside)
