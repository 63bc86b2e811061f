"""Any style in one quick pass: impasto's own network.

As in `metanet`, a hypernetwork reads the moments of a painting over vgg19-slim and writes the kernels, scales and
shifts of a small network, which then paints. Here that network enlarges by repeating pixels, so that it leaves no grid;
it has shortcuts from the way down, with gains by the hypernetwork, so that it keeps the photo's objects; and it also
learns from the photo's structural similarity.

Alternatives that were tried, on 24 of the protocol's pairs (style loss, content loss, SSIM): an encoder and a decoder
around optimal transports of correlations at four scales, as in `wct` but trained through them: 0.250, 0.721, 0.592
after 35 minutes on one core, at 1.4 times the time; `metanet`'s form after 50 minutes: 0.139, 0.713, 0.475 at full
strength and 0.174, 0.657, 0.530 at 0.9, with a pattern of two pixels over flat parts.

Effect of the loss's weights, on all 120 pairs: structure 1 for 57 minutes gives 0.201, 0.617, 0.634; 0.3 for eleven
more, with 1.15 for the content, 0.184, 0.640, 0.608; the mean of both networks 0.190, 0.627, 0.621; 92 minutes from
there with structure 0.2 and content 1.4: 0.164, 0.592, 0.604.
"""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field

from impasto.feedforward.hypernetwork import HyperNetwork, condense, start_doubling, widen
from impasto.networks.backbone import SLIM
from impasto.networks.backbones import load_backbone
from impasto.stylizers.generated_network import SLIM_MOMENTS, GeneratedNetworks, GeneratedOptions, HyperTraining
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import MethodOptions, as_task, judge, survey
from impasto.training.pictures import Pictures
from impasto.weights import load_weights


class SwiftOptions(GeneratedOptions):
    """Options of swift."""


def swift_network(hidden: int = 15, width: int = 8) -> HyperNetwork:
    """Return the shipped size."""
    return HyperNetwork(SLIM_MOMENTS, hidden, width, output="sigmoid", affine=True, doubling=True, shortcuts=True)


class Swift(GeneratedNetworks):
    """impasto's own network: small, generated for each style, with shortcuts.

    Departs from the paper: there is none; it departs from Meta Networks (Shen, Yan & Zeng 2018) as `metanet` does, and
    in its upsampling, by repetition and convolutions 3x3, in its shortcuts, and in its loss.
    """

    name = "swift"
    Options = SwiftOptions


class SwiftTrainOptions(MethodOptions):
    """Further training options for swift."""

    learning_rate: float = Field(1.2e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    style_weight: float = Field(5.0, ge=0, description="weight of the style")
    structure_weight: float = Field(0.7, ge=0, description="weight of structural similarity to the photo (SSIM)")
    gram_weight: float = Field(0.1, ge=0, description="weight of Gram matrices beside means and deviations")
    tv_weight: float = Field(4.0, ge=0, description="weight of total variation")
    content_layers: tuple[str, ...] = Field(
        ("relu4_1",), min_length=1, description="layers at which the content is compared"
    )
    from_: str = Field("", description="weights file to continue from: its own, or metanet's of the same width")
    hidden: int = Field(15, ge=1, le=1024, description="hidden numbers a generated convolution")
    width: int = Field(8, ge=2, le=64, description="channels at full size")


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of the hypernetwork, from random weights, scaled by the artworks, or from `from_`."""
    options = cast(SwiftTrainOptions, options)
    torch.manual_seed(options.seed)
    backbone, network = load_backbone(SLIM), swift_network(options.hidden, options.width)
    if not options.from_:
        network.start_reading(survey(backbone, options, styles))
    else:
        file = load_weights(options.from_)
        if file.config.get("method") == "metanet":
            before = file.build(lambda config: HyperNetwork(**config["shape"]), "metanet")
            if before.hidden > options.hidden:
                before = condense(before, options.hidden, survey(backbone, options, styles))
            start_doubling(network, before)
        else:
            known = file.build(lambda config: HyperNetwork(**config["shape"]), "swift")
            fits = known.hidden >= options.hidden
            network = known if fits else widen(known, options.hidden, survey(backbone, options, styles))
    learner = HyperTraining("swift", backbone, judge(options), network, ramp=not options.from_)
    return as_task("swift", learner)


TRAINING = Training(SwiftTrainOptions, build_training)
