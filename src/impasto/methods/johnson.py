"""One style in one pass: a transformation network for every painting (Johnson et al. 2016).

The network learns, for one painting, to do at once what an optimisation does in hundreds of steps. It has the best
textures of all one-pass methods, but needs a training for each painting; a style here is a whole network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor

from impasto.errors import WeightsError
from impasto.feedforward.transformation_network import TransformationNetwork
from impasto.stylizers.fixed_styles import NAMED, PaintingNetworks, PaintingTraining
from impasto.stylizers.one_pass import OnePassOptions
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import as_task, judge
from impasto.training.paintings import (
    StylesOptions,
    only_painting,
    start_network,
)
from impasto.training.pictures import Pictures
from impasto.weights import load_weights


class JohnsonOptions(OnePassOptions):
    """Options of johnson."""

    weights: str = Field("", description="local file of one or more trained networks instead of the shipped ones")


def paper_network() -> TransformationNetwork:
    """Return the paper's network with instance norms, of 1 679 235 parameters."""
    return TransformationNetwork()


class Johnson(PaintingNetworks):
    """A transformation network for each style (Johnson et al. 2016).

    Departs from the paper: instance norms, mirrored edges and upsampling by repetition (as later work of the authors
    and of others has them) instead of batch norms, zero padding and transposed convolutions; the shipped networks have
    half the width, end in a norm and a sigmoid, and were trained as `PaintingTraining` says. strength mixes the result
    with the photo.
    """

    name = "johnson"
    Options = JohnsonOptions
    options: JohnsonOptions


def join(files: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the networks of several files of johnson, or of texture_network, as one: tensors and header.

    Raises WeightsError if their methods or shapes differ.
    """
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {"networks": []}
    for path in files:
        file = load_weights(path)
        if config.setdefault("method", file.config.get("method")) != file.config.get("method"):
            raise WeightsError(f"{path} holds networks of another method")
        if config.setdefault("shape", file.config.get("shape")) != file.config.get("shape"):
            raise WeightsError(f"{path} holds a network of another shape")
        tensors |= file.tensors
        config["networks"] += file.config["networks"]
    return tensors, config


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the network of one painting, from random weights or from `from_`."""
    options = cast(StylesOptions, options)
    painting, info = only_painting(styles, "johnson")
    torch.manual_seed(options.seed)
    network = start_network(options, info[NAMED], (options.width, options.residuals))
    learner = PaintingTraining("johnson", network, judge(options), painting, info)
    return as_task("johnson", learner)


TRAINING = Training(StylesOptions, build_training)
