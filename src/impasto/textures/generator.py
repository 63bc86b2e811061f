"""Texture networks: textures without end from noise, in one pass (Ulyanov et al. 2016, 2017; Li et al. 2017).

Noise at several sizes, coarse to fine, goes through a few convolutions each and is joined with the coarser sizes.
Beyond an edge the network sees the opposite one, so its pictures tile the plane. One generator holds several textures,
each with its own normalisation and colours; mixing these mixes the textures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import OptionError, WeightsError, nearest
from impasto.networks.layers import Conv, double, freeze, inference, wrap_edges
from impasto.ops.moments import adaptive_instance_norm
from impasto.options import check_weights
from impasto.weights import load_weights, resolve

NAME = "texture"
MOST_LEVELS = 16
LEVELS, BRANCH, NOISE = 6, 8, 3
SHIPPED_WIDTHS = (64, 64, 64, 48, 32, 24)


class SelectedNorm(nn.Module):
    """Instance normalisation with a scale and a shift for each texture, (S, C) each, chosen by shares."""

    def __init__(self, textures: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(textures, channels))
        self.shift = nn.Parameter(torch.zeros(textures, channels))

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """Map (B, C, H, W) and shares (B, S) to (B, C, H, W)."""
        return adaptive_instance_norm(x, _select(shares, self.shift), _select(shares, self.scale))


def _select(shares: Tensor, values: Tensor) -> Tensor:
    """Return the sum of each texture's values, (S, ...), times its share, (B, S): (B, ...)."""
    weights = shares.view(*shares.shape, *(1,) * (values.dim() - 1))
    return (weights * values).sum(1)


class Block(nn.Module):
    """Two 3x3 convolutions and a 1x1 one, each normalised and rectified."""

    def __init__(self, textures: int, inputs: int, width: int) -> None:
        super().__init__()
        shapes = ((inputs, width, 3), (width, width, 3), (width, width, 1))
        self.convs = nn.ModuleList(Conv(*shape) for shape in shapes)
        self.norms = nn.ModuleList(SelectedNorm(textures, width) for _ in shapes)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, width, H, W)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x), shares).relu_()
        return x


class Join(nn.Module):
    """The coarser path, doubled, beside a finer branch, both normalised first; then a block."""

    def __init__(self, textures: int, coarse: int, fine: int, width: int) -> None:
        super().__init__()
        self.coarse, self.fine = SelectedNorm(textures, coarse), SelectedNorm(textures, fine)
        self.block = Block(textures, coarse + fine, width)

    def forward(self, x: Tensor, branch: Tensor, shares: Tensor) -> Tensor:
        """Map (B, coarse, H / 2, W / 2) and (B, fine, H, W) to (B, width, H, W)."""
        coarse = double(self.coarse(x, shares))  # repeated values have the same moments
        y: Tensor = self.block(torch.cat([coarse, self.fine(branch, shares)], 1), shares)
        return y


