"""Any style in one pass by a network made for it: Meta Networks (Shen, Yan & Zeng 2018).

A hypernetwork reads the moments of a painting's features and writes the kernels of a small transformation network,
which then paints without it. So a new painting takes no longer than one look at it, and the result can be kept as a
file of half a megabyte.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from pydantic import Field

from impasto.feedforward.hypernetwork import HyperNetwork
from impasto.networks.backbone import SLIM
from impasto.networks.backbones import load_backbone
from impasto.stylizers.generated_network import SLIM_MOMENTS, GeneratedNetworks, GeneratedOptions, HyperTraining
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import MethodOptions, as_task, judge, survey
from impasto.training.pictures import Pictures
from impasto.weights import load_weights


class MetaNetOptions(GeneratedOptions):
    """Options of metanet."""


def slim_network(
    hidden: int = 30,
    width: int = 8,
    *,
    residual: bool = True,
    output: Literal["linear", "sigmoid"] = "sigmoid",
    affine: bool = True,
) -> HyperNetwork:
    """Return the shipped size: the fast network's, read from all five layers of vgg19-slim."""
    return HyperNetwork(SLIM_MOMENTS, hidden, width, residual=residual, output=output, affine=affine)


class MetaNet(GeneratedNetworks):
    """A network for any painting, written by a hyper network (Shen, Yan & Zeng 2018, "Meta Networks for NST").

    Departs from the paper: the moments are those of vgg19-slim, on a logarithmic scale in units of their spread; the
    groups of the hidden vector are smaller; the norms' scales and shifts are generated, too, 784 numbers in addition to
    the fast network's 112 056, because a painting's colours can't be reached without them; a sigmoid ends the network;
    edges are mirrored at every convolution. The loss is `PerceptualLoss`: normalised content, and means and deviations
    in addition to the Gram matrices, over VGG-19. Every sample of a batch has its own style; the paper's batches have
    one style, for 20 batches. strength mixes the result with the photo.
    """

    name = "metanet"
    Options = MetaNetOptions


class MetaNetTrainOptions(MethodOptions):
    """Further training options for a network that makes networks."""

    learning_rate: float = Field(2e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    style_weight: float = Field(8.0, ge=0, description="weight of the style")
    gram_weight: float = Field(0.5, ge=0, description="weight of Gram matrices beside means and deviations")
    tv_weight: float = Field(1.0, ge=0, description="weight of total variation")
    from_: str = Field("", description="weights file to continue from")
    style_every: int = Field(1, ge=1, description="steps for which the same artworks are used; the paper has 20")
    hidden: int = Field(30, ge=1, le=1024, description="hidden numbers a generated convolution; the paper has 128")
    width: int = Field(8, ge=2, le=64, description="channels at full size; the paper has 32, its fast network 8")
    residual: bool = Field(True, description="residual blocks instead of ten convolutions in a row")
    affine: bool = Field(True, description="also generate the norms' scales and shifts, which the paper does not")
    sigmoid: bool = Field(True, description="a sigmoid behind the last convolution; the paper's output is linear")

    @property
    def steps_an_artwork(self) -> int:
        """Number of steps for which an artwork stays the same."""
        return self.style_every


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of the hypernetwork, from random weights, scaled by the artworks, or from `from_`."""
    options = cast(MetaNetTrainOptions, options)
    torch.manual_seed(options.seed)
    backbone = load_backbone(SLIM)
    network = slim_network(
        options.hidden,
        options.width,
        residual=options.residual,
        output="sigmoid" if options.sigmoid else "linear",
        affine=options.affine,
    )
    if options.from_:
        load_weights(options.from_).fill(network)
    else:
        network.start_reading(survey(backbone, options, styles))
    learner = HyperTraining("metanet", backbone, judge(options), network)
    return as_task("metanet", learner)


TRAINING = Training(MetaNetTrainOptions, build_training)
