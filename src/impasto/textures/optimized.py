"""Texture synthesis by optimisation (Gatys, Ecker & Bethge 2015): a picture of any size with a painting's statistics.

From noise, an image is optimised, from coarse to fine, until means and covariances of its features are the painting's.
It keeps the look of things, not their places. With features of a network that sees the opposite edge beyond every edge,
the picture joins itself on all sides.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor

from impasto.errors import OptionError
from impasto.feedforward.limits import backwards_room
from impasto.images.tensors import LEAST_PAINTING, mirror_to, resize
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import default_layers
from impasto.networks.layers import wrap_edges
from impasto.networks.receptive_field import stride_after
from impasto.ops.moments import Moments, moments
from impasto.optimize.descent import (
    ImageTerms,
    OptimizerName,
    Pixels,
    Result,
    Scale,
    Settings,
    coarse_to_fine,
    noise_like,
    seconds_of_steps,
)
from impasto.optimize.loss_check import warn_of_losses
from impasto.optimize.losses import CovarianceLoss, Objective, Term, TotalVariation
from impasto.optimize.tiled_objective import TiledObjective, choose_tile
from impasto.options import Options, check_weights
from impasto.progress import OnStep, ignore
from impasto.weights.checkpoints import Checkpoint

LARGE = 4_000_000
PROBE = 192
"""Side of the picture by which the time is estimated."""


class TextureOptions(Options):
    """Options of a texture."""

    steps: int = Field(60, ge=1, le=100_000, description="steps at the final size")
    coarse_steps: int = Field(100, ge=0, le=100_000, description="steps at each coarser size")
    octaves: int = Field(3, ge=0, le=6, description="number of coarser sizes, each half the next, that come first")
    least_side: int = Field(
        32, ge=16, le=4096, description="no coarser size has a shorter side, or painting, below this"
    )
    layers: tuple[str, ...] = Field((), description="layers whose statistics are the texture; none: the backbone's own")
    layer_weights: tuple[float, ...] = Field((), description="their weights; none: falling with depth, in sum 1")
    tv_weight: float = Field(0.05, ge=0, description="weight of total variation, against noise")
    optimizer: OptimizerName = Field("lbfgs", description="lbfgs, adam or gd (plain gradient descent)")
    learning_rate: float = Field(1.0, gt=0, description="step size; adam needs about 0.05")
    noise: float = Field(0.2, gt=0, le=1, description="deviation of the noise at the start")

    @model_validator(mode="after")
    def _fitting_weights(self) -> TextureOptions:
        if self.layer_weights and len(self.layer_weights) != len(self.layers):
            raise ValueError(f"{len(self.layers)} --layers need as many layer weights")
        if any(weight < 0 for weight in self.layer_weights):
            raise ValueError("layer weights are at least 0")
        return self


@dataclass(frozen=True)
class _Look:
    """A painting's layers at one of the sizes: moments, with a count of 1."""

    found: Mapping[str, Moments]

    def objective(
        self, network: Backbone, options: TextureOptions, shares: Mapping[str, float], tileable: bool
    ) -> Objective:
        terms = [Term("texture", layer, CovarianceLoss(self.found[layer]), share) for layer, share in shares.items()]
        variation = _variation_around if tileable else TotalVariation("l2-mean")
        return Objective(network, [*terms, Term("tv", "image", variation, options.tv_weight)])


def _variation_around(image: Tensor) -> Tensor:
    """Return total variation as ``l2-mean``, in which opposite borders are neighbours."""
    steps = [image - image.roll(1, axis) for axis in (2, 3)]
    return torch.stack(steps).square().sum() / image.numel()


def resize_around(image: Tensor, height: int, width: int) -> Tensor:
    """Resize `image`, (B, C, H, W), like `resize`, but with the opposite edge beyond every edge."""
    if image.shape[-2:] == (height, width):
        return image
    larger = resize(image.repeat(1, 1, 3, 3), 3 * height, 3 * width)
    return larger[..., height : 2 * height, width : 2 * width].contiguous()


