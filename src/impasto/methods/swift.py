"""Any style in one quick pass: impasto's own network.

The photo goes once through a small encoder of strided convolutions and back through a decoder. On the way up, at four
scales, the features take on the means and covariances that the painting has at vgg19-slim's relu4_1 to relu1_1, by
an optimal transport as in `wct`. Unlike WCT's, encoder, decoder and the shares in which the photo's own features are
blended in all learn from what is painted, through the transport, whose matrix roots are sums and products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from impasto.backbones import SLIM, SLIM_WIDTHS, Backbone, load_backbone
from impasto.layers import Conv, HalvingConv, StepDecoder, size_below
from impasto.moment_styles import MomentStyles
from impasto.options import Options
from impasto.perceptual import PerceptualLoss, stack_rows
from impasto.roots import roots
from impasto.stages import IMAGE, RESULT, Flow, Known, MomentsOf, Stage, Work
from impasto.statistics import Moments, moments
from impasto.styles import Style, recall
from impasto.stylizer import LEAST_SIDE
from impasto.weights import load_weights, resolve

LEVELS = (4, 3, 2, 1)
LAYERS = {level: f"relu{level}_1" for level in LEVELS}
"""What of a painting each level takes on."""
TAPS = {4: "relu4_2", 3: "relu3_2", 2: "relu2_1", 1: "relu1_1"}
"""The layers of swift's own encoder that stand for them."""
RIDGE, FLOOR, ITERATIONS = 1e-3, 0.2, 18
"""What is added to correlations before their roots are taken; the least deviation, in units of a channel's root mean
square; and how often the roots are improved."""
SHARE = 0.45


class SwiftOptions(Options):
    """What can be chosen without training anew."""

    weights: str = Field("", description="local weights file instead of the shipped one")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the convolutions")


class Residual(nn.Module):
    """Two convolutions whose outcome is added; nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = Conv(width, width), Conv(width, width)
        nn.init.zeros_(self.second.weight)
        if self.second.bias is not None:
            nn.init.zeros_(self.second.bias)
        self.between = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same size."""
        moved: Tensor = self.second(self.between(self.first(x)))
        return x + moved

    def path(self) -> list[nn.Module]:
        """The layers in the order in which they run."""
        return [self.first, self.between, self.second]


