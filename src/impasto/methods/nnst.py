"""Neural Neighbor Style Transfer (Kolkin et al. 2022): every place of the photo becomes like one of the painting.

Each place takes the features of the most similar place of the painting; the picture is optimised, from coarse to fine,
until a network sees these features. Large shapes, flat colour fields and strokes are the painter's own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from impasto.errors import OptionError
from impasto.images.color import match_low_frequencies
from impasto.images.exchange import AnyPicture
from impasto.images.tensors import resize
from impasto.networks.backbone import SLIM, Backbone
from impasto.networks.backbones import default_layers
from impasto.networks.hypercolumns import COLORS, COLUMNS, SLIM_COLUMNS, STRIDE, Hypercolumns
from impasto.networks.receptive_field import stride_after
from impasto.ops.moments import Moments, adaptive_instance_norm, fit_mask
from impasto.optimize.descent import OptimizerName, Scale, Settings
from impasto.optimize.losses import ContentLoss, CovarianceLoss, Objective, SelfSimilarityLoss, Term, TotalVariation
from impasto.optimize.nearest import MatchedLoss, MatchForm, NearestLoss, directions, rows_of
from impasto.optimize.pyramids import LaplacianPyramid, enlarge, without_detail
from impasto.optimize.tiled_objective import FittingObjective, choose_tile, look, looking
from impasto.progress import OnStep, ignore
from impasto.stylizers.optimized import Optimized, OptimizedOptions, keep_photo
from impasto.stylizers.painting_places import (
    GRID,
    Places,
    balance,
    choose,
    distinct,
    gather,
    places_kind,
    recall_layer,
    recall_places,
    sum_moments,
)
from impasto.stylizers.place_cards import restore, with_moments
from impasto.stylizers.styles import Style, measure, moments_kind, recall

VGG16_LAYERS = (
    *("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"),
    *("relu3_2", "relu3_3", "relu4_1", "relu4_2", "relu4_3"),
)
COARSE_DETAIL, START_NOISE = 3, 0.02
"""The finest bands of the coarsest size that begin empty, and the deviation of the noise by which seeds differ."""


class NNSTOptions(OptimizedOptions):
    """Options of the matching and of the optimisation."""

    backbone: str = Field(SLIM, description="network whose features are compared; vgg16 is the paper's")
    layers: tuple[str, ...] = Field((), description="layers of the hypercolumns; empty: the backbone's")
    last_layers: tuple[str, ...] = Field((), description="layers of the last pass; empty: the backbone's")
    layer_balance: Literal["deviation", "channels"] = Field(
        "deviation", description="divisor of each layer of the hypercolumns"
    )
    octaves: int = Field(3, ge=0, le=7, description="number of coarser sizes, each half the next, that come first")
    least_side: int = Field(32, ge=16, le=4096, description="no coarser size has a shorter side below this")
    coarse_steps: int = Field(75, ge=1, le=100_000, description="steps at each coarser size")
    steps: int = Field(20, ge=0, le=100_000, description="steps at the working size")
    last_steps: int = Field(16, ge=0, le=100_000, description="steps of the last pass, which matches layer by layer")
    optimizer: OptimizerName = Field("adam", description="adam, lbfgs or gd (plain gradient descent)")
    learning_rate: float = Field(0.01, gt=0, description="step size")
    alpha: float = Field(0.75, ge=0, le=1, description="share of the photo, not of the picture so far, in the matching")
    candidates: int = Field(4096, ge=16, le=65_536, description="places of the painting to choose from, at each size")
    rotations: int = Field(0, ge=0, le=3, description="quarter turns of the painting that add candidates")
    spread: float = Field(0.1, ge=0, le=2, description="cost of taking the same place repeatedly")
    coherence: float = Field(
        0.0, ge=0, le=2, description="how much less similar a place may be to keep the painting's strokes whole"
    )
    match_form: MatchForm = Field("cosine", description="distance from matched features: cosine, relative (squared)")
    match_weight: float = Field(1.0, ge=0, description="weight of the matched hypercolumns")
    last_weight: float = Field(1.0, ge=0, description="weight of the last pass")
    color_weight: float = Field(0.2, ge=0, description="weight of the matched places' colours")
    style_weight: float = Field(0.3, ge=0, description="weight of means and covariances, against extremes")
    content_weight: float = Field(
        0.5, ge=0, description="weight, at coarser sizes, of the photo's self-similarity, which keeps objects"
    )
    shape_weight: float = Field(
        0.3, ge=0, description="weight of the photo's features with the painting's contrasts, which keeps objects"
    )
    tv_weight: float = Field(0.7, ge=0, description="weight of total variation, against noise")
    grey_detail: bool = Field(True, description="change the finest detail in lightness only, against coloured fringes")
    recolor: bool = Field(False, description="give large areas the photo's arrangement of the painting's colours")


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "draft": {"octaves": 2, "coarse_steps": 50, "steps": 8, "last_steps": 6, "candidates": 2048},
    "published": {
        "backbone": "vgg16",
        "layers": VGG16_LAYERS,
        "last_layers": VGG16_LAYERS,
        "layer_balance": "channels",
        "coarse_steps": 200,
        "steps": 200,
        "last_steps": 200,
        "learning_rate": 0.002,
        "candidates": 65_536,
        "rotations": 3,
        "spread": 0.0,
        "coherence": 0.0,
        "color_weight": 0.0,
        "style_weight": 0.0,
        "content_weight": 0.0,
        "shape_weight": 0.0,
        "tv_weight": 0.0,
        "grey_detail": False,
        "recolor": True,
    },
}


@dataclass(frozen=True)
class Pass(Scale):
    """One stage of the work. octave: how often the size was halved; last: match each layer separately."""

    octave: int
    last: bool = False


class NNST(Optimized):
    """Optimise a picture until each place looks like the painting's most similar one (Kolkin et al. 2022).

    Departs from the paper: in ``default`` the network is vgg19-slim with six layers, the painting is not turned, no
    place of the painting may be taken too often, further losses compare matched colours, means and covariances, and the
    photo's self-similarity and features, and the finest detail changes in lightness only. ``--preset published`` has
    the paper's network, layers, steps and losses; its last pass centres both sides by the painting's mean, and turned
    copies share the limit of ``--candidates``.
    """

    name = "nnst"
    Options = NNSTOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    options: NNSTOptions

    def __init__(
        self,
        options: NNSTOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset, backbone=backbone)
        (self.content_layer, *_), self.style_layers = default_layers(self.options.backbone)
        self.backbone.check_layers(
            {*self.options.layers, *self.options.last_layers, *self.style_layers, self.content_layer}
        )
        deepest = self.style_layers[min(3, len(self.style_layers) - 1)]
        self.shape_layer = self.content_layer if self.content_layer in self.style_layers else deepest
        self.network: Hypercolumns = Hypercolumns(self.backbone, self.options.layers).to(self.device)

    @staticmethod
    def fill_layers(options: NNSTOptions) -> dict[str, Any]:
        """Return the layers of the hypercolumns and of the last pass."""
        style = default_layers(options.backbone)[1][:4]
        columns = SLIM_COLUMNS if options.backbone.startswith(SLIM) else style
        return {"layers": options.layers or columns, "last_layers": options.last_layers or style}

    @property
    def style_kind(self) -> str:
        """Places seen by the backbone in use."""
        return places_kind(self.network)

    def encode_style(self, image: AnyPicture) -> Style:
        """Return places of the painting at its size and at halves, and moments."""
        options, image = self.options, self.open_painting(image).to(self.device)
        values = gather(
            self.network,
            image,
            options.last_layers,
            octaves=options.octaves,
            most=options.candidates,
            turns=options.rotations,
            beside=options.coherence > 0,
            room=self.free_room,
        )
        if options.style_weight or options.shape_weight:
            fitting = looking(self.network, self.free_room)
            values |= measure(self.network, image, self.style_layers, look=fitting)
        return Style(values, self.style_kind, convert=self.accept_style)

    def accept_style(self, style: Style) -> Style:
        """Return `style`, or another of its forms that fits, with the places and moments that this method uses."""
        return with_moments(super().accept_style(style), style.kinds.get(moments_kind(self.network)))

    def read_card(self, style: Style) -> Mapping[str, Tensor]:
        """Return the places that a compact card holds."""
        return restore(style)

    @functools.cached_property
    def examples(self) -> tuple[Style, ...]:
        """Styles that a card must be like; it may hold any number of places."""
        first, second = super().examples
        fewer = {
            name: value[1:] if name[0].isdigit() else value for name, value in second.items() if not name.endswith(GRID)
        }
        return first, Style(fewer, second.kind)

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
        """Optimise a picture of the content's size, (1, 3, H, W)."""
        content = content.to(self.device)
        self.losses, self.interrupted, self.cut = {}, False, None
        if strength == 0:
            return content.clamp(0, 1)
        mixture = [(share, Style(restore(one), one.kind)) for share, one in distinct(style)]
        work = _Work(self, content, mixture, strength, mask)
        stages = self.scales(*content.shape[-2:])
        start = self._start(content, stages[0], strength, seed)

        def objective_at(scale: Pass, image: Tensor) -> FittingObjective:
            return work.objective(scale, image, first=scale is stages[0])

        result = self.optimise(stages, start, objective_at, on_step, enlarge=enlarge)
        painted = work.recolored(result.image) if self.options.recolor else result.image
        return keep_photo(painted, content, strength)

    @property
    def loss_layers(self) -> tuple[Backbone, frozenset[str]]:
        """The network and the compared layers."""
        return self.network, frozenset({COLUMNS, *self.style_layers})

    def scales(self, height: int, width: int) -> list[Pass]:
        """Return the scales from the coarsest to the full size, which comes twice."""
        options = self.options
        stages: list[Pass] = []
        for octave in range(0 if self.start_from is not None else options.octaves, 0, -1):
            small = round(height / 2**octave), round(width / 2**octave)
            if min(small) >= max(options.least_side, self.network.least_side):
                stages.append(Pass(*small, self._settings(options.coarse_steps), octave))
        if options.steps or not options.last_steps:
            stages.append(Pass(height, width, self._settings(max(options.steps, 1)), 0))
        if options.last_steps:
            stages.append(Pass(height, width, self._settings(options.last_steps), 0, last=True))
        return stages

    def _settings(self, steps: int) -> Settings:
        return Settings(steps, self.options.optimizer, self.options.learning_rate)

    def _parameter(self, image: Tensor) -> LaplacianPyramid:
        return LaplacianPyramid(image, grey=self.options.grey_detail)

    def _start(self, content: Tensor, first: Scale, strength: float, seed: int) -> Tensor:
        if self.start_from is not None:
            return resize(self.start_from.to(content), *content.shape[-2:])
        small = resize(content, first.height, first.width)
        start = without_detail(small, COARSE_DETAIL, 1 - strength)
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed)).to(start)
        return (start + START_NOISE * strength * noise).clamp(0, 1)


