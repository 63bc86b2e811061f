"""What a layer keeps of a picture: the picture rebuilt from it (Mahendran & Vedaldi 2015; Gatys et al. 2016, fig. 1).

From noise, an image is optimised until its features at one layer are the photo's (content), or until its Gram matrices
at several layers are the painting's (style). Deeper layers keep less of the exact pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from impasto.networks.backbone import Backbone
from impasto.networks.backbones import default_layers
from impasto.ops.moments import Moments, moments
from impasto.optimize.descent import OptimizerName, Pixels, Result, Settings, noise_like, optimize_image
from impasto.optimize.losses import ContentLoss, GramLoss, Objective, Term, TotalVariation, gram_distance
from impasto.options import Options
from impasto.progress import OnStep, ignore


class InversionOptions(Options):
    """Options of an inversion."""

    steps: int = Field(250, ge=1, description="evaluations of the loss")
    optimizer: OptimizerName = Field("adam", description="adam, lbfgs or gd (plain gradient descent)")
    learning_rate: float = Field(0.05, gt=0, description="the optimiser's learning rate; lbfgs needs 1")
    decay: float = Field(0.7, gt=0, le=1, description="the learning rate is multiplied by it every 50 steps")
    tv_weight: float = Field(2.0, ge=0, description="content: weight of total variation, against noise")
    noise: float = Field(0.2, gt=0, le=1, description="deviation of the grey noise at the start")


@dataclass(frozen=True)
class Inversion:
    """A picture, (1, 3, H, W), rebuilt from these layers, and its distance from the original.

    psnr: to the original's pixels, in dB. ratio: the final loss over the first one, without total variation. likeness:
    normalised correlation of the pixels with the original's, from -1 to 1.
    """

    layers: tuple[str, ...]
    result: Result
    psnr: float
    ratio: float
    likeness: float

    @property
    def image(self) -> Tensor:
        """The picture."""
        return self.result.image


def invert_content(
    network: Backbone,
    image: Tensor,
    layer: str,
    options: InversionOptions | None = None,
    *,
    seed: int = 0,
    on_step: OnStep = ignore,
) -> Inversion:
    """Rebuild `image`, (1, 3, H, W) in [0, 1], from its features at `layer`, from noise. Raises OptionError.

    Departs from the papers: squared distance relative to the features' variance, total variation instead of its powers.
    """
    options = options or InversionOptions.parse({}, "invert")
    with torch.no_grad():
        wanted = network(image, {layer})[layer]
    terms = [
        Term("content", layer, ContentLoss(wanted, "relative")),
        Term("tv", "image", TotalVariation("l2-mean"), options.tv_weight),
    ]
    start = noise_like(image, options.noise, seed)
    result = _optimize(Objective(network, terms), start, options, on_step)
    return _measured((layer,), image, result, "content")


def invert_style(
    network: Backbone,
    image: Tensor,
    layers: Sequence[str],
    options: InversionOptions | None = None,
    *,
    seed: int = 0,
    on_step: OnStep = ignore,
) -> Inversion:
    """Rebuild the texture of `image`, (1, 3, H, W) in [0, 1], from Gram matrices at `layers`, from noise.

    Each layer's loss is relative to its target, and all have the same weight. Raises OptionError.

    Departs from the papers: this normalisation, so that the same weights suit every network.
    """
    options = options or InversionOptions.parse({}, "invert")
    with torch.no_grad():
        seen = network(image, set(layers))
    terms = [Term("style", layer, GramLoss(moments(seen[layer]), "relative"), 1 / len(layers)) for layer in layers]
    start = noise_like(image, options.noise, seed)
    result = _optimize(Objective(network, terms), start, options, on_step)
    return _measured(tuple(layers), image, result, "style")


def _optimize(objective: Objective, start: Tensor, options: InversionOptions, on_step: OnStep) -> Result:
    settings = Settings(options.steps, options.optimizer, options.learning_rate, options.decay)
    return optimize_image(objective, Pixels(start), settings, on_step=on_step)


def _measured(layers: tuple[str, ...], image: Tensor, result: Result, name: str) -> Inversion:
    error = float((result.image - image).square().mean())
    first, last = (result.losses[0][name], result.losses[-1][name]) if result.losses else (1.0, 1.0)
    psnr = -10 * float(torch.tensor(max(error, 1e-10)).log10())
    return Inversion(layers, result, psnr, last / max(first, 1e-30), likeness(result.image, image))


def likeness(one: Tensor, other: Tensor) -> float:
    """Return the zero-mean normalised correlation of two pictures' values, from -1 to 1."""
    a, b = (x - moments(x, full=False).mean[:, :, None, None] for x in (one, other))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


def gram_error(network: Backbone, image: Tensor, target: Tensor, layers: Sequence[str]) -> float:
    """Return the mean relative distance of two pictures' Gram matrices at `layers`."""
    with torch.no_grad():
        found, wanted = network(image, set(layers)), network(target, set(layers))
    distances = [_distance(moments(found[layer]), moments(wanted[layer])) for layer in layers]
    return sum(distances) / len(distances)


def _distance(found: Moments, wanted: Moments) -> float:
    return float(gram_distance(found, wanted, "relative"))


def sheet_layers(network: Backbone) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers of the well-known figure: for content one per block, for style the first of each block.

    conv1_2 to conv5_2 (or what the network has of block 5) and conv1_1 to conv5_1 for VGGs, after the ReLU; for others
    the layers that style transfer uses.
    """
    _, style = default_layers(network.name)
    if not all(layer.startswith("relu") and layer.endswith("_1") for layer in style):
        return style, style
    second = (layer.replace("_1", "_2") for layer in style)
    return tuple(b if b in network.layers else a for a, b in zip(style, second, strict=True)), style