class SwiftNetwork(nn.Module):
    """Encoder, decoder and all that learns in between.

    widths: channels at full, half, quarter and eighth size, as vgg19-slim's at relu1_1 to relu4_1, because there the
    features take on its moments. At the two deepest levels a residual block follows the transport. shares: how much of
    the photo's own features, by channel, is blended into each level below the deepest.
    """

    def __init__(self, widths: Sequence[int] = SLIM_WIDTHS[:4]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.encoder = Backbone("swift", _encoder_steps(widths), least_side=LEAST_SIDE)
        self.blocks = nn.ModuleDict({str(level): Residual(widths[level - 1]) for level in (4, 3)})
        self.decoder = StepDecoder(widths)
        self.shares = nn.ParameterList([torch.full((width,), SHARE) for width in widths[:-1]])

    def encode(self, images: Tensor) -> dict[int, Tensor]:
        """Pictures, (B, 3, H, W) in [0, 1], to their own features at every level."""
        found = self.encoder(images, TAPS.values())
        return {level: found[layer] for level, layer in TAPS.items()}

    def blend(self, x: Tensor, own: Tensor, level: int) -> Tensor:
        """What came down to `level`, and the photo's own features there."""
        share: Tensor = self.shares[level - 1][:, None, None]
        return x + share.to(x.dtype) * (own - x)

    def step(self, level: int, x: Tensor, shape: Sequence[int]) -> Tensor:
        """From `level` to the next shallower one, or from 1 to a picture, of a picture of `shape`."""
        if str(level) in self.blocks:
            x = self.blocks[str(level)](x)
        return self.decoder.step(level, x, size_below(level, shape))

    def path(self, level: int) -> tuple[nn.Module, ...]:
        """The layers of `step` in the order in which they run."""
        blocks = (self.blocks[str(level)],) if str(level) in self.blocks else ()
        return (*blocks, self.decoder.steps[level - 1])

    def forward(self, images: Tensor, targets: Mapping[int, Moments], strength: float = 1.0) -> Tensor:
        """Pictures, (B, 3, H, W), painted in the styles of which `targets` are the moments; not clamped."""
        own = self.encode(images)
        x = own[LEVELS[0]]
        for level in LEVELS:
            x = x if level == LEVELS[0] else self.blend(x, own[level], level)
            if strength:
                x = move(x, *transport(moments(x), targets[level], strength))
            x = self.step(level, x, images.shape)
        return x


def _encoder_steps(widths: Sequence[int]) -> dict[str, nn.Module]:
    first, second, third, fourth = widths
    return {
        "conv1_1": Conv(3, first),
        "relu1_1": nn.ReLU(),
        "conv2_1": HalvingConv(first, second),
        "relu2_1": nn.ReLU(),
        "conv3_1": HalvingConv(second, third),
        "relu3_1": nn.ReLU(),
        "conv3_2": Conv(third, third),
        "relu3_2": nn.ReLU(),
        "conv4_1": HalvingConv(third, fourth),
        "relu4_1": nn.ReLU(),
        "conv4_2": Conv(fourth, fourth),
        "relu4_2": nn.ReLU(),
    }


def transport(content: Moments, style: Moments, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """The maps x -> A x + b that give features with the moments `content` those of `style`, sample by sample.

    Every channel takes on mean and deviation, as in AdaIN, and their correlations are moved by the optimal transport
    R (R C R)^-1/2 R, with C the content's and R R the style's. So gradients run through it, and any runtime knows it.
    Returns A (B, C, C) and b (B, C), float32, blended by `strength` with what changes nothing.
    """
    with torch.autocast(content.total.device.type, enabled=False):
        own, aim = _scale(content), _scale(style)
        root, _ = roots(_correlation(style, aim).detach(), 0, ITERATIONS)
        _, inverse = roots(_ridged(root @ _correlation(content, own) @ root), 0, ITERATIONS)
        matrix = aim[:, :, None] * (root @ inverse @ root) / own[:, None, :]
        eye = torch.eye(matrix.shape[-1], device=matrix.device)
        blended = eye + strength * (matrix - eye)
        offset = style.mean.float() - (matrix @ content.mean.float()[..., None])[..., 0]
        return blended, strength * offset


def _scale(found: Moments) -> Tensor:
    """The deviation of every channel, (B, C), but not less than a fifth of its size: below are a few bits of noise."""
    second = found.second.diagonal(dim1=1, dim2=2)
    return (found.variance + FLOOR**2 * second + 1e-6).sqrt().float()


def _correlation(found: Moments, scale: Tensor) -> Tensor:
    """Of every channel with every other, (B, C, C), float32, where `scale` is the deviations; with a ridge."""
    return _ridged(found.covariance.float() / (scale[:, :, None] * scale[:, None, :]))


def _ridged(matrix: Tensor) -> Tensor:
    return matrix + RIDGE * torch.eye(matrix.shape[-1], device=matrix.device)


def move(x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """The maps of `transport` at every position of x, (B, C, H, W)."""
    moved = [
        F.conv2d(x[i : i + 1], own[:, :, None, None].to(x.dtype), shift.to(x.dtype))
        for i, (own, shift) in enumerate(zip(matrix, offset, strict=True))
    ]
    return moved[0] if len(moved) == 1 else torch.cat(moved)


class Swift(MomentStyles):
    """impasto's own network: transport of moments between learned features, at four scales.

    The style is moments over vgg19-slim, so the cards of `wct` serve here as well. Strength 0 is the decoder's
    reconstruction of the photo.

    Departs from the paper: it has none of its own. Of those whose parts it takes (Li et al. 2017, Lu et al. 2019) it
    departs in that the photo's encoder is not the painting's and learns with the decoder, that channels are scaled by
    themselves, and that the transport moves correlations, with a ridge instead of dropped eigenvalues.
    """

    name = "swift"
    Options = SwiftOptions
    options: SwiftOptions

    def __init__(
        self,
        options: SwiftOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
        network: SwiftNetwork | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.backbone = (backbone or load_backbone(SLIM)).to(self.device)
        self.digest = "random"
        if network is None:
            file = load_weights(options.weights or resolve(self.name))
            network = SwiftNetwork(file.config["widths"])
            file.fill(network)
            self.digest = file.digest
        self.network = network.eval().requires_grad_(False).to(self.device)
        for module in (self.backbone, self.network):
            module.to(memory_format=torch.channels_last)

    @property
    def style_layers(self) -> list[str]:
        """One for each level."""
        return list(LAYERS.values())

    @property
    def digests(self) -> dict[str, str]:
        """The painting's encoder and the network."""
        return {self.backbone.name: self.backbone.digest, self.name: self.digest}

    def plain(self, content: Tensor, painting: Tensor) -> Tensor:
        """One pass from photo and painting."""
        found = self.backbone(painting, self.style_layers)
        targets = {level: moments(found[layer]) for level, layer in LAYERS.items()}
        painted: Tensor = self.network(content, targets)
        return painted.clamp(0, 1)

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Encode once, then from level to level: transport, one step down, blend in the photo's own features."""
        encoder, deepest = self.network.encoder, LEVELS[0]
        encoded = {f"x{deepest}": TAPS[deepest]} | {f"own{level}": TAPS[level] for level in LEVELS[1:]}

        def encode(work: Work) -> dict[str, Tensor]:
            found = encoder(work.maps[IMAGE], {encoded[name] for name in work.wanted})
            return {name: found[encoded[name]] for name in work.wanted}

        ways = tuple(Flow(IMAGE, name, tuple(encoder.path(layer))) for name, layer in encoded.items())
        first = Stage(ways, encode, (_measure(deepest),))
        return first, *(self._step_down(level, recall(style, LAYERS[level]), strength) for level in LEVELS)

    def _step_down(self, level: int, target: Moments, strength: float) -> Stage:
        """From ``x4`` to ``x3`` and the like."""
        network = self.network
        above, below, own = f"x{level}", f"x{level - 1}" if level > 1 else RESULT, f"own{level - 1}"

        def prepare(known: Known) -> tuple[Tensor, Tensor] | None:
            return transport(known[above], target, strength) if strength else None

        def run(work: Work) -> dict[str, Tensor]:
            x = work.maps[above] if work.given is None else move(work.maps[above], *work.given)
            x = network.step(level, x, (work.height, work.width))
            return {below: network.blend(x, work.maps[own].to(x.dtype), level - 1) if level > 1 else x}

        ways = [Flow(above, below, network.path(level))] + ([Flow(own, below)] if level > 1 else [])
        return Stage(tuple(ways), run, (_measure(level - 1),) if level > 1 else (), prepare)


def _measure(level: int) -> MomentsOf:
    return MomentsOf(f"x{level}", layer=LAYERS[level])


class SwiftTraining(nn.Module):
    """How the network learns: by what it paints, and by photographs that it rebuilds.

    Without a loss it only learns to rebuild, and its encoder to see what vgg19-slim sees: the place to begin, with the
    decoder of `wct`.
    """

    def __init__(
        self, backbone: Backbone, network: SwiftNetwork, loss: PerceptualLoss | None, *, rebuild_weight: float = 0.2
    ) -> None:
        super().__init__()
        self.network = network
        self.rebuild_weight = rebuild_weight
        self._frozen = backbone, loss  # in a tuple: no part of what is saved

    def config(self) -> dict[str, Any]:
        """The widths, for the file's header."""
        return {"method": "swift", "backbone": self._frozen[0].digest, "widths": list(self.network.widths)}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Errors of what is painted and of what is rebuilt."""
        loss = self._frozen[1]
        if loss is None:
            return self.imitate(torch.cat([contents, styles]))
        some = contents[: (len(contents) + 1) // 2]
        terms = loss(self.paint(contents, styles), contents, styles)
        return {**terms, "rebuilt": self.rebuild_weight * self._rebuild(some)}

    def imitate(self, images: Tensor) -> dict[str, Tensor]:
        """Errors of the encoder's features against vgg19-slim's, in units of their variance, and of what is rebuilt."""
        with torch.no_grad():
            wanted = self._frozen[0](images, LAYERS.values())
        found = self.network.encode(images)
        terms = {
            f"level{level}": F.mse_loss(found[level], wanted[layer]) / wanted[layer].var()
            for level, layer in LAYERS.items()
        }
        return {**terms, "rebuilt": self._rebuild(images)}

    def _rebuild(self, images: Tensor) -> Tensor:
        return F.mse_loss(self.network(images, {}, 0.0), images) / images.var()

    def paint(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Photographs in the artworks' styles, sample by sample; (B, 3, H, W)."""
        with torch.no_grad():
            found = self._frozen[0](styles, LAYERS.values())
            targets = {level: moments(found[layer]) for level, layer in LAYERS.items()}
        painted: Tensor = self.network(contents, targets)
        return painted

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Photographs, artworks and what is painted, (1, 3, 3 H, B W)."""
        return stack_rows((contents, styles, self.paint(contents, styles).clamp(0, 1)))
