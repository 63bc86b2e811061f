"""Neural neighbours in one pass: a network paints what `nnst` would optimise (Kolkin et al. 2022, the fast variant).

At each size, from coarse to fine, every place of the photo takes the features of the most similar place of the
painting, and a network paints the picture from them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from impasto.feedforward.limits import backwards_room
from impasto.feedforward.place_painter import (
    MOST_OCTAVES,
    PlacePainter,
    coarser_sizes,
    enlarged,
    reduced,
)
from impasto.feedforward.stages import (
    IMAGE,
    RESULT,
    Edge,
    Known,
    MomentsOf,
    Picked,
    Stage,
    StageInput,
    Thinned,
    pick,
    run_whole,
)
from impasto.images.exchange import AnyPicture
from impasto.images.tensors import LEAST_SIDE, Canvas, resize
from impasto.networks.backbone import SLIM, Backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.hypercolumns import COLORS, COLUMNS, SLIM_COLUMNS, STRIDE, Hypercolumns
from impasto.ops.moments import Moments, normalize, precise
from impasto.optimize.nearest import directions, rows_of
from impasto.optimize.perceptual_loss import PerceptualLoss, stack_rows
from impasto.stylizers.coherent_places import Around, anchor_grid
from impasto.stylizers.one_pass import OnePass, OnePassOptions
from impasto.stylizers.painting_places import GRID, Places, balance, distinct, gather, places_kind, recall_places
from impasto.stylizers.place_cards import restore
from impasto.stylizers.planned_choice import SAMPLED, Choice, KnownPlaces, know, plan_choice
from impasto.stylizers.styles import Style
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import MethodOptions, as_task, judge
from impasto.training.pictures import Pictures
from impasto.weights import load_weights

SHAPE_LAYERS = ("relu3_1", "relu4_1")
"""The layers at which the network sees the photo's shapes."""
LOOSE = 0.5
"""Share of the steps in which pictures are rebuilt from the places most similar to their own."""
SHAPES, SEEN = "shapes", "seen"
"""The maps of the photo's features, and of the columns of photo and coarser picture together."""


class NNSTDOptions(OnePassOptions):
    """Options of nnst_d."""

    candidates: int = Field(2048, ge=16, le=65_536, description="places of the painting to choose from, at each size")
    spread: float = Field(0.05, ge=0, le=2, description="cost of taking the same place repeatedly")
    coherence: float = Field(
        0.0, ge=0, le=2, description="how much less similar a place may be to keep the painting's strokes whole"
    )
    alpha: float = Field(0.75, ge=0, le=1, description="share of the photo, not of the picture so far, in the matching")


