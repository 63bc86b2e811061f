"""Methods whose network is written for each painting by a hypernetwork: any style in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import OptionError
from impasto.feedforward.hypernetwork import GeneratedNetwork, HyperNetwork, build_network, vector_of
from impasto.feedforward.stages import IMAGE, Edge, Known, MomentsOf, Stage
from impasto.networks.backbone import SLIM_WIDTHS, Backbone, load_slim
from impasto.networks.layers import fill
from impasto.ops.moments import Moments, moments
from impasto.optimize.perceptual_loss import PerceptualLoss, stack_rows
from impasto.stylizers.one_pass import ArbitraryStyle, OnePassOptions, StyleNetworks
from impasto.stylizers.styles import Style, moments_kind, network_kind, recall

LAYERS = tuple(f"relu{level}_1" for level in range(1, 6))
SLIM_MOMENTS = 2 * sum(SLIM_WIDTHS)
HIDDEN = "hidden"
ADVICE = "make one with `impasto export-style PAINTING -o FILE`"


class GeneratedOptions(OnePassOptions):
    """Options of methods whose network is generated."""


class GeneratedNetworks(StyleNetworks, ArbitraryStyle):
    """A method that makes a network for each painting and paints with it; strength mixes in the photo."""

    options: GeneratedOptions

    def __init__(
        self,
        options: GeneratedOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
        network: HyperNetwork | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.backbone = (backbone or load_slim()).to(self.device)
        self.backbone.to(memory_format=torch.channels_last)
        self.network, _ = self.open_network(network, lambda config: HyperNetwork(**config["shape"], start=False))
        self._adopted: tuple[Style, Style] | None = None

    @property
    def style_kind(self) -> str:
        """Hidden vectors of this hypernetwork."""
        return f"{self.name}/{moments_kind(self.backbone)}/{self.network_digest[:12]}"

    @property
    def digests(self) -> dict[str, str]:
        """Digests of encoder and hypernetwork."""
        return {str(self.backbone.name): str(self.backbone.digest), self.name: self.network_digest}

    def accept_style(self, style: Style) -> Style:
        """Accept own styles, cards of moments of the same encoder, and whole generated networks."""
        if style.kind == network_kind(self.network.template.shape):
            return style
        if style.kind == moments_kind(self.backbone):
            if self._adopted is None or self._adopted[0] is not style:
                self._adopted = style, self._style({layer: recall(style, layer) for layer in LAYERS}, style.info)
            return self._adopted[1]
        return super().accept_style(style)

    def examples_of(self, style: Style) -> tuple[Style, ...]:
        """Return the network itself for a whole generated network, else what the method makes of paintings."""
        kind = network_kind(self.network.template.shape)
        return (Style(self.network.template.state_dict(), kind),) if style.kind == kind else self.examples

    def style_stage(self) -> Stage:
        """Return the moments of each layer."""
        edges = tuple(Edge(IMAGE, layer, tuple(self.backbone.path(layer))) for layer in LAYERS)
        measures = tuple(MomentsOf(layer, full=False) for layer in LAYERS)
        return Stage(edges, lambda work: self.backbone(work.maps[IMAGE], LAYERS, rounded=True), measures)

    def style_of(self, known: Known) -> Style:
        """Return the hidden vector."""
        return self._style(known, {})

    def _style(self, found: Mapping[str, Moments], info: Mapping[str, Any]) -> Style:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            vector = vector_of([found[layer] for layer in LAYERS]).to(self.network.unit)
            return Style({HIDDEN: self.network.encode(vector)[0]}, self.style_kind, info)

    def forward_for_export(self, content: Tensor, painting: Tensor) -> Tensor:
        """Paint in one pass from photo and painting."""
        painted: Tensor = self.network(content, read_moments(self.backbone, painting))
        return painted.clamp(0, 1)

    @torch.no_grad()
    def generate(self, style: Style) -> Style:
        """Return the whole network for `style`, as a style that needs no hypernetwork; raises OptionError."""
        style = self.accept_style(style)
        if HIDDEN not in style:
            return style
        with torch.autocast(self.device.type, enabled=False):
            (numbers,) = self.network.generate(style[HIDDEN][None].to(self.network.unit))
        shape = self.network.template.shape
        return Style(numbers, network_kind(shape), {**style.info, "network": shape})

    def build_for(self, style: Style) -> GeneratedNetwork:
        """Return the network made for `style`; raises OptionError if its card is damaged."""
        return _fill(self.network.template, self.generate(style), self.device)


def load_network(style: Style) -> GeneratedNetwork:
    """Return the network that a generated style holds, ready to paint; raises OptionError if there is none."""
    shape = style.info.get("network")
    if not isinstance(shape, dict):
        raise OptionError(f"this style card holds no generated network: {ADVICE}")
    try:
        template = build_network(shape)
    except (RuntimeError, TypeError):
        raise OptionError(f"this style card holds a damaged network: {ADVICE}") from None
    return _fill(template, style)


def _fill(template: GeneratedNetwork, style: Style, device: torch.device | str = "cpu") -> GeneratedNetwork:
    try:
        return fill(template, style, device)
    except RuntimeError:
        raise OptionError(f"this style card holds a damaged network: {ADVICE}") from None


class HyperTraining(nn.Module):
    """Training of a hypernetwork, together with the two convolutions that all styles share.

    Each sample of a batch has its own style and network. method: name of the network's method; ramp: the style's share
    grows in the first part.
    """

    def __init__(
        self, method: str, backbone: nn.Module, loss: PerceptualLoss, network: HyperNetwork, *, ramp: bool = True
    ) -> None:
        super().__init__()
        self.method, self.ramp = method, ramp
        self.network = network
        self._frozen = backbone, loss  # in a tuple, so that it is not saved

    def config(self) -> dict[str, Any]:
        """Return the network's shape, for the file's header."""
        return {"method": self.method, "backbone": str(self._frozen[0].digest), "shape": self.network.shape}

    def paint(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return stylized pictures, sample by sample, (B, 3, H, W)."""
        painted: Tensor = self.network(contents, read_moments(self._frozen[0], styles))
        return painted

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the loss' terms for the results."""
        terms = self._frozen[1](self.paint(contents, styles), contents, styles)
        return {**terms, "style": terms["style"] * min(1.0, 0.1 + 3 * progress)} if self.ramp else terms

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, artworks and results, (1, 3, 3 H, B W)."""
        return stack_rows((contents, styles, self.paint(contents, styles).clamp(0, 1)))


@torch.no_grad()
def read_moments(backbone: nn.Module, images: Tensor) -> Tensor:
    """Return the hypernetwork's input for pictures, (B, 3, H, W): (B, moments)."""
    features = backbone(images, LAYERS)
    return vector_of([moments(features[layer], full=False) for layer in LAYERS])
