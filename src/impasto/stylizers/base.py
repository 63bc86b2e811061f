"""Stylizer: the one interface of all methods, and how methods are found and loaded by name."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.feedforward.stages import MomentsSource, live_moments
from impasto.feedforward.tiled_run import Tiling
from impasto.images.tensors import LEAST_PAINTING, LEAST_SIDE, check_image, check_mask, fit, mirror_to, resize
from impasto.optimize.losses import Term
from impasto.options import Options as BaseOptions
from impasto.progress import OnStep, ignore
from impasto.stylizers.styles import Style, check_weights, mix
from impasto.weights.checkpoints import Checkpoint

log = logging.getLogger(__name__)


class Stylizer(ABC):
    """One method: `encode_style` a painting once, `transfer` it to many photos.

    Images are float32 (1, 3, H, W), sRGB in [0, 1]. Subclasses name themselves like their module, declare `Options`,
    and need `encode_style` and `transfer`. cut: the tiles of the last picture, None if it was worked on in one piece.
    """

    name: ClassVar[str]
    Options: ClassVar[type[BaseOptions]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    one_pass: ClassVar[bool] = True
    runtime: str = "torch"
    """What runs its networks, one of `impasto.feedforward.runtimes.RUNTIMES`."""

    def __init__(self, options: BaseOptions, *, device: str | torch.device = "cpu", preset: str = "default") -> None:
        self.options = options
        self.device = torch.device(device)
        self.preset = preset
        self.losses: dict[str, float] = {}
        self.interrupted = False
        self.cut: Tiling | None = None
        self.moments_of: MomentsSource = live_moments
        self.checkpoint: Checkpoint | None = None  # where a method that optimises keeps its state
        self.start_from: Tensor | None = None
        """A picture near the result, (1, 3, H, W), for a method that optimises: it then skips the coarse sizes."""
        self.more_terms: tuple[Term, ...] = ()
        """What a method that optimises minimises besides, at the full size: losses on the layer ``image``."""

    @property
    @abstractmethod
    def style_kind(self) -> str:
        """What its styles are made of; a card of another kind is refused."""

    @property
    @abstractmethod
    def digests(self) -> dict[str, str]:
        """SHA-256 of every weights file in use, by name."""

    @abstractmethod
    def encode_style(self, image: Tensor) -> Style:
        """All that this method needs to know of the painting `image`, (1, 3, H, W)."""

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

        strength: 0 leaves the content as it is (or as the method's decoder reproduces it), 1 is the full style. mask:
        (1, 1, H, W) in [0, 1]: the region whose statistics count. seed fixes all that is random.
        """

    def adopt(self, style: Style) -> Style:
        """`style`, or the one of its others that fits, in the form that this method works with.

        Raises OptionError if it was made for something else.
        """
        if style.kind == self.style_kind:
            return style
        for other in style.others:
            with contextlib.suppress(OptionError):
                return self.adopt(other)
        raise OptionError(
            f"this style card holds {' and '.join(style.kinds)}, but {self.name} needs {self.style_kind}: {self.advice}"
        )

    @property
    def advice(self) -> str:
        """What to do instead of naming a style card that does not fit."""
        return f"name the painting itself, or extract it again with `impasto style extract PAINTING -m {self.name}`"

    def use_runtime(self, name: str) -> None:
        """Run the networks by `name`, one of `impasto.feedforward.runtimes.RUNTIMES`; raises OptionError."""
        if name != self.runtime:
            raise OptionError(f"{self.name} is run by torch alone, not by --runtime {name}")

    def working_size(self, height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """The size (height, width) at which a photo of the given size is worked on; size: longer side, or exactly."""
        if isinstance(size, tuple):
            return size
        if size is None and self.one_pass:
            return height, width
        return fit(height, width, size if size is not None else self.default_longer_side)

    @property
    def default_longer_side(self) -> int:
        """The longer side at which an optimisation works if nobody says otherwise."""
        return 512 if self.device.type == "cpu" else 1024

    def stylize(
        self,
        content: Tensor,
        *styles: Tensor | Style,
        weights: Sequence[float] | None = None,
        strength: float = 1.0,
        style_size: int | None = None,
        masks: Sequence[Tensor] = (),
        seed: int = 0,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """Repaint `content` in `styles`, pictures or styles; returns a picture of the content's size.

        weights: one a style. style_size: longer side at which paintings are looked at (None: the content's, never
        enlarged). masks: (1, 1, H, W), white is stylized; one for all styles together, or one a style. Raises
        OptionError.
        """
        check_image(content, "content")
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
        """`stylize` with what it has checked and encoded."""
        if not masks or (len(masks) == 1 and float(masks[0].min()) == 1):  # a white mask is none
            return self.transfer(content, mix(known, weights), strength=strength, seed=seed, on_step=on_step)
        if len(masks) == 1:
            known = [mix(known, weights)]
        if len(masks) != len(known):
            raise OptionError(f"{len(known)} styles need one mask, or {len(known)}, not {len(masks)}")
        return self._by_region(content, known, masks, strength, seed, on_step)

    def encode_styles(self, styles: Sequence[Tensor | Style], longer: int) -> list[Style]:
        """Each of `styles`, pictures or styles, as a style on this device; pictures are seen at that longer side."""
        known = [
            self.adopt(s) if isinstance(s, Style) else self.encode_style(self.fit_style(s, longer)) for s in styles
        ]
        return [self._moved(style) for style in known]

    def _moved(self, style: Style) -> Style:
        """`style` on this device: itself, if it is there."""
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
        """Each style in its region, the content where no mask is white; overlapping masks share."""
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
        """A painting as `encode_style` wants it if its longer side is to be at most `longer`; raises OptionError."""
        check_image(image, "style")
        height, width = fit(image.shape[-2], image.shape[-1], longer)
        least = max(LEAST_PAINTING, self.least_side)
        return mirror_to(resize(image.to(self.device, torch.float32), height, width), least, least)

    @property
    def least_side(self) -> int:
        """The shortest side that its networks can see; smaller pictures are continued by mirroring, and cut after."""
        return LEAST_SIDE
