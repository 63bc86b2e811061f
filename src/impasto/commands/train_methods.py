"""`impasto train wct`, `adain`, `sanet`, `swift` and `metanet`: their options, and their tasks."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.feedforward.hypernetwork import HyperNetwork, condense, start_doubling, widen
from impasto.methods import adain, metanet, sanet, swift, wct
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import StepDecoder
from impasto.networks.normalised_vgg import NormalisedVGG
from impasto.networks.vgg19_slim import HEADS, SLIM, SLIM_WIDTHS
from impasto.optimize.perceptual_loss import CONTENT_LAYERS, PerceptualLoss
from impasto.stylizers.generated_network import HyperTraining, read_moments
from impasto.training.loop import MethodTask, Recipe, Task, TrainOptions
from impasto.training.pictures import Pictures
from impasto.weights import load_weights

DEEPEST_STEPS = len(SLIM_WIDTHS)
SURVEYED = 64
"""So many batches of artworks are looked at before a hyper network begins to learn."""


class MethodOptions(TrainOptions):
    """What the training of a one-pass method can be told."""

    learning_rate: float = Field(8e-4, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    teacher: str = Field(
        "", description="folder with a normalised VGG-19 to judge by; empty: vgg19-slim with its heads"
    )
    from_: str = Field(
        "", description="weights file to go on from; for adain also wct's, for sanet also theirs, whose decoders fit"
    )
    content_weight: float = Field(1.0, ge=0, description="weight of the content")
    style_weight: float = Field(4.0, ge=0, description="weight of the style; 0 for wct: only learn to rebuild")
    tv_weight: float = Field(0.0, ge=0, description="weight of total variation")
    gram_weight: float = Field(0.0, ge=0, description="weight of Gram matrices beside means and deviations")
    covariance_weight: float = Field(0.0, ge=0, description="weight of covariances beside means and deviations")
    window_weight: float = Field(0.0, ge=0, description="weight of covariances in every quarter of the picture")
    neighbor_weight: float = Field(0.0, ge=0, description="weight of the distance to the painting's nearest places")
    similarity_weight: float = Field(
        0.0, ge=0, description="weight of self-similarity, which holds the photo's objects"
    )
    structure_weight: float = Field(0.0, ge=0, description="weight of structural similarity to the photo (SSIM)")
    content_layers: tuple[str, ...] = Field(
        CONTENT_LAYERS, min_length=1, description="layers at which the content is compared"
    )


class WCTOptions(MethodOptions):
    """What the training of WCT can be told besides."""

    rebuild_weight: float = Field(1.0, ge=0, description="weight of rebuilding pictures, beside painting them")


class SANetOptions(MethodOptions):
    """What the training of SANet can be told besides."""

    identity_weight: float = Field(50.0, ge=0, description="weight of pictures painted in their own style: pixels")
    features_weight: float = Field(1.0, ge=0, description="weight of pictures painted in their own style: features")


class MetaNetOptions(MethodOptions):
    """What the training of a network that makes networks can be told besides."""

    learning_rate: float = Field(2e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    style_weight: float = Field(8.0, ge=0, description="weight of the style")
    gram_weight: float = Field(0.5, ge=0, description="weight of Gram matrices beside means and deviations")
    tv_weight: float = Field(1.0, ge=0, description="weight of total variation")
    from_: str = Field("", description="weights file to go on from")
    style_every: int = Field(1, ge=1, description="steps for which the same artworks stay; the paper's 20")
    hidden: int = Field(30, ge=1, le=1024, description="hidden numbers a generated convolution; the paper has 128")
    width: int = Field(8, ge=2, le=64, description="channels at full size; the paper has 32, its fast network 8")
    residual: bool = Field(True, description="residual blocks instead of ten convolutions in a row")
    affine: bool = Field(True, description="generate the scales and shifts of the norms, too, which the paper has not")
    sigmoid: bool = Field(True, description="a sigmoid behind the last convolution; the paper's output is linear")

    @property
    def steps_an_artwork(self) -> int:
        """As told."""
        return self.style_every


class SwiftOptions(MethodOptions):
    """What the training of swift can be told besides."""

    learning_rate: float = Field(1.2e-3, gt=0, le=1, description="highest learning rate of the one-cycle schedule")
    style_weight: float = Field(5.0, ge=0, description="weight of the style")
    structure_weight: float = Field(0.7, ge=0, description="weight of structural similarity to the photo (SSIM)")
    gram_weight: float = Field(0.1, ge=0, description="weight of Gram matrices beside means and deviations")
    tv_weight: float = Field(4.0, ge=0, description="weight of total variation")
    content_layers: tuple[str, ...] = Field(
        ("relu4_1",), min_length=1, description="layers at which the content is compared"
    )
    from_: str = Field("", description="weights file to go on from: its own, or metanet's of the same width")
    hidden: int = Field(15, ge=1, le=1024, description="hidden numbers a generated convolution")
    width: int = Field(8, ge=2, le=64, description="channels at full size")


def judging_network(teacher: str) -> nn.Module:
    """The network of the folder `teacher`; of an empty name vgg19-slim with its heads."""
    network: nn.Module = NormalisedVGG.from_folder(teacher) if teacher else load_backbone(SLIM + HEADS)
    return network.to(memory_format=torch.channels_last)


def judge(options: MethodOptions) -> PerceptualLoss:
    """The loss by which pictures are judged."""
    return PerceptualLoss(
        judging_network(options.teacher),
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


def build_wct(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """WCT's decoder, from random weights or from `from_`; the same for the same seed."""
    options = cast(WCTOptions, options)
    torch.manual_seed(options.seed)
    loss = judge(options) if options.style_weight else None
    learner = wct.WCTTraining(load_backbone(SLIM), SLIM_WIDTHS, loss, rebuild_weight=options.rebuild_weight)
    if options.from_:
        load_weights(options.from_).fill(learner.network)
    return MethodTask("wct", learner).to(memory_format=torch.channels_last)


