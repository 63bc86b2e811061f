"""The tasks of transfer learning: a linear layer on frozen features, or the network end to end, whole or by LoRA."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from impasto.images.contact_sheet import heat_map
from impasto.networks.backbone import SLIM, Backbone
from impasto.networks.classifiers import HEAD, Header, Mode
from impasto.networks.layers import freeze
from impasto.training.loop import Task, TrainOptions
from impasto.transfer.lora import adapt, adapters

NAME = "classifier"
LEAST_DEVIATION = 1e-2


class FitOptions(TrainOptions):
    """Options of `impasto transfer fit`."""

    backbone: str = Field(SLIM, description="network whose features are reused")
    backbone_weights: str = Field("", description="local weights file for the backbone instead of the official one")
    layer: str = Field("", description="layer that the head reads; empty: the backbone's last")
    grid: int = Field(3, ge=1, le=16, description="features are averaged in this many cells a side")
    mode: Mode = Field(
        "features", description="features: a linear layer on frozen features; full: end to end; lora: adapters"
    )
    test_share: float = Field(0.25, gt=0, lt=1, description="share of each class that is kept for the test")
    steps: int = Field(1500, ge=1, description="optimiser steps; with --minutes the largest number")
    batch: int = Field(64, ge=1, le=4096, description="pictures a step")
    crop: int = Field(224, ge=16, le=2048, description="side of the classifier's pictures, px")
    side: int = Field(256, ge=16, le=4096, description="end to end: shorter side of pictures that are cropped, px")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    weight_decay: float = Field(0.3, ge=0, description="AdamW's decay of the head's weights")
    frozen_share: float = Field(
        0.3, ge=0, le=1, description="end to end: share of the steps in which only the head learns"
    )
    body_rate: float = Field(
        0.1, ge=0, le=1, description="end to end, LoRA: learning rate of the backbone or its adapters over the head's"
    )
    rank: int = Field(8, ge=1, le=256, description="LoRA: channels of each adapter")
    alpha: int = Field(16, ge=1, description="LoRA: adapters are scaled by alpha / rank")
    preview_every: int = Field(1_000_000, ge=1, description="steps between pictures of the head's weights")


class _Classification(Task):
    """Common parts: cross entropy with the labels, the header."""

    name = NAME

    def __init__(self, header: Header) -> None:
        super().__init__()
        self.header = header

    def config(self) -> dict[str, Any]:
        """Return the file's header."""
        return self.header.model_dump(mode="json", exclude={"steps"})


class LinearTask(_Classification):
    """A linear layer on frozen features, trained on standardised ones; the file holds it for the original features.

    features: all training features, (N, C, g, g).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, header: Header, features: Tensor, weight_decay: float) -> None:
        super().__init__(header)
        flat = features.flatten(1)
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("deviation", flat.std(0, correction=0).clamp_min(LEAST_DEVIATION))
        self.linear = nn.Linear(flat.shape[1], len(header.classes))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.weight_decay = weight_decay

    def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """contents: features, (B, C, g, g); styles: labels, (B, 1, 1, 1). Returns the cross entropy."""
        logits = self.linear((contents.flatten(1) - self.mean) / self.deviation)
        return {"cross-entropy": F.cross_entropy(logits, styles.flatten().long())}

    def optimizers(self, learning_rate: float) -> list[torch.optim.Optimizer]:
        """Return AdamW."""
        return [torch.optim.AdamW(self.linear.parameters(), lr=learning_rate, weight_decay=self.weight_decay)]

    def learned(self) -> nn.Module:
        """Return the linear layer."""
        return self.linear

    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return the weights as a picture, a row for each class."""
        return heat_map(self.linear.weight.detach())

    def shippable(self) -> dict[str, Tensor]:
        """Return the head's tensors, with the standardisation folded in."""
        weight = self.linear.weight.detach() / self.deviation
        bias = self.linear.bias.detach() - weight @ self.mean
        return {f"{HEAD}linear.weight": weight, f"{HEAD}linear.bias": bias}


class FinetuneTask(_Classification):
    """A network with a new head, end to end: first the head alone, then, more slowly, the backbone with it.

    An untrained head would spoil the backbone's weights, hence the order. Batch norms stay frozen. With LoRA the
    backbone's weights never change; adapters learn in their place, from the start.
    """

    def __init__(self, header: Header, network: Backbone, options: FitOptions) -> None:
        super().__init__(header)
        freeze(network)
        self.network, self.options = network, options
        self.adapted: dict[str, nn.Module] = {}
        if header.mode == "lora":
            self.adapted = adapt(network, options.rank, options.alpha)
            self.frozen_until = 0.0
        else:
            network.requires_grad_(True)
            self.frozen_until = options.frozen_share
        self.head.requires_grad_(True)

    @property
    def head(self) -> nn.Module:
        """The new layer."""
        return self.network.get_submodule(HEAD.rstrip("."))

    def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """contents: pictures, (B, 3, S, S); styles: labels, (B, 1, 1, 1). Returns the cross entropy."""
        layer = self.header.layer
        with torch.set_grad_enabled(torch.is_grad_enabled() and progress >= self.frozen_until):
            features = self.network(contents, {layer})[layer]
        return {"cross-entropy": F.cross_entropy(self.head(features).float(), styles.flatten().long())}

    def optimizers(self, learning_rate: float) -> list[torch.optim.Optimizer]:
        """Return AdamW with one rate for the head and a lower one for the backbone or its adapters."""
        head = list(self.head.parameters())
        own = {id(parameter) for parameter in head}
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in own]
        rate = learning_rate * self.options.body_rate
        groups = [
            {"params": head, "lr": learning_rate, "weight_decay": self.options.weight_decay},
            {"params": rest, "lr": rate, "weight_decay": 0.0},
        ]
        return [torch.optim.AdamW([group for group in groups if group["params"]])]

    def learned(self) -> nn.Module:
        """Return the network."""
        return self.network

    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return the head's weights as a picture, a row for each class."""
        return heat_map(self.head.get_parameter("linear.weight").detach())

    def shippable(self) -> dict[str, Tensor]:
        """Return the tensors of the whole network, or of the head and the adapters."""
        if not self.adapted:
            return dict(self.network.state_dict())
        head = {name: value for name, value in self.network.state_dict().items() if name.startswith(HEAD)}
        return head | adapters(self.adapted)


def make_header(options: FitOptions, backbone: Backbone, layer: str, classes: tuple[str, ...]) -> Header:
    """Return the header of a classifier's file."""
    return Header(
        kind="classifier",
        backbone=backbone.name,
        backbone_digest=backbone.digest,
        mode=options.mode,
        layer=layer,
        grid=options.grid,
        size=options.crop,
        classes=classes,
        lora_scale=options.alpha / options.rank if options.mode == "lora" else 1.0,
    )
