"""Stylizer: the one interface of all methods, and how methods are found and loaded by name."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import logging
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from impasto import methods as methods_package
from impasto.checkpoints import Checkpoint
from impasto.errors import OptionError
from impasto.image import fit, resize
from impasto.inputs import check_image, check_mask
from impasto.losses import Term
from impasto.optimize import OnStep, ignore
from impasto.options import Options as BaseOptions
from impasto.stages import MomentsSource, live_moments
from impasto.styles import Style, check_weights, mix
from impasto.tiling import Tiling

DEFAULT_METHOD = "swift"
LEAST_SIDE = 16

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
    """What runs its networks, one of `impasto.runtimes.RUNTIMES`."""

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

    @staticmethod
    def from_pretrained(
        source: str | Path, *, revision: str | None = None, device: str | torch.device = "cpu", **options: Any
    ) -> Stylizer:
        """The model in a folder or in the Hub's repository ``owner/name``: see `pretrained.from_pretrained`."""
        from impasto import pretrained

        return pretrained.from_pretrained(source, revision=revision, device=device, **options)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write options, weights and a model card into `folder`: see `pretrained.save_pretrained`."""
        from impasto import pretrained

        return pretrained.save_pretrained(self, folder)

    def push_to_hub(self, repository: str, *, private: bool = False) -> str:
        """Upload the model to the Hub's repository ``owner/name``: see `pretrained.push_to_hub`."""
        from impasto import pretrained

        return pretrained.push_to_hub(self, repository, private=private)

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
        """Let its networks be run by `name`, one of `impasto.runtimes.RUNTIMES`, from now on; raises OptionError."""
        if name != self.runtime:
            raise OptionError(f"{self.name} is run by torch alone, not by --runtime {name}")

    def working_size(self, height: int, width: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """The size (height, width) at which a photo of the given size is worked on; size: longer side, or exactly."""
        if isinstance(size, tuple):
            return size
        if size is None and self.one_pass:
            return max(height, LEAST_SIDE), max(width, LEAST_SIDE)
        longer = size if size is not None else self.default_longer_side
        height, width = fit(height, width, longer)
        return max(height, LEAST_SIDE), max(width, LEAST_SIDE)

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
        content = content.to(self.device, torch.float32)
        known = self.encode_styles(styles, style_size or max(content.shape[-2:]))
        if not masks or (len(masks) == 1 and float(masks[0].min()) == 1):  # a white mask is none
            return self.transfer(content, mix(known, weights), strength=strength, seed=seed, on_step=on_step)
        if len(masks) == 1:
            known = [mix(known, weights)]
        if len(masks) != len(known):
            raise OptionError(f"{len(known)} styles need one mask, or {len(known)}, not {len(masks)}")
        fitted = [resize(mask.to(content).clamp(0, 1), *content.shape[-2:]) for mask in masks]
        return self._by_region(content, known, fitted, strength, seed, on_step)

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
        return resize(image.to(self.device, torch.float32), max(height, LEAST_SIDE), max(width, LEAST_SIDE))


def list_methods() -> list[str]:
    """The names of all methods: a module in `impasto.methods` is a method."""
    return sorted(module.name for module in pkgutil.iter_modules(methods_package.__path__))


def find_method(name: str | None = None) -> type[Stylizer]:
    """The class of the method called `name` (None: the default one); raises OptionError."""
    name = name or DEFAULT_METHOD
    if name not in list_methods():
        raise OptionError(f"there is no method {name!r}; there are: {', '.join(list_methods())}")
    module = importlib.import_module(f"impasto.methods.{name}")
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Stylizer) and found.__module__ == module.__name__:
            return found
    raise OptionError(f"impasto/methods/{name}.py defines no Stylizer")


def load(
    method: str | None = None,
    *,
    preset: str = "default",
    device: str | torch.device = "cpu",
    runtime: str = "torch",
    **options: Any,
) -> Stylizer:
    """The method called `method` (None: the default one), ready to use.

    preset: one of the method's named recipes; runtime: what runs its networks, one of `impasto.runtimes.RUNTIMES`;
    options: its own options, on top of the preset's. Raises OptionError for an unknown or out-of-range value,
    WeightsError if its weights can't be had.
    """
    found = find_method(method)
    if preset not in found.presets:
        raise OptionError(f"{found.name} has no preset {preset!r}; it has: {', '.join(found.presets)}")
    values = {**found.presets[preset], **options}
    model = found(found.Options.parse(values, found.name), device=device, preset=preset)
    model.use_runtime(runtime)
    return model