class Colours(nn.Module):
    """The last 1x1 convolution, one for each texture, chosen by shares."""

    def __init__(self, textures: int, inputs: int) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, 3, 1)
        self.weight = nn.Parameter(first.weight.detach()[None, :, :, 0, 0].repeat(textures, 1, 1))
        self.bias = nn.Parameter(torch.full((textures, 3), 0.5))

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to pictures, (B, 3, H, W)."""
        weight, bias = _select(shares, self.weight), _select(shares, self.bias)
        with torch.autocast(x.device.type, enabled=False):  # in half precision, colours would show steps
            x = x.to(weight.dtype)
            picture = torch.einsum("bchw,bdc->bdhw", x, weight) + bias[:, :, None, None]
        return picture.contiguous(memory_format=torch.channels_last)


class PyramidGenerator(nn.Module):
    """The multi-scale generator (Ulyanov et al. 2016, sec. 3.2) with instance normalisation (2017) and selection.

    levels: number of noise sizes, each twice the next coarser; branch: channels of each size's path; widths: of the
    joined path, coarse to fine; default: the paper's, which grow by `branch` from level to level (with five levels and
    one texture about 65 000 weights in convolutions); noise: channels of noise.

    Departs from the papers: a texture is chosen by its normalisation's scales and shifts and by its last convolution
    (as Dumoulin et al. 2017 choose styles), not by a second stream of maps (Li et al. 2017), because an instance
    normalisation removes everything that is the same at all positions. Shares other than 0 and 1 mix textures. There is
    no branch for a photo: methods put a painting's texture on a photo.
    """

    def __init__(
        self,
        textures: int = 1,
        *,
        levels: int = LEVELS,
        branch: int = BRANCH,
        widths: Sequence[int] | None = None,
        noise: int = NOISE,
    ) -> None:
        super().__init__()
        if not 1 <= levels <= MOST_LEVELS:
            raise OptionError(f"a generator has 1 to {MOST_LEVELS} levels, not {levels}")
        self.textures, self.levels, self.branch, self.noise = textures, levels, branch, noise
        self.widths = tuple(widths or (branch * (i + 1) for i in range(levels)))
        if len(self.widths) != levels:
            raise OptionError(f"{levels} levels need as many widths, not {len(self.widths)}")
        firsts = [self.widths[0]] + [branch] * (levels - 1)
        self.branches = nn.ModuleList(Block(textures, noise, first) for first in firsts)
        pairs = zip(self.widths, self.widths[1:], strict=False)
        self.joins = nn.ModuleList(Join(textures, coarse, branch, width) for coarse, width in pairs)
        self.colours = Colours(textures, self.widths[-1])
        wrap_edges(self)

    @property
    def selected(self) -> list[str]:
        """The names of the parameters that hold a row for each texture."""
        parts = {name: part for name, part in self.named_modules() if isinstance(part, SelectedNorm | Colours)}
        return [f"{name}.{own}" for name, part in parts.items() for own, _ in part.named_parameters()]

    @property
    def stride(self) -> int:
        """The sides of its pictures are multiples of this."""
        return 1 << (self.levels - 1)

    def draw(self, count: int, height: int, width: int, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return noise for `count` pictures, uniform in [0, 1], coarse to fine; sides are multiples of `stride`."""
        ratios = [2**level for level in reversed(range(self.levels))]
        shapes = [(count, self.noise, height // ratio, width // ratio) for ratio in ratios]
        return [torch.rand(shape, generator=generator) for shape in shapes]

    def forward(self, noises: Sequence[Tensor], shares: Tensor) -> Tensor:
        """Return pictures, (B, 3, H, W), not clamped, from the noise of `draw` and shares of the textures, (B, S)."""
        first, *others = (branch(noise, shares) for branch, noise in zip(self.branches, noises, strict=True))
        x: Tensor = first
        for join, other in zip(self.joins, others, strict=True):
            x = join(x, other, shares)
        y: Tensor = self.colours(x, shares)
        return y

    def config(self) -> dict[str, Any]:
        """Return its shape, for a file's header."""
        return {"levels": self.levels, "branch": self.branch, "widths": list(self.widths), "noise": self.noise}


class TextureGenerator:
    """A trained generator: `sample` draws textures, by number, name or shares."""

    name = NAME

    def __init__(self, network: PyramidGenerator, names: Sequence[str], digest: str = "random") -> None:
        if len(names) != network.textures:
            raise OptionError(f"a generator of {network.textures} textures needs as many names, not {len(names)}")
        self.network, self.names, self.digest = network, tuple(names), digest
        freeze(network)
        network.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, weights: str | Path | None = None, device: str | torch.device = "cpu") -> TextureGenerator:
        """Return the generator that comes with impasto, or that of a file; raises WeightsError."""
        file = load_weights(weights or resolve(NAME))
        try:
            config = {name: file.config[name] for name in ("levels", "branch", "widths", "noise")}
            names = [str(name) for name in file.config["textures"]]
            network = PyramidGenerator(len(names), **config)
        except (KeyError, TypeError, ValueError, OptionError):
            raise WeightsError(f"{file.path} holds no texture generator; `impasto train texture` trains one") from None
        file.fill(network)
        return cls(network.to(device), names, file.digest)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.colours.bias.device

    def shares(self, texture: int | str | Sequence[float]) -> Tensor:
        """Return the shares, (S,), of a texture by number or name, or of a mixture; raises OptionError."""
        count = len(self.names)
        if isinstance(texture, str):
            if texture not in self.names:
                near = nearest(texture, self.names)
                raise OptionError(f"there is no texture {texture!r}{near}; there are: {', '.join(self.names)}")
            texture = self.names.index(texture)
        if isinstance(texture, int):
            if not 0 <= texture < count:
                raise OptionError(f"there is no texture {texture}: they go from 0 to {count - 1}")
            return torch.eye(count)[texture]
        return torch.tensor(check_weights(texture, count))

    def sample(
        self,
        texture: int | str | Sequence[float],
        height: int,
        width: int,
        *,
        count: int = 1,
        seed: int = 0,
        precision: str = "auto",
    ) -> Tensor:
        """Draw `count` pictures, (count, 3, height, width) in [0, 1].

        texture: number, name, or a share for each texture. If both sides are multiples of the network's stride,
        opposite borders join; other sizes are cut out of the next larger such one. precision: see `layers.inference`.
        Raises OptionError.
        """
        if min(height, width, count) < 1:
            raise OptionError(f"a texture is at least 1 px a side, not {width}x{height}")
        shares = self.shares(texture).expand(count, -1).to(self.device)
        stride = self.network.stride
        rows, columns = (-(-side // stride) * stride for side in (height, width))
        noises = self.network.draw(count, rows, columns, torch.Generator().manual_seed(seed))
        with inference(self.device, precision):
            noises = [noise.to(self.device, memory_format=torch.channels_last) for noise in noises]
            picture: Tensor = self.network(noises, shares)
        return picture[..., :height, :width].float().clamp(0, 1).contiguous()
