"""Losses that make a generator's samples differ: without them, it may learn a single picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import OptionError


def derangement(count: int, generator: torch.Generator | None = None) -> Tensor:
    """Return a random order of 0 ... `count` - 1, (count,), in which no number keeps its place.

    All such orders are equally likely. Raises OptionError for fewer than two numbers.
    """
    if count < 2:
        raise OptionError(f"the diversity loss compares samples: {count} of a texture are too few, use 2 or more")
    places = torch.arange(count)
    while True:
        order = torch.randperm(count, generator=generator)
        if not bool((order == places).any()):
            return order


def diversity_loss(features: Tensor, partners: Tensor) -> Tensor:
    """Return minus the mean squared distance of each sample to its partner (Li et al. 2017, sec. 3.3).

    features: (B, C, H, W); partners: (B,), a `derangement`. The partners are targets, without a gradient.

    Departs from the paper: nothing; its features are relu4_2's.
    """
    return -F.mse_loss(features, features.detach()[partners])


def julesz_loss(samples: Tensor, eps: float = 1e-8) -> Tensor:
    """Return minus the mean logarithm of each sample's distance to its nearest one (Ulyanov et al. 2017, eq. 5).

    Up to constants, this is a nearest-neighbour estimate of minus the entropy of the samples. samples: (B, ...), at
    least two; eps: added to squared distances, for equal samples. Raises OptionError.

    Departs from the paper: that eps.
    """
    if len(samples) < 2:
        raise OptionError(
            f"the diversity loss compares samples: {len(samples)} of a texture are too few, use 2 or more"
        )
    flat = samples.flatten(1)
    squares = (flat[:, None] - flat[None]).square().sum(2)
    alone = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    nearest = squares.masked_fill(alone, torch.inf).amin(1)
    return -0.5 * (nearest + eps).log().mean()
