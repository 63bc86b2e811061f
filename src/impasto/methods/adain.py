"""Any style in one pass by adaptive instance normalisation (Huang & Belongie 2017).

The photo's deep features take on the channel means and deviations of the painting's, and a decoder that was trained on
photos and paintings turns them into a picture. Small and quick; the style of a painting is two numbers a channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from impasto.feedforward.instance_norm import decode_normalised, decoding_stages, measure_level, measure_photo
from impasto.feedforward.stages import IMAGE, Edge, Known, MomentsOf, Stage, StageInput
from impasto.images.tensors import LEAST_SIDE
from impasto.networks.backbone import SLIM, SLIM_WIDTHS, VGG19_WIDTHS, Backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import StepDecoder
from impasto.ops.moments import Moments, moments
from impasto.optimize.perceptual_loss import PerceptualLoss, stack_rows
from impasto.stylizers.one_pass import ArbitraryStyle, OnePassOptions
from impasto.stylizers.styles import Style, moments_kind, recall
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import MethodOptions, as_task, judge, start_decoder
from impasto.training.pictures import Pictures

DEEPEST = 4
LEVELS = (4, 3, 2, 1)
LAYERS = {level: f"relu{level}_1" for level in LEVELS}


class AdaINOptions(OnePassOptions):
    """Options of adain."""


def paper_decoder() -> StepDecoder:
    """Return the paper's decoder, of 3 505 219 parameters, with mirrored edges."""
    return StepDecoder(VGG19_WIDTHS[:DEEPEST], mirror=True)


def slim_decoder() -> StepDecoder:
    """Return the mirror image of vgg19-slim."""
    return StepDecoder(SLIM_WIDTHS[:DEEPEST])


