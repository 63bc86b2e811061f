"""Stylizer: the interface of all methods."""

from __future__ import annotations

import contextlib
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Unpack, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.errors import OptionError, draw_again, is_out_of_memory, other_kind, whole_network, wrong_masks
from impasto.feedforward.stages import MomentsSource, live_moments
from impasto.feedforward.tiled_run import Tiling
from impasto.images.color import MATCHING_MODES, recolor_style, restore_color
from impasto.images.exchange import AnyPicture, Image, Location, take_painting, take_photo
from impasto.images.tensors import LEAST_PAINTING, LEAST_SIDE, check_image, check_mask, fit, mirror_to, resize
from impasto.networks.backbone import Backbone
from impasto.optimize.descent import Scale
from impasto.optimize.losses import Term
from impasto.options import Options as BaseOptions
from impasto.options import check_weights
from impasto.progress import OnStep, ignore
from impasto.stylizers.arguments import AnySize, AnyStyle, HowToPaint, take_masks, take_size, take_style
from impasto.stylizers.card_check import find_misfit, sample_paintings
from impasto.stylizers.styles import NETWORK, Style, mix
from impasto.weights.checkpoints import Checkpoint

THIS_CARD = "this style card"

log = logging.getLogger(__name__)


class Stylizer(ABC):
    """One method: `encode_style` a painting once, `transfer` it to many photos.

    Images are float32 (1, 3, H, W), sRGB in [0, 1]. Subclasses are named like their module, declare `Options`, and need
    `encode_style` and `transfer`. cut: the tiles of the last picture, None if it was painted in one piece.
    """

    name: ClassVar[str]
    Options: ClassVar[type[BaseOptions]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    one_pass: ClassVar[bool] = True
    runtime: str = "torch"
    """Runtime of its networks, one of `impasto.feedforward.runtimes.RUNTIMES`."""

    def __init__(self, options: BaseOptions, *, device: str | torch.device = "cpu", preset: str = "default") -> None:
        self.options = options
        self.device = torch.device(device)
        self.preset = preset
        self.losses: dict[str, float] = {}
        self.interrupted = False
        self.cut: Tiling | None = None
        self.moments_of: MomentsSource = live_moments
        self.checkpoint: Checkpoint | None = None  # where an optimisation keeps its state
        self.start_from: Tensor | None = None
        """For methods that optimise: a picture near the result, (1, 3, H, W); the coarse sizes are then skipped."""
        self.more_terms: tuple[Term, ...] = ()
        """For methods that optimise: further losses on the layer ``image``, at the full size."""

    def __repr__(self) -> str:
        """Return class, device, preset, and options that differ from the preset and were not chosen automatically."""
        usual = self.Options.parse(dict(self.presets.get(self.preset, {})), self.name)
        chosen = {name for name, value in usual if value in ("auto", "", (), None)}
        given = {n: value for n, value in self.options if n not in chosen and value != getattr(usual, n, None)}
        about = {"device": str(self.device), "preset": self.preset, **given}
        return f"<{type(self).__name__} {', '.join(f'{name}={value!r}' for name, value in about.items())}>"

    def scales(self, height: int, width: int) -> Sequence[Scale]:
        """Return the sizes of an optimisation, in their order; none for one pass."""
        return ()

    @property
    def loss_layers(self) -> tuple[Backbone, frozenset[str]] | None:
        """The network and the layers over which an optimisation's loss is computed; None for one pass."""
        return None

    @property
    def uses_seed(self) -> bool:
        """Whether the result depends on the seed."""
        return not self.one_pass

    @property
    @abstractmethod
    def style_kind(self) -> str:
        """Kind of its styles; a card of another kind is refused."""

    @property
    @abstractmethod
    def digests(self) -> dict[str, str]:
        """SHA-256 of every weights file in use, by name."""

    @abstractmethod
    def encode_style(self, image: Any) -> Style:
        """Return what this method needs to know of the painting `image`, in any form that `stylize` takes."""

    @abstractmethod
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
        """Repaint `content`, (1, 3, H, W), in `style`; returns a picture of the same size in [0, 1].

        strength: 0 leaves the content unchanged (or as the method's decoder reproduces it), 1 is the full style. mask:
        (1, 1, H, W) in [0, 1]: the region whose statistics are used. seed: fixes all random numbers.
        """

    def accept_style(self, style: Style) -> Style:
        """Return `style`, or another of its forms that fits, in the form that this method uses.

        Raises OptionError if it was made for something else.
        """
        if style.kind == self.style_kind:
            return style
        for other in style.others:
            with contextlib.suppress(OptionError):
                return self.accept_style(other)
        if style.kind.startswith(NETWORK) and not self.style_kind.startswith(NETWORK):
            raise OptionError(whole_network(THIS_CARD))
        there, needed = _shorten_kinds(style.kinds, self.style_kind)
        raise OptionError(other_kind(THIS_CARD, there, self.name, needed, self.advice))

    def take(self, style: Style) -> Style:
        """Return the style as `accept_style` does; raises OptionError if one from a file does not fit."""
        if not style.foreign:
            return self.accept_style(style)
        try:
            found = self.accept_style(style)
            examples = self.examples_of(found)
            misfit = find_misfit(found, examples, self.read_card) if examples else None
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise OptionError(f"this style card does not fit {self.name}: {self.advice}") from None
        if misfit is not None:
            raise OptionError(f"this style card does not fit {self.name} ({misfit[:80]}): {self.advice}")
        return found

    def read_card(self, style: Style) -> Mapping[str, Tensor]:
        """Return the content of a card of this method's kind, in the form in which the method encodes a painting."""
        return style

    @functools.cached_property
    def examples(self) -> tuple[Style, ...]:
        """Styles of small paintings, to which a card is compared; none if there is nothing to compare."""
        with torch.no_grad():
            return tuple(self.encode_style(painting.to(self.device)) for painting in sample_paintings())

    def examples_of(self, style: Style) -> tuple[Style, ...]:
        """Return the styles to which a card is compared, for its accepted style."""
        return self.examples

    @property
    def advice(self) -> str:
        """What to do instead of naming a style card that does not fit."""
        return draw_again(self.name)

    def use_runtime(self, name: str) -> None:
        """Run the networks by `name`, one of `impasto.feedforward.runtimes.RUNTIMES`; raises OptionError."""
        if name != self.runtime:
            raise OptionError(f"{self.name} is run by torch alone, not by --runtime {name}")

    def working_size(self, height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """Return the working size, (height, width), of a photo of this size; size: longer side, or exact."""
        if isinstance(size, tuple):
            return size
        if size is None and self.one_pass:
            return height, width
        return fit(height, width, size if size is not None else self.default_longer_side)

    @property
    def default_longer_side(self) -> int:
        """Default longer side of an optimisation."""
        return 512 if self.device.type == "cpu" else 1024

    @overload
    def stylize(self, content: Tensor, *styles: AnyStyle, **how: Unpack[HowToPaint]) -> Tensor: ...
    @overload
    def stylize(self, content: NDArray[Any], *styles: AnyStyle, **how: Unpack[HowToPaint]) -> NDArray[Any]: ...
    @overload
    def stylize(self, content: Image | Location, *styles: AnyStyle, **how: Unpack[HowToPaint]) -> Image: ...

    def stylize(
        self,
        content: AnyPicture,
        *styles: AnyStyle,
        weights: Sequence[float] | None = None,
        strength: float = 1.0,
        size: AnySize | None = None,
        keep_color: str = "off",
        style_size: int | None = None,
        masks: Sequence[AnyPicture] | AnyPicture = (),
        seed: int = 0,
        on_step: OnStep = ignore,
    ) -> Tensor | NDArray[Any] | Image:
        """Repaint `content` in one style, or in a mixture of several.

        Pictures are paths, Pillow images, arrays (H, W, 3 or 4) of uint8, uint16 or floats in [0, 1], or float tensors
        (1, 3, H, W) in [0, 1]. The result is a tensor for a tensor, an array of the same dtype for an array, and a
        Pillow image for an image or a path. A photo's transparency is kept.

        Args:
            content: the photo.
            styles: paintings, `Style` objects, style cards, or names of built-in styles.
            weights: the share of each style; None: all equal.
            strength: how much of the style, 0 to 1.
            size: the result's longer side, "1024x768" or (height, width); None: the photo's own size.
            keep_color: how the photo's colours are kept; one of `impasto.images.color.COLOR_MODES`.
            style_size: longer side to which paintings are shrunk; None: the photo's, never enlarged.
            masks: white is repainted. One for all styles together, or one for each.
            seed: the same seed gives the same picture.
            on_step: called after each step with a `Step`; raising KeyboardInterrupt in it ends an optimisation early.

        Raises:
            ImpastoError: if a picture can't be read or a value does not fit.
        """
        photo = take_photo(content)
        check_image(photo.color, "content")
        wanted = take_size(size)
        if wanted is not None:
            photo = photo.resized(*self.working_size(*photo.size, wanted))
        known = [take_style(style, i, self.style_names) for i, style in enumerate(styles, 1)]
        color = photo.color.to(self.device, torch.float32)
        if keep_color in MATCHING_MODES and any(isinstance(style, Style) for style in known):
            raise OptionError(f"keep_color {keep_color!r} recolours the painting, so give a picture, not a style")
        known = [s if isinstance(s, Style) else recolor_style(s, color, keep_color) for s in known]
        image = self.paint_tensor(color, known, weights, strength, style_size, take_masks(masks), seed, on_step)
        result: Tensor | NDArray[Any] | Image = photo.give_back(restore_color(image, color, keep_color), photo.alpha)
        return result

    @property
    def style_names(self) -> Sequence[str]:
        """Names of styles that only this method knows."""
        return ()

    def paint_tensor(
        self,
        content: Tensor,
        styles: Sequence[Tensor | Style],
        weights: Sequence[float] | None,
        strength: float,
        style_size: int | None,
        masks: Sequence[Tensor],
        seed: int,
        on_step: OnStep,
    ) -> Tensor:
        """Do the work of `stylize` with this device's tensors: photo (1, 3, H, W), masks (1, 1, H', W')."""
        if not 0 <= strength <= 1:
            raise OptionError(f"strength is from 0 to 1, not {strength:g}")
        check_weights(weights, len(styles))
        for mask in masks:
            check_mask(mask)
        self.interrupted = False
        if strength == 0:
            return content.to(self.device, torch.float32).clamp(0, 1)
        height, width = content.shape[-2:]
        content = mirror_to(content.to(self.device, torch.float32), self.least_side, self.least_side)
        if (
            len(masks) == 1 and float(masks[0].min()) >= 1
        ):  # a white mask is no mask; resized, it would be only nearly white
            masks = ()
        fitted = [resize(mask.to(content).clamp(0, 1), height, width) for mask in masks]
        fitted = [mirror_to(mask, self.least_side, self.least_side) for mask in fitted]
        known = self.encode_styles(styles, style_size or max(height, width))
        return self._paint_regions(content, known, weights, strength, fitted, seed, on_step)[..., :height, :width]

    def _paint_regions(
        self,
        content: Tensor,
        known: list[Style],
        weights: Sequence[float] | None,
        strength: float,
        masks: Sequence[Tensor],
        seed: int,
        on_step: OnStep,
    ) -> Tensor:
        """Do the work of `stylize` with checked arguments and encoded styles."""
        if not masks:
            return self.transfer(content, mix(known, weights), strength=strength, seed=seed, on_step=on_step)
        if len(masks) == 1:
            known = [mix(known, weights)]
        if len(masks) != len(known):
            raise OptionError(wrong_masks(len(known), len(masks)))
        return self._by_region(content, known, masks, strength, seed, on_step)

    def encode_styles(self, styles: Sequence[Tensor | Style], longer: int) -> list[Style]:
        """Return each of `styles`, pictures or styles, as a style on this device; pictures are resized to `longer`."""
        known = [self.take(s) if isinstance(s, Style) else self.encode_style(self.fit_style(s, longer)) for s in styles]
        return [self._moved(style) for style in known]

    def _moved(self, style: Style) -> Style:
        """Return `style` on this device: itself, if it is there already."""
        values = {name: value.to(self.device) for name, value in style.items()}
        there = all(values[name] is value for name, value in style.items())
        return style if there else Style(values, style.kind, style.info)

    def _by_region(
        self,
        content: Tensor,
        styles: Sequence[Style],
        masks: Sequence[Tensor],
        strength: float,
        seed: int,
        on_step: OnStep,
    ) -> Tensor:
        """Paint each style in its region, the content where no mask is white; overlapping masks share."""
        covered = torch.stack(list(masks)).sum(0).clamp_min(1)
        result, left = torch.zeros_like(content), torch.ones_like(masks[0])
        self.interrupted = False
        for style, mask in zip(styles, masks, strict=True):
            if self.interrupted or float(mask.max()) == 0:
                continue
            painted = self.transfer(content, style, strength=strength, mask=mask, seed=seed, on_step=on_step)
            share = mask / covered
            result, left = result + share * painted, left - share
        return (result + left.clamp_min(0) * content).clamp(0, 1)

    def fit_style(self, image: Tensor, longer: int) -> Tensor:
        """Return a painting for `encode_style`, with a longer side of at most `longer`; raises OptionError."""
        check_image(image, "style")
        height, width = fit(image.shape[-2], image.shape[-1], longer)
        return resize(image.to(self.device, torch.float32), height, width)

    def open_painting(self, image: AnyPicture, scale: float = 1.0) -> Tensor:
        """Return a painting in any form as a checked (1, 3, H, W), at `scale` times its size, for the networks.

        If it is smaller than the networks need, it is extended by mirroring. Raises OptionError or ImageError.
        """
        painting = image if isinstance(image, Tensor) else take_painting(image, "the painting")
        painting = painting[None] if painting.dim() == 3 else painting
        check_image(painting, "painting")
        if scale != 1:
            height, width = (max(1, round(side * scale)) for side in painting.shape[-2:])
            painting = resize(painting, height, width)
        least = max(LEAST_PAINTING, self.least_side)
        return mirror_to(painting, least, least)

    @property
    def least_side(self) -> int:
        """The shortest side that its networks accept; smaller pictures are extended by mirroring and cut afterwards."""
        return LEAST_SIDE


def _shorten_kinds(kinds: Iterable[str], needed: str) -> tuple[list[str], str]:
    """Return what a card holds and what is needed, for a message: in short, unless they differ in the rest."""
    heads = list(dict.fromkeys(kind.split("/")[0] for kind in kinds))
    if needed.split("/")[0] in heads:
        return list(kinds), needed
    return heads, needed.split("/")[0]
