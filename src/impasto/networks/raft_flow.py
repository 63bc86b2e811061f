"""Optical flow by RAFT (Teed & Deng 2020, "Recurrent All-Pairs Field Transforms"), as torchvision has it.

Every pixel of one picture is compared with every pixel of the other, at an eighth of the size, and a recurrent network
refines the flow step by step. Slower than `flow.estimate_flow`, and more accurate.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import WeightsError
from impasto.weights import Weights, load_weights
from impasto.weights.torchvision_files import load_raft, load_torchvision, read_state_dict

load_torchvision()
from torchvision import models  # noqa: E402

FIRST = "feature_encoder.convnormrelu.0.weight"
SMALL = 32
"""Channels of the first layer of torchvision's smaller network; the larger one has twice as many."""
STRIDE, LEAST_SIDE = 8, 128
UPDATES = 12


class Raft:
    """Estimates optical flow, as `flow.estimate_flow` does.

    weights: a file, safetensors or torchvision's own state dict, of the small or the large network; None: torchvision's
    own, if torch's cache holds them. Raises WeightsError.

    Departs from the paper: pictures are extended by their edges to sides that are multiples of 8, and at least 128.
    """

    def __init__(self, weights: Path | None = None, device: str | torch.device = "cpu") -> None:
        found = load_raft() if weights is None else _read(weights)
        if FIRST not in found.tensors:
            raise WeightsError(f"{found.path} holds no RAFT: {FIRST} is missing")
        name = "raft_small" if len(found.tensors[FIRST]) == SMALL else "raft_large"
        network = models.get_model(name, weights=None)
        found.fill(network)
        self.digest = found.digest
        self.network = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the flow from `first` to `second`, (1, 3, H, W) in [0, 1]: (1, 2, H, W) in pixels."""
        height, width = first.shape[-2:]
        device = next(self.network.parameters()).device
        below, right = (max(-side % STRIDE, LEAST_SIDE - side) for side in (height, width))
        ready = [
            functional.pad(2 * image.to(device) - 1, (0, right, 0, below), mode="replicate")
            for image in (first, second)
        ]
        found: Tensor = self.network(*ready, num_flow_updates=UPDATES)[-1]
        return found[..., :height, :width].to(first)


def _read(path: Path) -> Weights:
    return load_weights(path) if path.suffix.lower() == ".safetensors" else read_state_dict(path)
