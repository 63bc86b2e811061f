"""Style transfer by optimising the picture itself (Gatys, Ecker & Bethge 2016).

The picture's pixels change until a frozen network sees the photo's content in its deeper features and the painting's
style in the statistics of many layers. Precise, and slow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from impasto.errors import ImageError, OptionError
from impasto.images.exchange import AnyPicture
from impasto.images.files import read_image
from impasto.images.tensors import median8, resize
from impasto.networks.backbone import SLIM, Backbone
from impasto.networks.backbones import default_layers
from impasto.ops.moments import Moments
from impasto.optimize.descent import ImageParameter, OptimizerName, Pixels, Scale, Settings
from impasto.optimize.loss_check import warn_of_losses
from impasto.optimize.losses import (
    ContentForm,
    ContentLoss,
    CovarianceLoss,
    GramForm,
    GramLoss,
    Loss,
    MomentLoss,
    Objective,
    Term,
    TotalVariation,
    VariationForm,
    WassersteinLoss,
)
from impasto.optimize.pyramids import GreyDetail, LaplacianPyramid
from impasto.optimize.tiled_objective import FittingObjective, choose_tile, look, looking
from impasto.options import parse_size
from impasto.progress import OnStep, ignore
from impasto.stylizers.optimized import Optimized, OptimizedOptions, keep_photo
from impasto.stylizers.published_recipes import PRESETS
from impasto.stylizers.styles import Style, measure, moments_kind, recall

HISTORY = 20
FIVE = (0.05, 0.2, 0.35, 0.25, 0.15)
"""Weights of five style layers: the first one asks for noise and fringes in flat areas, the third one for strokes."""
StyleLoss = Literal["covariance", "gram", "moments", "wasserstein"]


class GatysOptions(OptimizedOptions):
    """Options in which the recipes of pixel optimisation differ."""

    backbone: str = Field(SLIM, description="network whose features are compared; see `impasto methods gatys`")
    content_layers: tuple[str, ...] = Field((), description="layers that hold the content; empty: the backbone's")
    style_layers: tuple[str, ...] = Field((), description="layers that hold the style; empty: the backbone's")
    style_layer_weights: tuple[float, ...] = Field(
        (), description="one a style layer; empty: 0.05, 0.2, 0.35, 0.25, 0.15 of five, else falling with depth"
    )
    content_weight: float = Field(1.0, ge=0, description="weight of the content")
    style_weight: float = Field(20.0, ge=0, description="weight of the style")
    tv_weight: float = Field(6.0, ge=0, description="weight of total variation, against noise")
    content_form: ContentForm = Field("relative", description="divisor of the content loss")
    style_loss: StyleLoss = Field("covariance", description="which statistics of the features are the style")
    gram_form: GramForm = Field("relative", description="divisor of Gram matrices, for --style-loss gram")
    tv_form: VariationForm = Field("l2-mean", description="which total variation")
    normalised_pixels: bool = Field(False, description="optimise and smooth in the backbone's normalised pixels")
    parameters: Literal["auto", "grey-detail", "pixels", "pyramid"] = Field(
        "auto",
        description="what is optimised: pixels with grey finest detail, against coloured fringes (auto: unless they "
        "are clamped or normalised); pixels; a Laplacian pyramid with a grey finest band",
    )
    clamp: bool = Field(False, description="keep pixels within [0, 1] at every step, not only at the end")
    optimizer: OptimizerName = Field("lbfgs", description="lbfgs, adam or gd (plain gradient descent)")
    learning_rate: float = Field(1.0, gt=0, description="step size")
    decay: float = Field(1.0, gt=0, le=1, description="factor of the learning rate every --decay-every steps")
    decay_every: int = Field(50, ge=1, description="steps between decays")
    beta1: float = Field(0.9, ge=0, lt=1, description="Adam's memory of gradients")
    beta2: float = Field(0.99, ge=0, lt=1, description="Adam's memory of squared gradients")
    epsilon: float = Field(1e-8, gt=0, description="Adam's epsilon")
    average: float = Field(0.0, ge=0, lt=1, description="decay of a running mean of the pictures; 0: the last picture")
    steps: int = Field(30, ge=1, le=100_000, description="steps at the working size")
    coarse_steps: int = Field(100, ge=0, le=100_000, description="steps at each coarser size")
    octaves: int = Field(3, ge=0, le=6, description="number of coarser sizes, each half the next, that come first")
    skip_deepest: int = Field(
        1, ge=0, le=8, description="number of the deepest style layers that only the coarser sizes compare"
    )
    least_side: int = Field(48, ge=16, le=4096, description="no coarser size has a shorter side below this")
    start: str = Field("content", description="content, noise (uniform), gaussian, style, blurred-noise, or a file")
    start_noise: float = Field(0.0, ge=0, le=1, description="deviation of noise added to the start")
    start_shift: float = Field(0.0, ge=-1, le=1, description="mean of the noise added to the start")
    style_scale: float = Field(1.0, gt=0, le=4, description="size of the painting relative to the photo's")
    size: str = Field("", description="the recipe's working size, longer side or WIDTHxHEIGHT; --size takes precedence")

    @field_validator("size")
    @classmethod
    def _readable_size(cls, size: str) -> str:
        try:
            parse_size(size or "512")
        except ImageError as error:
            raise ValueError(str(error)) from None
        return size

    @model_validator(mode="after")
    def _fitting_weights(self) -> GatysOptions:
        if self.style_layer_weights and self.style_layers and len(self.style_layer_weights) != len(self.style_layers):
            raise ValueError(f"{len(self.style_layers)} style layers need as many style layer weights")
        if self.parameters not in ("auto", "pixels") and (self.clamp or self.normalised_pixels):
            raise ValueError("clamp and normalised-pixels need --parameters pixels")
        if any(weight < 0 for weight in self.style_layer_weights):
            raise ValueError("style layer weights are at least 0")
        return self


class Gatys(Optimized):
    """Pixel optimisation against one backbone (Gatys, Ecker & Bethge 2016, "Image style transfer using CNNs").

    Departs from the paper: in ``default`` the backbone is vgg19-slim, the work goes from coarse to fine, the deepest
    style layer counts at the coarser sizes alone, the finest detail changes in lightness only, the style is means and
    centred covariances, and every layer's loss is divided by the target's own size, so that one weight means the same
    at every size, in every layer and backbone. ``--preset thorough`` takes a third more time, for every pixel's own
    colour. ``--preset gatys`` is the paper's (with torchvision's weights, not the normalised ones). ``d2l``: the
    book's code repeats the list of style losses ten times, so its style weight of 1e3 acts as 1e4, which is used here;
    its "conv" layers are evaluated after the in-place ReLU that follows them, so they are relu layers here, except the
    last, conv5_1, which no ReLU follows. ``beginners``: torchvision's weights instead of Keras', whose features are
    about 57 times larger; content and style weights compensate for it. ``vgg16-bn``: evaluation mode, RGB with
    ImageNet's normalisation, Gram / (C N); the original normalises by each picture's own batch statistics and takes 10
    000 steps at a rate of 0.005.
    """

    name = "gatys"
    Options = GatysOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    options: GatysOptions

    def __init__(
        self,
        options: GatysOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset, backbone=backbone)
        self.backbone.check_layers({*self.options.content_layers, *self.options.style_layers})

    @staticmethod
    def fill_layers(options: GatysOptions) -> dict[str, Any]:
        """Return the layers of content and style."""
        content, style = default_layers(options.backbone)
        return {"content_layers": options.content_layers or content, "style_layers": options.style_layers or style}

    @property
    def style_kind(self) -> str:
        """Moments over the backbone in use."""
        return moments_kind(self.backbone)

    def working_size(self, height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """Return the working size of every method, or the one that a preset brings."""
        if size is None and self.options.size:
            size = parse_size(self.options.size)
        return super().working_size(height, width, size)

    def encode_style(self, image: AnyPicture) -> Style:
        """Return moments at the style layers, at the picture's size and at half of it."""
        image = self.open_painting(image, self.options.style_scale)
        fitting = looking(self.backbone, self.free_room)
        style = measure(self.backbone, image.to(self.device), self.options.style_layers, look=fitting)
        if self.options.start == "style":
            style.info["start"] = image
        style.convert = self.accept_style
        return style

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
            return content.clamp(0, 1)  # the coarse stages would blur it
        scales = self.scales(*content.shape[-2:])
        last = scales[-1]
        layers = self.fine_layers if len(scales) > 1 else self.options.style_layers
        start = self._start(content, style, seed)

        def objective_at(scale: Scale, _: Tensor) -> FittingObjective:
            fitted = resize(content, scale.height, scale.width)
            coarse = scale is not last
            chosen = self.options.style_layers if coarse else layers
            return self._objective(fitted, style, strength, mask, chosen, coarse=coarse)

        result = self.optimise(scales, start, objective_at, on_step)
        units = {"style": self.options.style_weight} if self.options.style_loss == "covariance" else {}
        if not result.interrupted:
            warn_of_losses(result.losses, last.settings.steps, units)
        return keep_photo(result.image, content, strength)

    def scales(self, height: int, width: int) -> list[Scale]:
        """Return the scales from the coarsest to the full size."""
        options = self.options
        scales = []
        for octave in range(0 if self.start_from is not None else options.octaves, 0, -1):
            small = round(height / 2**octave), round(width / 2**octave)
            if min(small) >= max(options.least_side, self.backbone.least_side) and options.coarse_steps:
                scales.append(Scale(*small, self._settings(options.coarse_steps)))
        return [*scales, Scale(height, width, self._settings(options.steps, self.history(height * width)))]

    def _settings(self, steps: int, history: int = HISTORY) -> Settings:
        o = self.options
        rates = o.learning_rate, o.decay, o.decay_every, (o.beta1, o.beta2), o.epsilon
        return Settings(steps, o.optimizer, *rates, o.average, history)

    @property
    def loss_layers(self) -> tuple[Backbone, frozenset[str]]:
        """The backbone and the layers of content and style."""
        return self.backbone, frozenset({*self.options.content_layers, *self.options.style_layers})

    @property
    def fine_layers(self) -> tuple[str, ...]:
        """The style layers at the working size, after coarser ones."""
        layers = self.options.style_layers
        return layers[: max(1, len(layers) - self.options.skip_deepest)]

    @property
    def uses_seed(self) -> bool:
        """Whether it begins with noise."""
        start = self.options.start
        return start in ("noise", "gaussian", "blurred-noise") or self.options.start_noise > 0

    @staticmethod
    def history(pixels: int) -> int:
        """Return how many steps L-BFGS remembers: fewer beyond 4 megapixels, where each takes 24 bytes a pixel."""
        return max(3, min(HISTORY, HISTORY * 4_000_000 // pixels))

    def _parameter(self, image: Tensor) -> ImageParameter:
        kind, plain = self.options.parameters, self.options.clamp or self.options.normalised_pixels
        if kind == "pyramid":
            return LaplacianPyramid(image)
        if kind == "grey-detail" or (kind == "auto" and not plain):
            return GreyDetail(image)
        if self.options.normalised_pixels:
            return Pixels(image, mean=self.backbone.mean, std=self.backbone.std, clamp=self.options.clamp)
        return Pixels(image, clamp=self.options.clamp)

    def _start(self, content: Tensor, style: Style, seed: int) -> Tensor:
        if self.start_from is not None:
            return resize(self.start_from.to(content), *content.shape[-2:])
        options, kind = self.options, self.options.start
        generator = torch.Generator().manual_seed(seed)
        shape = content.shape
        if kind == "content":
            image = content
        elif kind == "noise":
            image = torch.rand(shape, generator=generator)
        elif kind == "gaussian":
            image = 0.5 + 0.25 * torch.randn(shape, generator=generator)
        elif kind == "blurred-noise":
            image = median8(torch.rand(shape, generator=generator))
        elif kind == "style":
            picture = style.info.get("start")
            if not isinstance(picture, Tensor):
                raise OptionError("--start style needs one painting as a picture, not a style card or a mixture")
            image = resize(picture, *shape[-2:])
        else:
            image = resize(read_image(kind), *shape[-2:])
        noise = options.start_noise * torch.randn(shape, generator=generator) + options.start_shift
        return (image.to(self.device) + noise.to(self.device)).clamp(0, 1)

    def _objective(
        self,
        content: Tensor,
        style: Style,
        strength: float,
        mask: Tensor | None,
        layers: Collection[str],
        *,
        coarse: bool,
    ) -> FittingObjective:
        kept, measured = {*self.options.content_layers}, {*layers}
        size = content.shape[-2], content.shape[-1]
        tile = choose_tile(self.backbone, kept | measured, size, self.free_room)
        seen, own = look(self.backbone, content, kept, measured if strength < 1 else (), mask, tile)
        terms = self._terms(seen, own, style, strength, mask, layers, coarse=coarse)
        objective = Objective(self.backbone, terms)
        return FittingObjective(objective, self.backbone, size, tile)

    def _terms(
        self,
        seen: Mapping[str, Tensor],
        own: Mapping[str, Moments],
        style: Style,
        strength: float,
        mask: Tensor | None,
        layers: Collection[str],
        *,
        coarse: bool,
    ) -> list[Term]:
        options = self.options
        weight = options.content_weight / len(options.content_layers)
        terms = [
            Term("content", layer, ContentLoss(seen[layer], options.content_form), weight)
            for layer in options.content_layers
        ]
        for layer, share in zip(options.style_layers, self._layer_weights(), strict=True):
            if layer not in layers:
                continue
            target = recall(style, layer, coarse=coarse)
            if strength < 1:
                photo = Moments(1.0, own[layer].mean, own[layer].second)
                target = photo * (1 - strength) + target * strength
            terms.append(Term("style", layer, self._style_loss(target, mask), options.style_weight * share))
        std = self.backbone.std if options.normalised_pixels else 1.0
        terms.append(Term("tv", "image", TotalVariation(options.tv_form, std), options.tv_weight))
        return terms if coarse else [*terms, *self.more_terms]

    def _layer_weights(self) -> tuple[float, ...]:
        count = len(self.options.style_layers)
        if self.options.style_layer_weights or count == len(FIVE):
            return self.options.style_layer_weights or FIVE
        falling = [count + 1 - i for i in range(count)]
        return tuple(share / sum(falling) for share in falling)

    def _style_loss(self, target: Moments, mask: Tensor | None) -> Loss:
        options = self.options
        if options.style_loss == "gram":
            return GramLoss(target, options.gram_form, mask)
        if options.style_loss == "moments":
            return MomentLoss(target, relative=options.gram_form == "relative", mask=mask)
        if options.style_loss == "wasserstein":
            return WassersteinLoss(target, mask=mask)
        return CovarianceLoss(target, mask)
