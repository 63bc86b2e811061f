"""The picture to which a class, a channel or a unit responds most (Simonyan et al. 2014; Olah et al. 2017).

An image from noise is changed until a classifier is sure of it. In plain pixels this gives noise that only the network
understands; total variation smooths it; Fourier coefficients and random shifts and turns of the image give shapes that
people recognise, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from impasto.errors import OptionError
from impasto.networks.backbone import Backbone
from impasto.networks.classifiers import LOGITS
from impasto.optimize.descent import ImageParameter, OptimizerName, Pixels, Result, Settings, optimize_image
from impasto.optimize.losses import ActivationLoss, ClassLoss, Objective, Term, TotalVariation, VariationForm
from impasto.optimize.parameterizations import Fourier
from impasto.options import Options
from impasto.progress import OnStep, ignore


class DreamOptions(Options):
    """Options in which the recipes of class visualisation differ."""

    parameterization: Literal["fourier", "pixels"] = Field("fourier", description="what is optimised")
    steps: int = Field(128, ge=1, description="optimiser steps")
    optimizer: OptimizerName = Field("adam", description="adam, gd (plain gradient descent) or lbfgs")
    learning_rate: float = Field(0.05, gt=0, description="the optimiser's learning rate")
    goal: Literal["cross-entropy", "activation"] = Field(
        "activation", description="of a class: its cross entropy, or its logit alone, which grows without limit"
    )
    weight: float = Field(1.0, gt=0, description="weight of the class or channel")
    tv_weight: float = Field(30.0, ge=0, description="weight of total variation")
    tv_form: VariationForm = Field("l2-mean", description="form of total variation")
    first_steps: int = Field(0, ge=0, description="steps without total variation and with weight 1, before the others")
    spread: float = Field(0.2, gt=0, description="deviation of the noise at the start")
    decay: float = Field(1.5, ge=0, description="fourier: coefficients are scaled by frequency to minus this power")
    jitter: int = Field(16, ge=0, description="the image is shifted by up to this many px at every step")
    zoom: float = Field(0.1, ge=0, lt=1, description="the image is enlarged or shrunk by up to this share")
    turn: float = Field(8.0, ge=0, le=180, description="the image is turned by up to this many degrees")


NOISE: dict[str, Any] = {
    "parameterization": "pixels",
    "goal": "cross-entropy",
    "tv_weight": 0.0,
    "steps": 1000,
    "optimizer": "gd",
    "learning_rate": 1.0,
    "spread": 1.0,
    "jitter": 0,
    "zoom": 0.0,
    "turn": 0.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "noise": NOISE,
    "beginners": {**NOISE, "first_steps": 1000, "weight": 10.0, "tv_weight": 0.005, "tv_form": "l1-sum"},
}
"""``noise``, and ``beginners`` with its second pass, follow the lesson of "AI for Beginners": plain pixels in the
network's own normalisation from N(0, 1), gradient descent at rate 1; then ten times the class and some variation."""


@dataclass(frozen=True)
class Target:
    """The target of a dream: a channel of a layer (of ``logits``: a class), or one unit, (row, column), of it."""

    layer: str
    channel: int
    position: tuple[int, int] | None = None

    def term(self, weight: float, goal: str) -> Term:
        """Return the loss to minimise."""
        if self.layer == LOGITS and goal == "cross-entropy":
            return Term("class", LOGITS, ClassLoss(self.channel), weight)
        return Term("channel", self.layer, ActivationLoss(self.channel, self.position), weight)


def dream(
    network: Backbone, target: Target, options: DreamOptions, *, size: int, seed: int = 0, on_step: OnStep = ignore
) -> Result:
    """Return the ideal picture of a target, (1, 3, size, size) in [0, 1], from noise.

    network: any backbone with the target's layer. Raises OptionError if it has no such layer or channel.

    Departs from the papers: jitter, zoom and turn are drawn from the seed; the penalty is total variation, not L2.
    """
    network.check_layers([target.layer])
    if size < network.least_side:
        raise OptionError(f"{network.name} needs pictures of at least {network.least_side} px a side, not {size}")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 3, size, size, generator=generator).to(network.mean)
    parameter = _parameter(network, noise, options)
    augment = random_view(options, generator)
    total = options.first_steps + options.steps
    result = Result(parameter().detach())
    for first, steps in ((True, options.first_steps), (False, options.steps)):
        if steps and not result.interrupted:
            terms = [target.term(1.0 if first else options.weight, options.goal)]
            if not first:
                terms.append(Term("tv", "image", TotalVariation(options.tv_form), options.tv_weight))
            settings = Settings(steps, options.optimizer, options.learning_rate)
            done = 0 if first else options.first_steps
            follow = _counted(on_step, done, total)
            found = optimize_image(Objective(network, terms), parameter, settings, augment=augment, on_step=follow)
            result = Result(found.image, result.losses + found.losses, found.interrupted)
    return result


def _counted(on_step: OnStep, done: int, total: int) -> OnStep:
    return lambda step: on_step(replace(step, index=done + step.index, total=total))


def _parameter(network: Backbone, noise: Tensor, options: DreamOptions) -> ImageParameter:
    if options.parameterization == "fourier":
        return Fourier(noise, spread=options.spread, decay=options.decay)
    image = options.spread * noise * network.std + network.mean
    return Pixels(image, mean=network.mean, std=network.std, clamp=False)


def random_view(options: DreamOptions, generator: torch.Generator) -> Callable[[Tensor], Tensor] | None:
    """Return a function that shifts, scales and turns the image a little, differently at every call; None if unused."""
    if not options.jitter and not options.zoom and not options.turn:
        return None

    def view(image: Tensor) -> Tensor:
        draw = (2 * torch.rand(4, generator=generator) - 1).tolist()
        side = image.shape[-1]
        angle = torch.tensor(draw[2] * options.turn).deg2rad()
        scale = 1 + draw[3] * options.zoom
        shift = [2 * options.jitter * amount / side for amount in draw[:2]]
        cos, sin = float(angle.cos()) / scale, float(angle.sin()) / scale
        matrix = image.new_tensor([[cos, -sin, shift[0]], [sin, cos, shift[1]]])[None]
        grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)

    return view
