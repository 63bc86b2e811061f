"""Any style in one pass by attention (Park & Lee 2019, "Arbitrary style transfer with style-attentional networks").

Every position of the photo searches for similar positions of the painting and takes on their features, at two depths; a
decoder turns the result into a picture. So a sky gets the painting's sky and a face its faces. A style here is the
painting's feature maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from impasto.feedforward.instance_norm import LevelTargets, decode_normalised, decoding_stages, measure_photo
from impasto.feedforward.stages import IMAGE, Edge, Known, Measure, MomentsOf, Stage, StageInput, Thinned
from impasto.images.tensors import LEAST_SIDE
from impasto.networks.backbone import SLIM, SLIM_WIDTHS, VGG19_WIDTHS, Backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import DOUBLING, Conv, StepDecoder
from impasto.ops.cpu_kernels import round_scale, scale_channels
from impasto.ops.moments import Moments, moments
from impasto.optimize.perceptual_loss import STYLE_LAYERS, PerceptualLoss, stack_rows
from impasto.stylizers.one_pass import ArbitraryStyle, OnePassOptions
from impasto.stylizers.styles import Style, maps_kind, parts
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import MethodOptions, as_task, judge, start_decoder
from impasto.training.pictures import Pictures
from impasto.weights import load_weights

SHALLOW, DEEP = LAYERS = ("relu4_1", "relu5_1")
FINE = {level: f"relu{level}_1" for level in (3, 2, 1)}
CHUNK = 4096
SHIFT = nn.MaxPool2d(3, stride=1, padding=1)
"""Stands in a path for the position by which `enlarge` looks further at an odd size; see `receptive_field`."""


class SANetOptions(OnePassOptions):
    """Options of sanet."""

    positions: int = Field(
        4096, ge=16, le=1 << 20, description="most positions of the painting that are used; more are thinned out"
    )


def attend(queries: Tensor, keys: Tensor, values: Tensor, chunk: int = CHUNK) -> Tensor:
    """Return each query's mean of the values, weighted by its softmax over the keys (Park & Lee 2019, eq. 2).

    queries: (B, C, N); keys: (B, C, M); values: (B, D, M). Returns (B, D, N). Works on `chunk` queries at a time, so
    that no more than chunk x M weights are in memory.

    Departs from the paper: nothing; as there, the products are not divided by the root of C.
    """
    asked, found, given = (x.transpose(1, 2).unsqueeze(1) for x in (queries, keys, values))  # (B, 1, N or M, C)
    chunks = [asked] if torch.compiler.is_exporting() else torch.split(asked, chunk, dim=2)
    answers = [F.scaled_dot_product_attention(part, found, given, scale=1.0) for part in chunks]
    return torch.cat(answers, dim=2).squeeze(1).transpose(1, 2)


def standardize(features: Tensor, own: Moments | None = None) -> Tensor:
    """Return features with mean 0 and deviation 1 in every channel; own: their moments, if not those of all of them."""
    found = own or moments(features, full=False)
    scale = round_scale(found.deviation().reciprocal(), features)
    return scale_channels(features, scale, -found.mean * scale)


def enlarge(deep: Tensor, like: Sequence[int], odd: Sequence[int]) -> Tensor:
    """Repeat `deep`, (B, C, h, w), to the height and width `like`: 2 h and 2 w, plus 1 if `odd` is 1.

    These are a picture's nearest positions; in a tile, they are those of the whole picture if `odd` is the whole's.
    """
    rows, columns = (
        ((torch.arange(side, device=deep.device) - one) // 2).clamp(0, there - 1)
        for side, there, one in zip(like[-2:], deep.shape[-2:], odd, strict=True)
    )
    return deep[..., rows, :][..., columns]


class StyleAttention(nn.Module):
    """The style-attentional block: queries from the photo, keys and values from the painting (sec. 3.2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.f, self.g, self.h, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, content: Tensor, style: Tensor, own: Moments | None = None) -> Tensor:
        """content: (B, C, H, W); style: (B, C, h, w) of any size; own: see `standardize`; returns (B, C, H, W)."""
        queries = self.f(standardize(content, own))
        keys, values = self.g(standardize(style)), self.h(style)
        taken = attend(queries.flatten(2), keys.flatten(2), values.flatten(2))
        result: Tensor = self.out(taken.reshape(content.shape)) + content
        return result


