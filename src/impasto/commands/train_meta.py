"""`impasto train metastyle`: initial parameters from which a network for any painting is a few steps away."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field

from impasto.commands.train_methods import judge
from impasto.commands.train_styles import StylesOptions, start_network
from impasto.errors import ImpastoError
from impasto.methods.metastyle import MetaStyleTraining
from impasto.training.loop import MethodTask, Recipe, Task, TrainOptions
from impasto.training.pictures import Pictures


class MetaStyleOptions(StylesOptions):
    """What the training of initial parameters can be told besides."""

    gram_weight: float = Field(
        0.0, ge=0, description="weight of Gram matrices beside means and deviations; flat artworks have huge ones"
    )
    style_side: int = Field(288, ge=32, le=4096, description="shorter side to which artworks are shrunk when read, px")
    from_: str = Field("", description="weights file to go on from: its own, conditional_norm's or johnson's")
    inner_steps: int = Field(1, ge=0, le=5, description="steps of the norms that training looks ahead")
    inner_rate: float = Field(0.03, ge=0, le=100, description="learning rate of these steps")
    inner_clip: float = Field(10.0, gt=0, description="largest norm of a style's gradient in these steps")
    shots: int = Field(1, ge=1, le=256, description="photos a style for the inner steps, and as many others after them")
    first_order: bool = Field(False, description="do not differentiate through the inner steps: half of the work")


def build_metastyle(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """The initial parameters, from random weights or from what `from_` holds."""
    options = cast(MetaStyleOptions, options)
    if options.batch < 2 * options.shots:
        raise ImpastoError(f"--shots {options.shots} and as many photos after the steps: --batch {2 * options.shots}")
    torch.manual_seed(options.seed)
    learner = MetaStyleTraining(
        start_network(options, None, (options.width, options.residuals)),
        judge(options),
        inner_steps=options.inner_steps,
        inner_rate=options.inner_rate,
        inner_clip=options.inner_clip,
        shots=options.shots,
        first_order=options.first_order,
    )
    return MethodTask("metastyle", learner).to(memory_format=torch.channels_last)


METASTYLE = Recipe(MetaStyleOptions, build_metastyle)
