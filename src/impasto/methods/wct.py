"""Any style in one pass by whitening and colouring (Li et al. 2017, "Universal style transfer via feature transforms").

A photo's features lose their own covariance and take on the painting's, level by level from the deepest to the
shallowest; decoders, trained only to rebuild pictures, turn features back into a picture. A style here is only moments,
so a card of the method `gatys` works here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from impasto.errors import OptionError
from impasto.feedforward.stages import IMAGE, RESULT, Edge, Known, MomentsOf, Stage, StageInput
from impasto.images.tensors import LEAST_SIDE
from impasto.networks.backbone import SLIM, SLIM_WIDTHS, Backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import StepDecoder, fit_edge, size_below
from impasto.ops.moments import Moments, moments
from impasto.ops.whitening import (
    Affine,
    Transform,
    affine,
    apply,
    centred,
    colour,
    transport_by_products,
)
from impasto.optimize.perceptual_loss import PerceptualLoss, stack_rows
from impasto.stylizers.one_pass import ArbitraryStyle, OnePassOptions
from impasto.stylizers.styles import Style, moments_kind, note, recall
from impasto.training.loop import Task, Training, TrainOptions
from impasto.training.one_pass import MethodOptions, as_task, judge
from impasto.training.pictures import Pictures
from impasto.weights import load_weights

DEEPEST = 5
LAYERS = {level: f"relu{level}_1" for level in range(1, DEEPEST + 1)}


USUAL = {5: 1.0, 4: 1.3, 3: 1.3, 2: 1.2, 1: 1.0}
"""Strength by level: deep features are exaggerated, because the photo's own are blended in below them."""


class WCTOptions(OnePassOptions):
    """Options of wct."""

    levels: tuple[int, ...] = Field(
        (4, 3, 2, 1), min_length=1, description="levels at which colours and textures change"
    )
    level_strengths: tuple[float, ...] = Field(
        (), description="strength at each level, 0 to 2, above 1 exaggerates; empty: 1.3, 1.3, 1.2, 1 from level 4 down"
    )
    detail: tuple[float, ...] = Field(
        (0.45,),
        description="share of the photo's own features at each level below the deepest; one for all, or one a level",
    )
    transform: Transform = Field(
        "transport", description="zca as in the paper, or the optimal transport between Gaussians"
    )

    @model_validator(mode="after")
    def _fitting(self) -> WCTOptions:
        if (
            list(self.levels) != sorted(set(self.levels), reverse=True)
            or not 1 <= self.levels[-1] <= self.levels[0] <= 5
        ):
            raise ValueError("levels run from deep to shallow without repetition, such as 4,3,2,1")
        if self.level_strengths and len(self.level_strengths) != len(self.levels):
            raise ValueError(f"{len(self.levels)} levels need as many level strengths")
        if len(self.detail) not in (1, len(self.levels) - 1):
            raise ValueError(f"{len(self.levels)} levels need 1 or {len(self.levels) - 1} shares of detail")
        if not all(0 <= value <= 2 for value in self.level_strengths):
            raise ValueError("level strengths are from 0 to 2")
        if not all(0 <= value <= 1 for value in self.detail):
            raise ValueError("detail is from 0 to 1")
        return self