class SANetwork(nn.Module):
    """Two attention blocks, their sum through a convolution, and AdaIN's decoder.

    widths: the encoder's, of relu1_1 to relu4_1; relu5_1 is as wide as relu4_1. ``SANetwork.paper()`` has the paper's
    size: 4 461 056 parameters of the transform and 3 505 219 of the decoder.
    """

    def __init__(self, widths: Sequence[int], *, mirror: bool = False) -> None:
        super().__init__()
        width = widths[-1]
        self.shallow, self.deep = StyleAttention(width), StyleAttention(width)
        self.merge = Conv(width, width, mirror=mirror)
        self.decoder = StepDecoder(widths, mirror=mirror)

    @classmethod
    def paper(cls) -> SANetwork:
        """Return the network for the full VGG-19."""
        return cls(VGG19_WIDTHS[:4], mirror=True)

    @classmethod
    def slim(cls) -> SANetwork:
        """Return the network for vgg19-slim."""
        return cls(SLIM_WIDTHS[:4])

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Begin with a transform that leaves relu4_1 unchanged, for a decoder that is already trained."""
        for block in (self.shallow, self.deep):
            nn.init.zeros_(block.out.weight)
            assert block.out.bias is not None
            nn.init.zeros_(block.out.bias)
        nn.init.dirac_(self.merge.weight)
        assert self.merge.bias is not None
        nn.init.zeros_(self.merge.bias)

    def blend(
        self,
        content: Mapping[str, Tensor],
        style: Mapping[str, Tensor],
        own: Mapping[str, Moments] | None = None,
        *,
        odd: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return the photo's features with what attention took from the painting's, (B, C, H, W), at relu4_1's size.

        own: the moments by which the photo's features are normalised, if not those of all of them; odd: by how much
        height and width of the whole picture's relu4_1 exceed twice relu5_1's, if `content` is a part of it.
        """
        own = own or {}
        shallow = self.shallow(content[SHALLOW], style[SHALLOW], own.get(SHALLOW))
        deep = self.deep(content[DEEP], style[DEEP], own.get(DEEP))
        height, width = shallow.shape[-2:]
        if odd is None:
            odd = height - 2 * deep.shape[-2], width - 2 * deep.shape[-1]
        result: Tensor = self.merge(shallow + enlarge(deep, (height, width), odd))
        return result