class NNSTD(OnePass):
    """Match and paint at each size, from coarse to fine, without optimisation (Kolkin et al. 2022, sec. 3.4).

    Departs from the paper: its network and training are not published, so both are impasto's own, over vgg19-slim; the
    network also sees the photo's features. Of pictures above 2048 pixels, one of 1024 is painted before the full size.
    """

    name = "nnst_d"
    rebuilds = True
    Options = NNSTDOptions
    options: NNSTDOptions

    def __init__(
        self,
        options: NNSTDOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
        network: PlacePainter | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.backbone = Hypercolumns(backbone or load_backbone(SLIM, pooling="average"), SLIM_COLUMNS).to(self.device)
        self.shapes = Hypercolumns(self.backbone, SHAPE_LAYERS).to(self.device)
        self.network, _ = self.open_network(network, lambda config: PlacePainter(**config["shape"]))
        for module in (self.backbone, self.shapes):
            module.to(memory_format=torch.channels_last)
        self._known: tuple[Style, dict[int, KnownPlaces]] | None = None

    @property
    def style_kind(self) -> str:
        """Places seen by the backbone, as in nnst."""
        return places_kind(self.backbone)

    @property
    def digests(self) -> dict[str, str]:
        """Encoder and network."""
        return {str(self.backbone.name): str(self.backbone.digest), self.name: self.network_digest}

    def encode_style(self, image: AnyPicture) -> Style:
        """Return places of the painting at its size and at halves."""
        image = self.open_painting(image).to(self.device)
        room = backwards_room(self.device)
        with torch.no_grad():
            values = gather(
                self.backbone,
                image,
                (),
                octaves=MOST_OCTAVES,
                most=self.options.candidates,
                beside=self.options.coherence > 0,
                room=room,
            )
        return Style(values, self.style_kind, convert=self.accept_style)

    @functools.cached_property
    def examples(self) -> tuple[Style, ...]:
        """Styles that a card must be like; it may say nothing of how its places lie."""
        first, *others = super().examples
        return Style({name: value for name, value in first.items() if not name.endswith(GRID)}, first.kind), *others

    def read_card(self, style: Style) -> Mapping[str, Tensor]:
        """Return the places that a compact card holds."""
        return restore(style)

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Look at photo and coarser picture, choose places, paint them; without a photo that picture is black."""
        coarse = torch.zeros(1, 3, 1, 1, device=self.device) if coarser_sizes(*size) else None
        return self._stages(style, strength, 0, size, coarse, None)

    def stages_for(self, content: Canvas, style: Style, strength: float, mask: Tensor | None) -> tuple[Stage, ...]:
        """Return the stages of the full size; the pictures of coarser sizes are painted here."""
        coarse = None
        for octave, (height, width) in reversed(list(enumerate(coarser_sizes(*content.size), 1))):
            rows = self._stages(style, strength, octave, (height, width), coarse, mask)
            photo = reduced(content, height, width).to(self.device)
            region = None if mask is None else resize(mask, height, width)
            coarse = run_whole(rows, photo, region, moments_of=self.moments_of)
        return self._stages(style, strength, 0, content.size, coarse, mask)

    def _know(self, style: Style, octave: int) -> KnownPlaces:
        """Return the places of `style` at this octave, kept until another style is needed."""
        if self._known is None or self._known[0] is not style:
            self._known = style, {}
        known = self._known[1]
        if octave not in known:
            mixture = [(share, Style(restore(one), one.kind)) for share, one in distinct(style)]
            known[octave] = know(recall_places(mixture, octave, self.options.candidates), self.backbone.widths)
        return known[octave]

    def _stages(
        self,
        style: Style,
        strength: float,
        octave: int,
        size: tuple[int, int],
        coarse: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Stage, ...]:
        """Return the stages of one size; coarse: the picture of the size before it, (1, 3, h, w)."""
        options, matched = self.options, self._know(style, octave)
        columns, colors = matched.places.all

        def look(work: StageInput) -> dict[str, Tensor]:
            photo, found = work.maps[IMAGE], {}
            if SHAPES in work.wanted:
                found[SHAPES] = self.shapes(photo, {COLUMNS})[COLUMNS]
            if SEEN in work.wanted:
                if coarse is not None:
                    photo = torch.lerp(enlarged(coarse, size, work).to(photo), photo, options.alpha)
                found[SEEN] = self.backbone(photo, {COLUMNS})[COLUMNS]
            return found

        def prepare(known: Known) -> tuple[Choice, Moments]:
            sample = known[f"{SEEN}.thinned"]
            weights = None if mask is None else resize(mask, *sample.shape[-2:]).flatten()
            rows = sample[0].flatten(1).T.float()
            choice = plan_choice(rows, matched, options.spread, weights)
            places = size[0] // STRIDE, size[1] // STRIDE
            return choice.anchored(known[f"{SEEN}.picked"], places, options.coherence), known[SHAPES]

        def paint(work: StageInput) -> dict[str, Tensor]:
            choice, own = work.given
            photo, seen = work.maps[IMAGE], work.maps[SEEN]
            index = choice.index(seen, (work.top // STRIDE, work.left // STRIDE))
            taken = columns[index.flatten()].T.reshape(seen.shape)
            tones = colors[index.flatten()].T.reshape(1, 3, *index.shape)
            if strength < 1:
                taken = torch.lerp(seen.to(taken), taken, strength)
                tones = torch.lerp(F.avg_pool2d(photo, STRIDE).to(tones), tones, strength)
            before = torch.full_like(photo, 0.5) if coarse is None else enlarged(coarse, size, work).to(photo)
            shapes = standardized(work.maps[SHAPES], own)
            return {RESULT: self.network(taken, tones, shapes, before, photo.shape[-2:])}

        edges = [
            Edge(IMAGE, name, (*network.path(COLUMNS), nn.Conv2d(1, sum(network.widths), 1, device="meta")))
            for name, network in ((SHAPES, self.shapes), (SEEN, self.backbone))
        ]
        moments = MomentsOf(SHAPES, full=False, layer=f"{SHAPES}{octave}")
        measures = moments, Thinned(SEEN, SAMPLED), Picked(SEEN, anchor_grid)
        ends = tuple(Edge(name, RESULT, (self.network,)) for name in (SHAPES, SEEN))
        return (
            Stage(tuple(edges), look, measures),
            Stage((*ends, Edge(IMAGE, RESULT)), paint, prepare=prepare),
        )


def standardized(maps: Tensor, own: Moments) -> Tensor:
    """Return `maps`, (B, C, h, w), with mean 0 and deviation 1 in each channel by its moments, in float32."""
    mean, deviation = (value.float()[..., None, None] for value in (own.mean, own.deviation()))
    return (precise(maps) - mean) / deviation


class NNSTDTraining(nn.Module):
    """Training of the network: to rebuild pictures from their own places, then to paint photos from a painting's.

    Sizes, from coarse to fine, are `octaves` halves of the crop and the crop; each begins with the result of the one
    before. Gradients end at the size.
    """

    def __init__(
        self, backbone: Hypercolumns, loss: PerceptualLoss, network: PlacePainter, options: NNSTDTrainOptions
    ) -> None:
        super().__init__()
        self.network, self.options = network, options
        self._frozen = backbone, loss, Hypercolumns(backbone, SHAPE_LAYERS)  # in a tuple, so that it is not saved

    def config(self) -> dict[str, Any]:
        """Return the network's shape, for the file's header."""
        return {"method": "nnst_d", "backbone": str(self._frozen[0].digest), "shape": self.network.shape}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the terms of the rebuilt pictures, and after the introduction those of the painted ones."""
        terms = self._rebuilt(torch.cat([contents, styles]) if progress < self.options.introduction else styles[:1])
        if progress < self.options.introduction:
            return terms
        painted = list(self.paint(contents, styles))
        terms["matched"] = self.options.matched_weight * torch.stack([self._matched(*one) for one in painted]).mean()
        picture = painted[-2 if float(torch.rand(())) < self.options.half_share else -1][0]
        own, theirs = (resize(image, *picture.shape[-2:]) for image in (contents, styles))
        terms |= self._frozen[1](picture, own, theirs)
        return terms

    def paint(self, contents: Tensor, styles: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return, for each size, pictures (B, 3, h, w), wanted columns and their factors."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for octave in range(self.options.octaves, -1, -1):
            size = [side >> octave for side in contents.shape[-2:]]
            photo, painting = resize(contents, *size), resize(styles, *size)
            before = resize(found[-1][0].detach().clamp(0, 1).to(photo), *size) if found else None
            found.append(self._paint_size(photo, painting, before))
        return found

    def _paint_size(self, photo: Tensor, painting: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        backbone, options = self._frozen[0], self.options
        with torch.no_grad():
            looked = photo if before is None else torch.lerp(before, photo, options.alpha)
            seen, theirs = backbone(looked, {COLUMNS})[COLUMNS], backbone(painting, {COLUMNS, COLORS})
            columns, colors, scales = [], [], []
            for number in range(len(photo)):
                rows, tones = (precise(rows_of(theirs[layer][number : number + 1])) for layer in (COLUMNS, COLORS))
                places = _as_they_lie(rows, tones, theirs[COLUMNS].shape[-2:])
                queries = precise(seen[number : number + 1])
                step = max(1, -(-queries[0, 0].numel() // SAMPLED))
                sample = rows_of(queries)[step // 2 :: step]
                choice = plan_choice(sample, know(places, backbone.widths), options.spread)
                size = queries.shape[-2], queries.shape[-1]
                choice = choice.anchored(pick(queries, *anchor_grid(*size)), size, options.coherence)
                index = choice.index(queries).flatten()
                columns.append(rows[index].T.reshape(-1, *seen.shape[-2:]))
                colors.append(tones[index].T.reshape(-1, *seen.shape[-2:]))
                scales.append(choice.known.scale)
            shapes = normalize(precise(self._frozen[2](photo, {COLUMNS})[COLUMNS]))
        wanted, tints = torch.stack(columns), torch.stack(colors)
        start = torch.full_like(photo, 0.5) if before is None else before
        painted = self.network(wanted, tints, shapes, start, photo.shape[-2:])
        return painted, wanted, torch.stack(scales)

    def _matched(self, painted: Tensor, wanted: Tensor, scales: Tensor) -> Tensor:
        """Return the mean cosine distance of the columns of `painted` from those wanted."""
        seen = precise(self._frozen[0](painted, {COLUMNS})[COLUMNS])
        factors = scales[:, :, None, None]
        return (1 - F.cosine_similarity(seen * factors, wanted * factors, dim=1)).mean()

    def _rebuilt(self, images: Tensor) -> dict[str, Tensor]:
        """Return the terms of half-size pictures painted from their own places, half of them from the next similar."""
        backbone = self._frozen[0]
        images = resize(images, *(side // 2 for side in images.shape[-2:]))
        with torch.no_grad():
            seen = backbone(images, {COLUMNS, COLORS})
            columns, colors = precise(seen[COLUMNS]), precise(seen[COLORS])
            scale = torch.stack([balance(rows_of(one[None]), backbone.widths) for one in columns])
            given = [columns, colors]
            if float(torch.rand(())) < LOOSE:
                index = torch.stack([_next_similar(one, own) for one, own in zip(columns, scale, strict=True)])
                given = [maps.flatten(2).gather(2, index[:, None].expand(-1, maps.shape[1], -1)) for maps in given]
            before = resize(resize(images, *(side // 2 for side in images.shape[-2:])), *images.shape[-2:])
            blank = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
            before = torch.where(blank, torch.full_like(before, 0.5), before)
            shapes = normalize(precise(self._frozen[2](images, {COLUMNS})[COLUMNS]))
        taken, tints = (maps.view(len(images), -1, *columns.shape[-2:]) for maps in given)
        painted = self.network(taken, tints, shapes, before, images.shape[-2:])
        return {
            "pixels": self.options.pixels_weight * F.l1_loss(precise(painted), images),
            "rebuilt": self.options.matched_weight * self._matched(painted, columns, scale),
        }

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, artworks and results, (1, 3, 3 H, B W)."""
        return stack_rows((contents, styles, self.paint(contents, styles)[-1][0].float().clamp(0, 1)))


def _as_they_lie(columns: Tensor, colors: Tensor, size: Sequence[int]) -> Places:
    """Return all places of a painting of this size in places: `columns`, (h w, C), and `colors`, (h w, 3)."""
    count, device = len(columns), columns.device
    owner, sides = torch.zeros(count, dtype=torch.long, device=device), torch.tensor([[0, *size]], device=device).T
    around = Around(columns, colors, torch.arange(count, device=device), owner, *sides)
    return Places(columns, colors, owner, torch.ones(1, device=device), around=around)


def _next_similar(columns: Tensor, scale: Tensor) -> Tensor:
    """Return the most similar other place, (h w,), of each place of `columns`, (C, h, w)."""
    rows = rows_of(columns[None]) * scale
    rows = directions(rows, rows.mean(0))
    return (rows @ rows.T).fill_diagonal_(-2).argmax(1)


class NNSTDTrainOptions(MethodOptions):
    """Further training options for nnst_d."""

    octaves: int = Field(2, ge=1, le=4, description="number of sizes before the crop's, each half the next")
    alpha: float = Field(0.75, ge=0, le=1, description="share of the photo, not of the picture so far, in the matching")
    spread: float = Field(0.05, ge=0, le=2, description="cost of taking the same place repeatedly")
    coherence: float = Field(0.0, ge=0, le=2, description="how much less similar a place beside its neighbours may be")
    introduction: float = Field(0.1, ge=0, le=1, description="first part of the training, in which it only rebuilds")
    pixels_weight: float = Field(4.0, ge=0, description="weight of rebuilt pixels")
    matched_weight: float = Field(2.0, ge=0, description="weight of the distance from the matched features")
    half_share: float = Field(0.2, ge=0, le=1, description="share of the steps that judge the picture at half the crop")
    width: int = Field(64, ge=8, le=512, description="channels at a quarter of the picture's size")
    blocks: int = Field(3, ge=0, le=32, description="residual blocks at a quarter of the picture's size")


@torch.no_grad()
def survey(backbone: Hypercolumns, network: PlacePainter, options: TrainOptions, styles: Pictures) -> None:
    """Measure the columns' means and deviations over artworks, in whose units the network reads."""
    crops = [styles.batch((options.seed, 0, 0, 4 + i), 8, options.crop) for i in range(4)]
    rows = torch.cat([rows_of(backbone(one[None], {COLUMNS})[COLUMNS]) for crop in crops for one in crop])
    network.middle.copy_(rows.mean(0))
    network.spread.copy_(rows.std(0).clamp_min(1e-3))


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of the network, from random weights or from `from_`."""
    options = cast(NNSTDTrainOptions, options)
    torch.manual_seed(options.seed)
    backbone = Hypercolumns(load_backbone(SLIM, pooling="average"), SLIM_COLUMNS)
    widths = dict(zip(backbone.columns, backbone.widths, strict=True))
    network = PlacePainter(
        sum(backbone.widths), sum(widths[layer] for layer in SHAPE_LAYERS), options.width, options.blocks
    )
    if options.from_:
        load_weights(options.from_).fill(network)
    else:
        survey(backbone, network, options, styles)
    learner = NNSTDTraining(backbone, judge(options), network, options)
    return as_task("nnst_d", learner)


TRAINING = Training(NNSTDTrainOptions, build_training)
