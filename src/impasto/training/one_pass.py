"""Training of one-pass methods: common options, and the loss."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.networks.backbone import HEADS, SLIM, SLIM_WIDTHS
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import StepDecoder
from impasto.networks.normalised_vgg import NormalisedVGG
from impasto.optimize.perceptual_loss import CONTENT_LAYERS, PerceptualLoss
from impasto.stylizers.generated_network import read_moments
from impasto.training.loop import MethodTask, Task, TrainOptions
from impasto.training.pictures import Pictures
from impasto.weights import load_weights

DEEPEST_STEPS = len(SLIM_WIDTHS)
SURVEYED = 64
"""Number of batches of artworks that are measured before a hypernetwork begins to learn."""


class MethodOptions(TrainOptions):
    """Options of the training of a one-pass method."""

    learning_rate: float = Field(8e-4, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    teacher: str = Field(
        "", description="folder with a normalised VGG-19 for the loss; empty: vgg19-slim with its heads"
    )
    from_: str = Field(
        "", description="weights file to continue from; for adain also wct's, for sanet also theirs, whose decoders fit"
    )
    content_weight: float = Field(1.0, ge=0, description="weight of the content")
    style_weight: float = Field(4.0, ge=0, description="weight of the style; 0 for wct: only learn to rebuild")
    tv_weight: float = Field(0.0, ge=0, description="weight of total variation")
    gram_weight: float = Field(0.0, ge=0, description="weight of Gram matrices beside means and deviations")
    covariance_weight: float = Field(0.0, ge=0, description="weight of covariances beside means and deviations")
    window_weight: float = Field(0.0, ge=0, description="weight of covariances in every quarter of the picture")
    neighbor_weight: float = Field(0.0, ge=0, description="weight of the distance to the painting's nearest places")
    similarity_weight: float = Field(
        0.0, ge=0, description="weight of self-similarity, which keeps the photo's objects"
    )
    structure_weight: float = Field(0.0, ge=0, description="weight of structural similarity to the photo (SSIM)")
    content_layers: tuple[str, ...] = Field(
        CONTENT_LAYERS, min_length=1, description="layers at which the content is compared"
    )


def judging_network(teacher: str) -> nn.Module:
    """Return the network of the folder `teacher`; for an empty name vgg19-slim with its heads."""
    network: nn.Module = NormalisedVGG.from_folder(teacher) if teacher else load_backbone(SLIM + HEADS)
    return network.to(memory_format=torch.channels_last)


def judge(options: MethodOptions, network: nn.Module | None = None) -> PerceptualLoss:
    """Return the loss for stylized pictures; network: instead of the one in `options`."""
    return PerceptualLoss(
        judging_network(options.teacher) if network is None else network,
        content_weight=options.content_weight,
        style_weight=options.style_weight,
        tv_weight=options.tv_weight,
        gram_weight=options.gram_weight,
        covariance_weight=options.covariance_weight,
        window_weight=options.window_weight,
        neighbor_weight=options.neighbor_weight,
        similarity_weight=options.similarity_weight,
        structure_weight=options.structure_weight,
        content_layers=options.content_layers,
    )


def as_task(name: str, learner: nn.Module) -> Task:
    """Return the training of the method called `name`."""
    return MethodTask(name, learner).to(memory_format=torch.channels_last)


def survey(backbone: nn.Module, options: TrainOptions, styles: Pictures) -> Tensor:
    """Return the hypernetwork's inputs for many artworks, (N, moments)."""
    crops = (styles.batch((options.seed, 0, 0, 4 + i), 8, options.crop) for i in range(SURVEYED))
    return torch.cat([read_moments(backbone, crop) for crop in crops])


def start_decoder(decoder: StepDecoder, path: str) -> None:
    """Fill `decoder` from its own file, or from WCT's, which has one more step."""
    file = load_weights(path)
    deeper = tuple(f"steps.{level}." for level in range(len(decoder.steps), DEEPEST_STEPS))
    file.fill(decoder, ignore=deeper)