class WCT(ArbitraryStyle):
    """Whitening and colouring transforms over vgg19-slim (Li et al. 2017).

    Departs from the paper: the picture is encoded once; the decoder of a level gives the next level's features, not a
    picture to encode again; each level blends in the photo's own features (`detail`), which keeps objects; the
    transform is the optimal transport between Gaussians. ``--preset paper`` has the paper's transform, five levels,
    strength 0.6 at each, and no detail.
    """

    name = "wct"
    rebuilds = True
    Options = WCTOptions
    presets = {  # noqa: RUF012
        "default": {},
        "paper": {"transform": "zca", "levels": (5, 4, 3, 2, 1), "level_strengths": (0.6,) * 5, "detail": (0.0,)},
    }
    options: WCTOptions

    def __init__(
        self,
        options: WCTOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
        decoder: StepDecoder | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.backbone = (backbone or load_backbone(SLIM)).to(self.device)
        self.backbone.to(memory_format=torch.channels_last)
        self.decoder, _ = self.open_network(decoder, lambda config: StepDecoder(config["widths"]))

    @property
    def chosen_precision(self) -> str:
        """The precision of the options, but full for ``zca``, which amplifies directions with little variance."""
        return "fp32" if self.options.transform == "zca" else super().chosen_precision

    @property
    def style_kind(self) -> str:
        """Moments over the encoder."""
        return moments_kind(self.backbone)

    @property
    def digests(self) -> dict[str, str]:
        """Encoder and decoder."""
        return {self.backbone.name: self.backbone.digest, self.name: self.network_digest}

    def accept_style(self, style: Style) -> Style:
        """Accept cards of moments of the same encoder; only the chosen levels are kept, so that all of them mix."""
        found, layers = super().accept_style(style), {LAYERS[level] for level in self.options.levels}
        kept = {name: tensor for name, tensor in found.items() if name.rpartition(".")[0] in layers}
        return Style(kept, found.kind, found.info)

    def style_stage(self) -> Stage:
        """Return moments at the chosen levels."""
        layers = [LAYERS[level] for level in self.options.levels]
        edges = tuple(Edge(IMAGE, layer, tuple(self.backbone.path(layer))) for layer in layers)
        measures = tuple(map(MomentsOf, layers))
        return Stage(edges, lambda work: self.backbone(work.maps[IMAGE], layers, rounded=True), measures)

    def style_of(self, known: Known) -> Style:
        """Return means and second moments."""
        values = [note(known[LAYERS[level]], LAYERS[level]) for level in self.options.levels]
        return Style({name: tensor for part in values for name, tensor in part.items()}, self.style_kind)

    @property
    def _strengths(self) -> dict[int, float]:
        """Share of the painting, by level."""
        levels = self.options.levels
        return dict(zip(levels, self.options.level_strengths or _usual(levels), strict=True))

    @property
    def _details(self) -> dict[int, float]:
        """Share of the photo's own features, by level, if there is one."""
        levels, shares = self.options.levels[1:], self.options.detail
        shares = shares * len(levels) if len(shares) == 1 else shares
        return {level: share for level, share in zip(levels, shares, strict=False) if share}

    def forward_for_export(self, content: Tensor, painting: Tensor) -> Tensor:
        """Paint in one pass, by matrix products instead of eigenvectors: 50 dB from the same picture.

        Raises OptionError for the transform zca, whose result depends on exactly which directions are left out.
        """
        if self.options.transform != "transport":
            raise OptionError("wct's transform zca needs eigenvectors, which ONNX has no operator for: use transport")
        options, strengths, details = self.options, self._strengths, self._details
        theirs = self.backbone(painting, [LAYERS[level] for level in options.levels])
        deepest = options.levels[0]
        own = self.backbone(content, [LAYERS[level] for level in (deepest, *details)])
        x = own[LAYERS[deepest]]
        for level in range(deepest, 0, -1):
            x = torch.lerp(x, own[LAYERS[level]], details[level]) if level in details else x
            if strengths.get(level):
                (mean, covariance), (wanted, target) = centred(x), centred(theirs[LAYERS[level]])
                matrix = transport_by_products(covariance, target)[0, :, :, None, None]
                x = torch.lerp(x, F.conv2d(x - mean, matrix) + wanted, strengths[level])
            x = self.decoder.step(level, x, size_below(level, content.shape))
        painted: Tensor = x.clamp(0, 1)
        return painted

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Encode once, then from level to level: colour, one step down, blend in the photo's own features."""
        options, strengths, details = self.options, self._strengths, self._details
        deepest = options.levels[0]
        encoded = {f"x{deepest}": LAYERS[deepest]} | {f"own{n}": LAYERS[n] for n in details}

        def encode(work: StageInput) -> dict[str, Tensor]:
            found = self.backbone(work.maps[IMAGE], {encoded[name] for name in work.wanted})
            return {name: found[encoded[name]] for name in work.wanted}

        edges = (Edge(IMAGE, name, tuple(self.backbone.path(layer))) for name, layer in encoded.items())
        made = [Stage(tuple(edges), encode, (_measure(deepest),))]
        for level in range(deepest, 0, -1):
            target = recall(style, LAYERS[level]) if level in options.levels else None
            made.append(self._step_down(level, target, strength * strengths.get(level, 0), details.get(level - 1, 0)))
        return tuple(made)

    def _step_down(self, level: int, target: Moments | None, strength: float, detail: float) -> Stage:
        """Return the stage from ``x4`` to ``x3`` and the like; detail: share of the photo's own features below."""
        above, below, own = f"x{level}", f"x{level - 1}" if level > 1 else RESULT, f"own{level - 1}"

        def prepare(known: Known) -> Affine | None:
            if target is None or strength == 0:
                return None
            return affine(known[above], target, self.options.transform, strength)

        def run(work: StageInput) -> dict[str, Tensor]:
            x = work.maps[above] if work.given is None else apply(work.given, work.maps[above])
            x = self.decoder.step(level, x, size_below(level, (work.height, work.width)))
            return {below: torch.lerp(x, work.maps[own].to(x.dtype), detail) if detail else x}

        edges = [Edge(above, below, (self.decoder.steps[level - 1],))] + ([Edge(own, below)] if detail else [])
        measures = (_measure(level - 1),) if level - 1 in self.options.levels else ()
        return Stage(tuple(edges), run, measures, prepare)


def _usual(levels: Sequence[int]) -> list[float]:
    return [USUAL[level] for level in levels]


def _measure(level: int) -> MomentsOf:
    return MomentsOf(f"x{level}", layer=LAYERS[level])


class WCTTraining(nn.Module):
    """Training of the decoder: each step rebuilds the next shallower features, all steps together the picture.

    With a `loss`, WCT's results are judged, too, so that the decoder learns to decode features that no picture has.

    Departs from the paper: steps of one decoder, not five decoders; every error is divided by the variance of what it
    is compared with; the paper's decoders only rebuild.
    """

    def __init__(
        self,
        backbone: Backbone,
        widths: Sequence[int],
        loss: PerceptualLoss | None = None,
        *,
        rebuild_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = StepDecoder(widths)
        self.rebuild_weight = rebuild_weight
        self._frozen = backbone, loss  # in a tuple, so that it is not saved

    def config(self) -> dict[str, Any]:
        """Return the decoder's widths, for the file's header."""
        return {"method": "wct", "backbone": self._frozen[0].digest, "widths": list(self.network.widths)}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return errors of rebuilt photographs and artworks, and of painted pictures.

        If painting is trained, too, half of the pictures are rebuilt.
        """
        loss = self._frozen[1]
        if loss is None:
            return self.rebuild(torch.cat([contents, styles]))
        half = (len(contents) + 1) // 2
        rebuilt = self.rebuild(torch.cat([contents[:half], styles[:half]]))
        terms = {name: self.rebuild_weight * term for name, term in rebuilt.items()}
        detail = 0.3 + 0.3 * float(torch.rand(()))
        painted = self.paint(contents, styles, detail)
        return {**terms, **loss(painted, contents, styles)}

    def rebuild(self, image: Tensor) -> dict[str, Tensor]:
        """Return errors of features by steps, and of pixels and features of the whole chain; image: (B, 3, H, W)."""
        backbone = self._frozen[0]
        with torch.no_grad():
            wanted = {"relu0_1": image, **backbone(image, LAYERS.values())}
        terms: dict[str, Tensor] = {}
        for level in range(DEEPEST, 0, -1):
            target = wanted[f"relu{level - 1}_1"]
            guess = self.network.step(level, wanted[LAYERS[level]], target.shape)
            terms[f"step{level}"] = F.mse_loss(guess, target) / target.var()
        rebuilt = fit_edge(self.network(wanted[LAYERS[4]], 4), image.shape)
        terms["pixels"] = F.mse_loss(rebuilt, image) / image.var()
        return terms

    def paint(self, contents: Tensor, styles: Tensor, detail: float) -> Tensor:
        """Return photographs in the artworks' styles, sample by sample, from relu4_1 down; (B, 3, H, W)."""
        backbone, names = self._frozen[0], [LAYERS[level] for level in (1, 2, 3, 4)]
        with torch.no_grad():
            own, textures = (backbone(image, names) for image in (contents, styles))
        x: Tensor = own[LAYERS[4]]
        for level in (4, 3, 2, 1):
            x = torch.lerp(x, own[LAYERS[level]].to(x.dtype), detail) if level < 4 else x
            x = colour(x, moments(textures[LAYERS[level]]), "transport", USUAL[level])
            x = self.network.step(level, x, size_below(level, contents.shape))
        return x

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs, artworks and results, (1, 3, 3 H, B W)."""
        rows = (contents, styles, self.paint(contents, styles, 0.5).clamp(0, 1))
        return stack_rows(rows)


class WCTTrainOptions(MethodOptions):
    """Further training options for WCT."""

    rebuild_weight: float = Field(1.0, ge=0, description="weight of rebuilding pictures, beside painting them")


def build_training(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Return the training of WCT's decoder, from random weights or from `from_`."""
    options = cast(WCTTrainOptions, options)
    torch.manual_seed(options.seed)
    loss = judge(options) if options.style_weight else None
    learner = WCTTraining(load_backbone(SLIM), SLIM_WIDTHS, loss, rebuild_weight=options.rebuild_weight)
    if options.from_:
        load_weights(options.from_).fill(learner.network)
    return as_task("wct", learner)


TRAINING = Training(WCTTrainOptions, build_training)