def build_adain(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """AdaIN's decoder over vgg19-slim, from random weights or from `from_`."""
    options = cast(MethodOptions, options)
    torch.manual_seed(options.seed)
    backbone, decoder = load_backbone(SLIM), adain.slim_decoder()
    if options.from_:
        start_decoder(decoder, options.from_)
    learner = adain.AdaINTraining(backbone, judge(options), decoder)
    return MethodTask("adain", learner).to(memory_format=torch.channels_last)


def build_sanet(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """SANet's transform and decoder over vgg19-slim, from random weights or from `from_`."""
    options = cast(SANetOptions, options)
    torch.manual_seed(options.seed)
    backbone, network = load_backbone(SLIM), sanet.SANetwork.slim()
    if options.from_:
        file = load_weights(options.from_)
        if file.config.get("method") == "sanet":
            file.fill(network)
        else:
            start_decoder(network.decoder, options.from_)
            network.start_as_identity()
    learner = sanet.SANetTraining(
        backbone,
        judge(options),
        network,
        pixels_weight=options.identity_weight,
        features_weight=options.features_weight,
    )
    return MethodTask("sanet", learner).to(memory_format=torch.channels_last)


def build_swift(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """swift's hyper network, from random weights, scaled by what the artworks are like, or from `from_`."""
    options = cast(SwiftOptions, options)
    torch.manual_seed(options.seed)
    backbone, network = load_backbone(SLIM), swift.swift_network(options.hidden, options.width)
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
    return MethodTask("swift", learner).to(memory_format=torch.channels_last)


def build_metanet(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """The hyper network over vgg19-slim, from random weights, scaled by what the artworks are like, or from `from_`."""
    options = cast(MetaNetOptions, options)
    torch.manual_seed(options.seed)
    backbone = load_backbone(SLIM)
    network = metanet.slim_network(
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
    return MethodTask("metanet", learner).to(memory_format=torch.channels_last)


def survey(backbone: nn.Module, options: TrainOptions, styles: Pictures) -> Tensor:
    """What a hyper network reads of many artworks, (N, moments)."""
    crops = (styles.batch((options.seed, 0, 0, 4 + i), 8, options.crop) for i in range(SURVEYED))
    return torch.cat([read_moments(backbone, crop) for crop in crops])


def start_decoder(decoder: StepDecoder, path: str) -> None:
    """Fill `decoder` from a file of its own, or from WCT's, which has a step more."""
    file = load_weights(path)
    deeper = tuple(f"steps.{level}." for level in range(len(decoder.steps), DEEPEST_STEPS))
    file.fill(decoder, ignore=deeper)


WCT = Recipe(WCTOptions, build_wct)
ADAIN = Recipe(MethodOptions, build_adain)
SANET = Recipe(SANetOptions, build_sanet)
SWIFT = Recipe(SwiftOptions, build_swift)
METANET = Recipe(MetaNetOptions, build_metanet)