class _Work:
    """The work on one picture: its inputs, and the objective of each stage."""

    def __init__(
        self, model: NNST, content: Tensor, mixture: list[tuple[float, Style]], strength: float, mask: Tensor | None
    ) -> None:
        self.model, self.options, self.network = model, model.options, model.network
        self.content, self.mixture, self.strength, self.mask = content, mixture, strength, mask

    def objective(self, stage: Pass, image: Tensor, *, first: bool) -> FittingObjective:
        """Return the objective of `stage`, which begins with `image`; first: nothing was painted before it."""
        photo = resize(self.content, stage.height, stage.width)
        size = stage.height, stage.width
        network, layers = self.model.loss_layers
        tile = choose_tile(network, layers, size, self.model.free_room)
        terms = (
            [*self._last(size), *self._matched(stage, photo, image, tile, first=first)]
            if stage.last
            else (self._matched(stage, photo, image, tile, first=first))
        )
        terms += [*self._statistics(photo, stage.octave, tile), *self._shapes(photo, stage.octave, tile)]
        if stage.octave and tile is None:  # at the full size it would leave a pattern with the pooling's period
            terms += self._guard(photo)
        terms.append(Term("tv", "image", TotalVariation(), self.options.tv_weight))
        if stage.octave == 0:
            terms += self.model.more_terms
        return FittingObjective(Objective(network, terms), network, size, tile)

    def _matched(self, stage: Pass, photo: Tensor, image: Tensor, tile: int | None, *, first: bool) -> list[Term]:
        kept = 1 - self.strength
        if stage.last and not kept:
            return []
        options = self.options
        places = recall_places(self.mixture, stage.octave, options.candidates)
        scale = self._scale(places)
        mixed = 0.0 if first and self.model.start_from is None else 1 - options.alpha
        index = self._match(photo, image, mixed, places, scale, tile)
        shared = look(self.network, photo, (COLUMNS, COLORS), (), tile=tile)[0] if kept else {}
        mask = self._mask_at(photo.shape, STRIDE)
        weight = kept if stage.last else 1.0
        keys, tones = places.all
        columns = MatchedLoss(keys, index, scale, options.match_form, photo=shared.get(COLUMNS), kept=kept, mask=mask)
        colors = MatchedLoss(
            tones, index, scale.new_ones(3), "relative", photo=shared.get(COLORS), kept=kept, mask=mask
        )
        return [
            Term("match", COLUMNS, columns, options.match_weight * weight),
            # Colours of 4x4 pixels would leave steps at edges, which the last pass smooths.
            Term("colors", COLORS, colors, options.color_weight * weight),
        ]

    def _scale(self, places: Places) -> Tensor:
        widths = self.network.widths
        if places.columns.shape[1] != sum(widths):
            raise OptionError("this style card was made with other --layers: extract it again with -m nnst")
        by = widths if self.options.layer_balance == "channels" else None
        return balance(places.columns, widths, by, places.expected)

    def _match(
        self, photo: Tensor, image: Tensor, mixed: float, places: Places, scale: Tensor, tile: int | None
    ) -> Tensor:
        """Return the place of the paintings that each place of the picture should look like, (H / 4, W / 4)."""
        columns = look(self.network, photo, (COLUMNS,), (), tile=tile)[0][COLUMNS]
        if mixed:
            so_far = look(self.network, image, (COLUMNS,), (), tile=tile)[0][COLUMNS]
            columns = torch.lerp(columns, so_far, mixed)
        queries = rows_of(columns) * scale
        weights = self._mask_at(photo.shape, STRIDE)
        center = queries.mean(0) if weights is None else (queries * weights.flatten()[:, None]).sum(0) / weights.sum()
        rows = directions(queries, center).view(*columns.shape[-2:], -1)
        return choose(rows, places, scale, self.options.spread, self.options.coherence)

    def _last(self, size: tuple[int, int]) -> list[Term]:
        weight = self.options.last_weight * self.strength / len(self.options.last_layers)
        terms = []
        for layer in self.options.last_layers:
            stride = stride_after(self.network.path(layer))
            own = size[0] // stride, size[1] // stride
            mask = self._mask_at((1, 1, *size), stride)
            terms.append(Term("last", layer, NearestLoss(recall_layer(self.mixture, layer), own, mask=mask), weight))
        return terms

    def _statistics(self, photo: Tensor, octave: int, tile: int | None) -> list[Term]:
        if not self.options.style_weight:
            return []
        layers = self.model.style_layers
        own = look(self.network, photo, (), layers, self.mask, tile)[1] if self.strength < 1 else {}
        falling = [len(layers) - i for i in range(len(layers))]
        terms = []
        for layer, share in zip(layers, falling, strict=True):
            target = self._wanted(layer, octave, own.get(layer))
            weight = self.options.style_weight * share / sum(falling)
            terms.append(Term("style", layer, CovarianceLoss(target, self.mask), weight))
        return terms

    def _wanted(self, layer: str, octave: int, own: Moments | None) -> Moments:
        """Return the paintings' moments at `layer`; below full strength mixed with the photo's, `own`."""
        found = sum_moments([recall(style, layer, coarse=octave > 0) for _, style in self.mixture], self.mixture)
        if self.strength == 1 or own is None:
            return found
        return Moments(1.0, own.mean, own.second) * (1 - self.strength) + found * self.strength

    def _shapes(self, photo: Tensor, octave: int, tile: int | None) -> list[Term]:
        """Return the term that keeps the photo's features, with the wanted mean and deviation of each channel."""
        if not self.options.shape_weight:
            return []
        layer = self.model.shape_layer
        maps, sums = look(self.network, photo, (layer,), (layer,), self.mask, tile)
        wanted = self._wanted(layer, octave, sums[layer])
        target = adaptive_instance_norm(maps[layer], wanted.mean, wanted.deviation(), sums[layer], relu=True)
        return [Term("shapes", layer, ContentLoss(target, "relative"), self.options.shape_weight)]

    def _guard(self, photo: Tensor) -> list[Term]:
        if not self.options.content_weight:
            return []
        layer = self.model.content_layer
        with torch.no_grad():
            target = self.network(photo, {layer})[layer]
        return [Term("content", layer, SelfSimilarityLoss(target), self.options.content_weight)]

    def _mask_at(self, shape: Sequence[int], stride: int) -> Tensor | None:
        return fit_mask(self.mask, torch.empty(1, 0, shape[-2] // stride, shape[-1] // stride))

    def recolored(self, image: Tensor) -> Tensor:
        """Return `image` with large areas in the photo's arrangement of the paintings' colours."""
        found = match_low_frequencies(
            image, self.content, recall_places(self.mixture, 0, self.options.candidates).colors
        )
        return torch.lerp(image, found, self.strength)