class AdaIN(ArbitraryStyle):
    """Encoder, adaptive instance normalisation at relu4_1, decoder (Huang & Belongie 2017).

    Departs from the paper: the shipped network is vgg19-slim and its mirror, and was trained as `AdaINTraining` says;
    the decoder's features are also normalised at relu3_1, relu2_1 and relu1_1, because vgg19-slim's relu4_1 is too thin
    to hold a painting's colours. An encoder and decoder of the paper's size can be passed in, with ``levels=(4,)`` for
    the paper's one normalisation.
    """

    name = "adain"
    rebuilds = True
    Options = AdaINOptions
    options: AdaINOptions

    def __init__(
        self,
        options: AdaINOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
        decoder: StepDecoder | None = None,
        levels: Sequence[int] = LEVELS,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.backbone = (backbone or load_backbone(SLIM)).to(self.device)
        self.backbone.to(memory_format=torch.channels_last)
        self.decoder, file = self.open_network(decoder, lambda config: StepDecoder(config["widths"]))
        self.levels = tuple(levels if file is None else file.config.get("levels", LEVELS))

    @property
    def style_kind(self) -> str:
        """Means and deviations over the encoder."""
        return f"adain/{moments_kind(self.backbone)}"

    @property
    def digests(self) -> dict[str, str]:
        """Encoder and decoder."""
        return {str(self.backbone.name): str(self.backbone.digest), self.name: self.network_digest}

    def accept_style(self, style: Style) -> Style:
        """Accept own styles, and cards of moments of the same encoder that hold this method's levels."""
        if style.kind == moments_kind(self.backbone):
            return self._style({level: recall(style, LAYERS[level]) for level in self.levels}, style.info)
        return super().accept_style(style)

    def style_stage(self) -> Stage:
        """Return the moments of each level."""
        layers = [LAYERS[level] for level in self.levels]
        edges = tuple(Edge(IMAGE, layer, tuple(self.backbone.path(layer))) for layer in layers)
        measures = tuple(MomentsOf(layer, full=False) for layer in layers)
        return Stage(edges, lambda work: self.backbone(work.maps[IMAGE], layers, rounded=True), measures)

    def style_of(self, known: Known) -> Style:
        """Return means and deviations, the quantities in which the method is linear."""
        return self._style({level: known[LAYERS[level]] for level in self.levels}, {})

    def _style(self, found: Mapping[int, Moments], info: dict[str, Any]) -> Style:
        values = {f"{LAYERS[level]}.mean": own.mean[0] for level, own in found.items()}
        values |= {f"{LAYERS[level]}.deviation": own.deviation()[0] for level, own in found.items()}
        return Style(values, self.style_kind, info)

    def forward_for_export(self, content: Tensor, painting: Tensor) -> Tensor:
        """Paint in one pass from photo and painting."""
        deepest = LAYERS[DEEPEST]
        textures = self.backbone(painting, [LAYERS[level] for level in self.levels])
        wanted = {level: moments(textures[LAYERS[level]], full=False) for level in self.levels}
        targets = {level: (found.mean, found.deviation()) for level, found in wanted.items()}
        x = self.backbone(content, [deepest])[deepest]
        return decode_normalised(self.decoder, x, targets, content.shape).clamp(0, 1)

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Encode; then normalise and decode. Strength 0 paints the photo in its own style. Nothing is random."""
        names = {level: (f"{LAYERS[level]}.mean", f"{LAYERS[level]}.deviation") for level in self.levels}
        targets = {level: (style[mean][None], style[deviation][None]) for level, (mean, deviation) in names.items()}
        deepest = f"x{DEEPEST}"
        own = {level: f"own{level}" for level in self.levels if level != DEEPEST} if strength < 1 else {}
        encoded = {deepest: LAYERS[DEEPEST], **{name: LAYERS[level] for level, name in own.items()}}

        def encode(work: StageInput) -> dict[str, Tensor]:
            found = self.backbone(work.maps[IMAGE], {encoded[name] for name in work.wanted})
            return {name: found[encoded[name]] for name in work.wanted}

        edges = tuple(Edge(IMAGE, name, tuple(self.backbone.path(layer))) for name, layer in encoded.items())
        first = Stage(edges, encode, (*measure_level(DEEPEST, targets), *measure_photo(own)))
        return first, *decoding_stages(self.decoder, targets, strength, {**own, DEEPEST: deepest})


class AdaINTraining(nn.Module):
    """Training of the decoder.

    Departs from the paper: the content is compared with the photo's own normalised features, not with AdaIN's output,
    and every term is relative to its target's size, because vgg19-slim's thin features alone are easy to fool;
    `loss_network` should be exact in its shallow layers.
    """

    def __init__(
        self, backbone: nn.Module, loss: PerceptualLoss, decoder: StepDecoder, levels: Sequence[int] = LEVELS
    ) -> None:
        super().__init__()
        self.network = decoder
        self.levels = tuple(levels)
        self._frozen = backbone, loss  # in a tuple, so that it is not saved

    def config(self) -> dict[str, Any]:
        """Return the decoder's shape, for the file's header."""
        widths, digest = list(self.network.widths), str(self._frozen[0].digest)
        return {"method": "adain", "backbone": digest, "widths": widths, "levels": list(self.levels)}

    def paint(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return stylized pictures, sample by sample, (B, 3, H, W)."""
        backbone = self._frozen[0]
        with torch.no_grad():
            x: Tensor = backbone(contents, [LAYERS[DEEPEST]])[LAYERS[DEEPEST]]
            textures = backbone(styles, [LAYERS[level] for level in self.levels])
            wanted = {level: moments(textures[LAYERS[level]], full=False) for level in self.levels}
        targets = {level: (own.mean, own.deviation()) for level, own in wanted.items()}
        return decode_normalised(self.network, x, targets, contents.shape)

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return content, style and smoothness terms; the style's share grows in the first part."""
        terms = self._frozen[1](self.paint(contents, styles), contents, styles)
        return {**terms, "style": terms["style"] * min(1.0, 0.2 + 2 * progress)}

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, artworks and results, (1, 3, 3 H, B W)."""
        rows = (contents, styles, self.paint(contents, styles).clamp(0, 1))
        return stack_rows(rows)


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of AdaIN's decoder over vgg19-slim, from random weights or from `from_`."""
    options = cast(MethodOptions, options)
    torch.manual_seed(options.seed)
    backbone, decoder = load_backbone(SLIM), slim_decoder()
    if options.from_:
        start_decoder(decoder, options.from_)
    learner = AdaINTraining(backbone, judge(options), decoder)
    return as_task("adain", learner)


TRAINING = Training(MethodOptions, build_training)