def synthesize(
    network: Backbone,
    paintings: Sequence[Tensor],
    height: int,
    width: int,
    options: TextureOptions | None = None,
    *,
    weights: Sequence[float] | None = None,
    tileable: bool = False,
    seed: int = 0,
    on_step: OnStep = ignore,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Make a texture, (1, 3, height, width), of `paintings`, (1, 3, H, W) each, which may be smaller than it.

    weights: one per painting, whose moments are mixed. tileable: opposite borders join; both sides must then be
    multiples of the network's stride. checkpoint: where the state is kept, for resuming. Raises OptionError.

    Departs from the paper: the backbone is vgg19-slim by default; means and centred covariances instead of Gram
    matrices, each in units of the painting's own; from coarse to fine, the painting being made coarser, too.
    """
    options = options or TextureOptions.parse({}, "texture")
    layers = options.layers or default_layers(network.name)[1]
    network.check_layers(layers)
    step = check_size(network, layers, height, width) if tileable else 1
    scales = _scales(network, paintings, height, width, options, step)
    shares = dict(zip(layers, options.layer_weights or _falling(len(layers)), strict=True))
    mixture = check_weights(weights, len(paintings))
    looks = {
        scale: _look(network, paintings, layers, mixture, 2 ** (len(scales) - 1 - number), options.least_side)
        for number, scale in enumerate(scales)
    }
    canvas = wrap_edges(copy.deepcopy(network)) if tileable else network
    assert isinstance(canvas, Backbone)

    def objective_at(scale: Scale, _: Tensor) -> ImageTerms:
        objective = looks[scale].objective(canvas, options, shares, tileable)
        size, room = (scale.height, scale.width), backwards_room(network.mean.device)
        tile = None if tileable else choose_tile(network, layers, size, room)
        return objective if tile is None else TiledObjective(objective, network, size, tile)

    start = noise_like(paintings[0].new_empty(1, 3, scales[0].height, scales[0].width), options.noise, seed)
    enlarge = resize_around if tileable else resize
    result = coarse_to_fine(
        scales, start, objective_at, Pixels, enlarge=enlarge, on_step=on_step, checkpoint=checkpoint
    )
    if not result.interrupted:
        warn_of_losses(result.losses, scales[-1].settings.steps, {"texture": sum(shares.values())})
    return result


def expected_seconds(
    network: Backbone, paintings: Sequence[Tensor], height: int, width: int, options: TextureOptions
) -> float:
    """Return about how many seconds `synthesize` takes, from a few steps at a small size."""
    probe = options.model_copy(update={"octaves": 0})
    return seconds_of_steps(
        lambda note: synthesize(network, paintings[:1], PROBE, PROBE, probe, on_step=note),
        PROBE**2,
        _scales(network, paintings, height, width, options, 1),
    )


def stride_of(network: Backbone, layers: Sequence[str]) -> int:
    """Return how many pixels a position of the deepest of `layers` covers."""
    return max(stride_after(network.path(layer)) for layer in layers)


def check_size(network: Backbone, layers: Sequence[str], height: int, width: int) -> int:
    """Return the stride of `layers` if both sides are multiples of it; raises OptionError otherwise."""
    stride = stride_of(network, layers)
    check_tileable(height, width, stride, network.name)
    return stride


def check_tileable(height: int, width: int, stride: int, name: str) -> None:
    """Raise OptionError if `height` or `width` is no multiple of `stride`."""
    if height % stride or width % stride:
        near = "x".join(str(max(stride, round(side / stride) * stride)) for side in (width, height))
        raise OptionError(
            f"with {name} a tileable texture's sides are multiples of {stride}, not {width}x{height}: "
            f"take --size {near}"
        )


def _scales(
    network: Backbone, paintings: Sequence[Tensor], height: int, width: int, options: TextureOptions, step: int
) -> list[Scale]:
    scales: list[Scale] = []
    least = max(options.least_side, network.least_side)
    smallest = min(min(painting.shape[-2:]) for painting in paintings)
    for octave in range(options.octaves, 0, -1):
        small = [max(step, round(side / 2**octave / step) * step) for side in (height, width)]
        if options.coarse_steps and min(*small, smallest / 2**octave) >= least:
            scales.append(Scale(small[0], small[1], _settings(options, options.coarse_steps, small[0] * small[1])))
    return [*scales, Scale(height, width, _settings(options, options.steps, height * width))]


def _settings(options: TextureOptions, steps: int, pixels: int) -> Settings:
    history = max(3, min(20, 20 * LARGE // pixels))
    return Settings(steps, options.optimizer, options.learning_rate, history=history)


def _falling(count: int) -> tuple[float, ...]:
    """Return weights that fall with depth: of five 0.3, 0.25, 0.2, 0.15, 0.1."""
    steps = [count + 1 - i for i in range(count)]
    return tuple(step / sum(steps) for step in steps)


@torch.no_grad()
def _look(
    network: Backbone,
    paintings: Sequence[Tensor],
    layers: Sequence[str],
    mixture: Sequence[float],
    factor: int,
    least: int,
) -> _Look:
    """Return the moments of the paintings' mixture, each shrunk by `factor`."""
    found: dict[str, Moments] = {}
    for painting, share in zip(paintings, mixture, strict=True):
        height, width = (max(1, round(side / factor)) for side in painting.shape[-2:])
        least = max(LEAST_PAINTING, network.least_side)
        for layer, features in network(mirror_to(resize(painting, height, width), least, least), layers).items():
            seen = moments(features)
            own = share * Moments(1.0, seen.mean, seen.second)
            found[layer] = found[layer] + own if layer in found else own
    return _Look(found)