class SANet(ArbitraryStyle):
    """Encoder, style attention at relu4_1 and relu5_1, decoder (Park & Lee 2019).

    Departs from the paper: the shipped network is over vgg19-slim, with repeated instead of mirrored edges, and was
    trained as `SANetTraining` says; the decoder's features get the painting's means and deviations at relu3_1, relu2_1
    and relu1_1, because vgg19-slim's deep layers are too thin to hold a painting's colours; a painting's positions
    beyond `positions` are thinned out, so that time grows with the photo's pixels.
    """

    name = "sanet"
    rebuilds = True
    Options = SANetOptions
    options: SANetOptions

    def __init__(
        self,
        options: SANetOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
        network: SANetwork | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.backbone = (backbone or load_backbone(SLIM)).to(self.device)
        self.backbone.to(memory_format=torch.channels_last)
        self.network, _ = self.open_network(network, lambda config: SANetwork(config["widths"]))

    @property
    def style_kind(self) -> str:
        """Feature maps of the encoder."""
        return maps_kind(self.backbone)

    @property
    def digests(self) -> dict[str, str]:
        """Encoder and network."""
        return {str(self.backbone.name): str(self.backbone.digest), self.name: self.network_digest}

    def style_stage(self) -> Stage:
        """Return the stage: maps at relu4_1 and relu5_1, thinned to `positions`, and moments at finer layers."""
        thinned = [Thinned(layer, self.options.positions) for layer in LAYERS]
        return self._encoding([*thinned, *(MomentsOf(layer, full=False) for layer in FINE.values())])

    def style_of(self, known: Known) -> Style:
        """Return the maps, (C, h, w) each, means and deviations."""
        values = {f"{layer}.map": known[f"{layer}.thinned"][0].float().contiguous() for layer in LAYERS}
        for layer in FINE.values():
            own = known[layer]
            values |= {f"{layer}.mean": own.mean[0], f"{layer}.deviation": own.deviation()[0]}
        return Style(values, self.style_kind)

    def _encoding(self, measures: Sequence[Measure]) -> Stage:
        layers = dict.fromkeys(measure.source for measure in measures)
        edges = tuple(Edge(IMAGE, layer, tuple(self.backbone.path(layer))) for layer in layers)
        return Stage(edges, lambda work: self.backbone(work.maps[IMAGE], work.wanted), tuple(measures))

    def forward_for_export(self, content: Tensor, painting: Tensor) -> Tensor:
        """Paint in one pass from photo and painting, with all of the painting's positions."""
        theirs = self.backbone(painting, [*LAYERS, *FINE.values()])
        blended = self.network.blend(self.backbone(content, LAYERS), theirs)
        return decode_normalised(self.network.decoder, blended, measured_targets(theirs), content.shape).clamp(0, 1)

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Encode; blend; decode. Strength 0 paints the photo in its own style. Nothing is random."""
        mixed = parts(style)
        shares = [(strength * share, part) for share, part in mixed if strength * share]
        odd = (size[0] >> 3) % 2, (size[1] >> 3) % 2

        def blend(work: StageInput) -> dict[str, Tensor]:
            own, known = work.maps, work.given
            styles = [(share, {k: part[f"{k}.map"][None].to(own[k]) for k in LAYERS}) for share, part in shares]
            if strength < 1:
                styles.append((1 - strength, {k: known[f"{k}.thinned"] for k in LAYERS}))
            blended = [share * self.network.blend(own, maps, known, odd=odd) for share, maps in styles]
            return {"x4": torch.stack(blended).sum(0)}

        measures: list[Measure] = [MomentsOf(layer, full=False, layer=layer) for layer in LAYERS]
        if strength < 1:
            measures += [*(Thinned(layer, self.options.positions) for layer in LAYERS), *measure_photo(FINE)]
        enlarged = (DOUBLING, SHIFT) if any(odd) else (DOUBLING,)
        edges = Edge(SHALLOW, "x4", (self.network.merge,)), Edge(DEEP, "x4", (*enlarged, self.network.merge))
        middle = Stage(edges, blend)
        decoding = decoding_stages(self.network.decoder, fine_targets(mixed), strength, FINE)
        return self._encoding(measures), middle, *decoding


def measured_targets(found: Mapping[str, Tensor]) -> LevelTargets:
    """Return the means and deviations, (B, C), of features at the levels below relu4_1."""
    own = {level: moments(found[layer], full=False) for level, layer in FINE.items()}
    return {level: (known.mean, known.deviation()) for level, known in own.items()}


def fine_targets(mixed: Sequence[tuple[float, Style]]) -> LevelTargets:
    """Return the means and deviations, (1, C), of styles at the levels below relu4_1, mixed by their shares."""

    def mixture(name: str) -> Tensor:
        return torch.stack([share * part[name] for share, part in mixed]).sum(0)[None]

    return {level: (mixture(f"{layer}.mean"), mixture(f"{layer}.deviation")) for level, layer in FINE.items()}


class SANetTraining(nn.Module):
    """Training of transform and decoder: content, style and both identity losses (sec. 3.3).

    Departs from the paper: pictures are judged by `loss`, whose network should be exact in its shallow layers, because
    vgg19-slim's thin features alone are easy to fool; the content is compared in the layers of `loss`; the identity
    losses use a quarter of the batch, to save time. The identity weights are 50 for pixels and 1 for features by
    default, as the authors' page corrects the paper; the shipped network was trained with 0.1 for features, because
    thin features can't rebuild everything and would otherwise outweigh the style.
    """

    def __init__(
        self,
        backbone: nn.Module,
        loss: PerceptualLoss,
        network: SANetwork,
        *,
        pixels_weight: float = 50.0,
        features_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.pixels_weight, self.features_weight = pixels_weight, features_weight
        self._frozen = backbone, loss  # in a tuple, so that it is not saved

    def config(self) -> dict[str, Any]:
        """Return the network's shape, for the file's header."""
        widths, digest = list(self.network.decoder.widths), str(self._frozen[0].digest)
        return {"method": "sanet", "backbone": digest, "widths": widths}

    def paint(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return stylized pictures, sample by sample, (B, 3, H, W)."""
        backbone = self._frozen[0]
        with torch.no_grad():
            own = backbone(contents, LAYERS)
            theirs = backbone(styles, [*LAYERS, *FINE.values()])
            targets = measured_targets(theirs)
        return decode_normalised(self.network.decoder, self.network.blend(own, theirs), targets, contents.shape)

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return content and style terms, and the identity losses of pictures painted in their own style."""
        terms = self._frozen[1](self.paint(contents, styles), contents, styles)
        few = (len(contents) + 3) // 4
        return {**terms, **self.identity(torch.cat([contents[:few], styles[:few]]))}

    def identity(self, images: Tensor) -> dict[str, Tensor]:
        """Return both identity losses; images: (B, 3, H, W), each painted in its own style."""
        network = self._frozen[1].network
        same = self.paint(images, images)
        with torch.no_grad():
            wanted = network(images, STYLE_LAYERS)
        seen = network(same, STYLE_LAYERS)
        errors = [F.mse_loss(seen[layer].float(), wanted[layer].float()) for layer in STYLE_LAYERS]
        return {
            "identity": self.pixels_weight * F.mse_loss(same.float(), images),
            "features": self.features_weight * torch.stack(errors).sum(),
        }

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, artworks and results, (1, 3, 3 H, B W)."""
        rows = (contents, styles, self.paint(contents, styles).clamp(0, 1))
        return stack_rows(rows)


class SANetTrainOptions(MethodOptions):
    """Further training options for SANet."""

    identity_weight: float = Field(50.0, ge=0, description="weight of pictures painted in their own style: pixels")
    features_weight: float = Field(1.0, ge=0, description="weight of pictures painted in their own style: features")


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of transform and decoder over vgg19-slim, from random weights or from `from_`."""
    options = cast(SANetTrainOptions, options)
    torch.manual_seed(options.seed)
    backbone, network = load_backbone(SLIM), SANetwork.slim()
    if options.from_:
        file = load_weights(options.from_)
        if file.config.get("method") == "sanet":
            file.fill(network)
        else:
            start_decoder(network.decoder, options.from_)
            network.start_as_identity()
    learner = SANetTraining(
        backbone,
        judge(options),
        network,
        pixels_weight=options.identity_weight,
        features_weight=options.features_weight,
    )
    return as_task("sanet", learner)


TRAINING = Training(SANetTrainOptions, build_training)
