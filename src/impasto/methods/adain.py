"""Any style in one pass by adaptive instance normalisation (Huang & Belongie 2017).

The photo's deep features take on the channel means and deviations of the painting's, and a decoder that was trained on
photos and paintings turns them into a picture. Small and quick; the style of a painting is two numbers a channel.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.backbones import SLIM, SLIM_WIDTHS, VGG19_WIDTHS, load_backbone
from impasto.layers import Decoder, fit_edge, inference, mirrored_stages
from impasto.optimize import OnStep, ignore
from impasto.options import Options
from impasto.perceptual import PerceptualLoss
from impasto.statistics import Moments, moments
from impasto.styles import Style, moments_kind, recall
from impasto.stylizer import Stylizer
from impasto.weights import load_weights, resolve

LAYER = "relu4_1"


class AdaINOptions(Options):
    """What can be chosen without training anew."""

    weights: str = Field("", description="local weights file instead of the shipped one")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the convolutions")


def adaptive_instance_norm(content: Tensor, mean: Tensor, deviation: Tensor, own: Moments | None = None) -> Tensor:
    """Give content features a style's channel means and deviations (Huang & Belongie 2017, sec. 5).

    content: (B, C, H, W); mean, deviation: (1 or B, C), of the style's features; own: the content's moments, if they
    are not those of all of `content`. Returns (B, C, H, W).

    Departs from the paper: nothing.
    """
    own = own or moments(content, full=False)
    scale = deviation / own.deviation()
    shift = mean - own.mean * scale
    return content * scale[:, :, None, None].to(content.dtype) + shift[:, :, None, None].to(content.dtype)


def paper_decoder() -> Decoder:
    """The paper's decoder, of 3 505 219 parameters, with mirrored edges."""
    return Decoder(VGG19_WIDTHS[3], mirrored_stages(VGG19_WIDTHS), mirror=True)


def slim_decoder() -> Decoder:
    """The mirror of vgg19-slim."""
    return Decoder(SLIM_WIDTHS[3], mirrored_stages(SLIM_WIDTHS))


class AdaIN(Stylizer):
    """Encoder, adaptive instance normalisation at relu4_1, decoder (Huang & Belongie 2017).

    Departs from the paper: the shipped network is vgg19-slim and its mirror, and was trained as `AdaINTraining` says;
    any encoder and decoder of the paper's size can be passed in.
    """

    name = "adain"
    Options = AdaINOptions
    options: AdaINOptions

    def __init__(
        self,
        options: AdaINOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: nn.Module | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.backbone = (backbone or load_backbone(SLIM)).to(self.device)
        self.decoder_digest = "random"
        if decoder is None:
            file = load_weights(options.weights or resolve(self.name))
            decoder = Decoder(file.config["inputs"], file.config["stages"])
            file.fill(decoder)
            self.decoder_digest = file.digest
        self.decoder = decoder.eval().requires_grad_(False).to(self.device)
        for module in (self.backbone, self.decoder):
            module.to(memory_format=torch.channels_last)

    @property
    def style_kind(self) -> str:
        """Means and deviations over the encoder."""
        return f"adain/{moments_kind(self.backbone)}"

    @property
    def digests(self) -> dict[str, str]:
        """Encoder and decoder."""
        return {str(self.backbone.name): str(self.backbone.digest), self.name: self.decoder_digest}

    def adopt(self, style: Style) -> Style:
        """Own styles, and cards of moments of the same encoder that reach relu4_1."""
        if style.kind == moments_kind(self.backbone):
            return self._style(recall(style, LAYER), style.info)
        return super().adopt(style)

    def encode_style(self, image: Tensor) -> Style:
        """Mean and deviation of relu4_1, the quantities in which the method is linear; image: (1, 3, H, W)."""
        with inference(self.device, self.options.precision):
            return self._style(moments(self.backbone(image.to(self.device), [LAYER])[LAYER], full=False), {})

    def _style(self, found: Moments, info: dict[str, Any]) -> Style:
        values = {f"{LAYER}.mean": found.mean[0], f"{LAYER}.deviation": found.deviation()[0]}
        return Style(values, self.style_kind, info)

    def transfer(
        self,
        content: Tensor,
        style: Style,
        *,
        strength: float = 1.0,
        mask: Tensor | None = None,
        seed: int = 0,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """One pass; (1, 3, H, W) to the same size. Strength 0 is the decoder's reconstruction. Nothing is random."""
        with inference(self.device, self.options.precision):
            features = self.backbone(content.to(self.device), [LAYER])[LAYER]
            own = self.moments_of(LAYER, features, mask, full=False)
            mean, deviation = style[f"{LAYER}.mean"][None], style[f"{LAYER}.deviation"][None]
            painted = torch.lerp(features, adaptive_instance_norm(features, mean, deviation, own), strength)
            result: Tensor = fit_edge(self.decoder(painted), content.shape).float().clamp(0, 1)
        return result


class AdaINTraining(nn.Module):
    """How the decoder learns.

    Departs from the paper: the content is compared with the photo's own normalised features, not with AdaIN's output,
    and every term is in units of what it is compared with, because vgg19-slim's thin features alone are easy to fool;
    `loss_network` should be exact in its shallow layers.
    """

    def __init__(self, backbone: nn.Module, loss: PerceptualLoss, decoder: Decoder, config: dict[str, Any]) -> None:
        super().__init__()
        self.network = decoder
        self._frozen = backbone, loss
        self._config = config

    def config(self) -> dict[str, Any]:
        """The decoder's shape, for the file's header."""
        return {"method": "adain", **self._config}

    def paint(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Stylized pictures, sample by sample, (B, 3, H, W)."""
        backbone = self._frozen[0]
        with torch.no_grad():
            content, style = (backbone(image, [LAYER])[LAYER] for image in (contents, styles))
            wanted = moments(style, full=False)
            mixed = adaptive_instance_norm(content, wanted.mean, wanted.deviation())
        return fit_edge(self.network(mixed), contents.shape)

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Content, style and smoothness of what is painted; the style's share grows over the first part."""
        terms = self._frozen[1](self.paint(contents, styles), contents, styles)
        return {**terms, "style": terms["style"] * min(1.0, 0.2 + 2 * progress)}

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Photographs, artworks and what is painted, (1, 3, 3 H, B W)."""
        rows = (contents, styles, self.paint(contents, styles).clamp(0, 1))
        return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)[None]
