"""MetaStyle: the inner steps, the gradient through them, the network that ships."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.instance_norm import adaptive_instance_norm
from impasto.layers import count_parameters
from impasto.methods.metastyle import MetaStyle, MetaStyleOptions, MetaStyleTraining, paper_network
from impasto.perceptual import PerceptualLoss
from impasto.statistics import moments
from impasto.transformation import TransformationNetwork, slim_network
from tiny import narrow_slim, painting, varied

DOUBLE = torch.float64


def toy(network: TransformationNetwork | None = None, **options: object) -> MetaStyleTraining:
    """A learner in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = network or varied(slim_network(2, 1))
    layers = ("relu1_1", "relu2_1")
    judge = PerceptualLoss(
        narrow_slim().double(), style_layers=layers, content_layers=layers[1:], tv_weight=1.0, gram_weight=0.5
    )
    return MetaStyleTraining(network.double(), judge, **options)  # type: ignore[arg-type]


def pictures(count: int = 2, side: int = 16, seed: int = 1) -> Tensor:
    return torch.cat([painting(side, side, seed=seed + number) for number in range(count)]).double()


def outer_loss(learner: MetaStyleTraining) -> Tensor:
    terms = learner.training_terms(pictures(), pictures(seed=9), 0.0)
    return torch.stack(list(terms.values())).sum()


def outer_gradient(learner: MetaStyleTraining) -> Tensor:
    learner.zero_grad()
    outer_loss(learner).backward()
    return torch.cat([parameter.grad.flatten() for parameter in learner.parameters() if parameter.grad is not None])
