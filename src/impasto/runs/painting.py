"""One picture to paint: a recipe, its files as tensors, its model, size and device."""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.errors import ImageError, OptionError, nearest
from impasto.feedforward.runtimes import AUTO
from impasto.images.color import MATCHING_MODES, recolor_style, restore_color
from impasto.images.exchange import check_masks, mask_of
from impasto.images.files import Picture, open_picture, read_painting
from impasto.images.tensors import Bytes, Canvas, Floats, Window, fit, resize
from impasto.methods import load
from impasto.ops.machine import keep_freed_memory
from impasto.options import MAX_PIXELS, parse_size, too_many_pixels
from impasto.progress import OnStep, ignore
from impasto.runs.record import Recipe, is_bare
from impasto.stylizers.base import Stylizer
from impasto.stylizers.one_pass import OnePass
from impasto.stylizers.styles import CARD, Style, load_style, mix, named_style

log = logging.getLogger(__name__)

MOST_FLOATS = 4_000_000


@dataclass(frozen=True)
class Inputs:
    """The files of a recipe, read: the photo, paintings and styles, masks (1, 1, H, W)."""

    content: Picture
    styles: tuple[Tensor | Style, ...]
    masks: tuple[Tensor, ...]


def pick_device(name: str, runtime: str = "torch") -> str:
    """Return the device called `name`; ``auto``: the fastest one for `runtime`. Raises OptionError if there is none."""
    if name == AUTO and runtime not in ("torch", AUTO):
        return "cpu"
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if name == AUTO:
        return there[0]
    if name not in there:
        known = ("auto", "cpu", "cuda", "mps")
        near = "" if name in known else nearest(name, known)
        raise OptionError(f"--device {name}{near} is not there; there are: auto, {', '.join(there)}")
    return name


@dataclass(frozen=True)
class PaintJob:
    """A recipe ready to run: its model, its working size, (height, width), and its files."""

    recipe: Recipe
    model: Stylizer
    size: tuple[int, int]
    inputs: Inputs

    @functools.cached_property
    def _sized(self) -> Picture:
        return self.inputs.content.resized(*self.size)

    @functools.cached_property
    def content(self) -> Tensor:
        """The photo at the working size, (1, 3, H, W)."""
        return self._sized.color

    @property
    def large(self) -> bool:
        """Whether the photo would take much memory as floats."""
        return math.prod(self.size) > MOST_FLOATS

    @property
    def by_windows(self) -> bool:
        """Whether the photo is painted window by window, because it is too large to be held as floats."""
        stored = self.inputs.content
        as_is = stored.size == self.size and stored.stored.dtype == torch.uint8 and not self.inputs.masks
        return as_is and isinstance(self.model, OnePass) and self.large

    @property
    def canvas(self) -> Canvas:
        """The photo at the working size, as it is painted."""
        return Bytes(self.inputs.content.stored) if self.by_windows else Floats(self.content)

    @property
    def photo_size(self) -> tuple[int, int]:
        """The photo's own size, (height, width)."""
        return self.inputs.content.size

    @property
    def alpha(self) -> Tensor | None:
        """The photo's transparency at the working size."""
        return None if self.inputs.content.alpha is None else self._sized.alpha

    def finish(self, image: Tensor) -> Tensor:
        """Return the method's result, with the photo's colours if they are kept."""
        image, mode = image.detach().cpu(), self.recipe.keep_color
        return image if mode == "off" else restore_color(image, self.content, mode)

    def paint(self, on_step: OnStep = ignore) -> Tensor:
        """Paint; returns (1, 3, H, W) in [0, 1], or (H, W, 3) uint8 of a photo that is too large for floats."""
        return self.paint_bytes(on_step) if self.by_windows else self.paint_floats(on_step)

    def paint_floats(self, on_step: OnStep = ignore) -> Tensor:
        """Paint; returns (1, 3, H, W) in [0, 1]."""
        keep_freed_memory()
        recipe = self.recipe
        styles = self._styles()
        image = self.model.paint_tensor(
            self.content,
            styles,
            recipe.style_weights,
            recipe.strength,
            recipe.style_size,
            self.inputs.masks,
            recipe.seed,
            on_step,
        )
        return self.finish(image)

    def paint_bytes(self, on_step: OnStep = ignore) -> Tensor:
        """Paint the same window by window; returns (H, W, 3) uint8."""
        keep_freed_memory()
        recipe, content = self.recipe, Bytes(self.inputs.content.stored)

        def finish(image: Tensor, window: Window) -> Tensor:
            return restore_color(image, content.read(window), recipe.keep_color)

        target = Bytes(torch.empty_like(content.pixels), finish)
        assert isinstance(self.model, OnePass)
        known = self.model.encode_styles(self._styles(), recipe.style_size or max(self.size))
        style = mix(known, recipe.style_weights)
        self.model.paint(content, target, style, strength=recipe.strength, on_step=on_step)
        return target.pixels

    def _styles(self) -> list[Tensor | Style]:
        mode = self.recipe.keep_color
        if mode not in MATCHING_MODES:
            return list(self.inputs.styles)
        return [s if isinstance(s, Style) else recolor_style(s, self.content, mode) for s in self.inputs.styles]


def load_model(recipe: Recipe, device: str, runtime: str = "torch") -> Stylizer:
    """Return the recipe's method with its options, run by `runtime`; raises ImpastoError.

    runtime: ``auto`` is the fastest one that `impasto doctor` has measured here.
    """
    named = "torch" if runtime == AUTO else runtime
    model = load(recipe.method, preset=recipe.preset, device=device, runtime=named, **recipe.options)
    if runtime == AUTO:
        from impasto.runs.runtime_choice import use_quickest

        use_quickest(model)
    return model


def prepare(recipe: Recipe, inputs: Inputs, device: str, runtime: str = "torch") -> PaintJob:
    """Load the model, check the styles against it and fit the photo; raises ImpastoError."""
    model = load_model(recipe, device, runtime)
    for style in inputs.styles:
        if isinstance(style, Style):
            model.take(style)
    return PaintJob(recipe, model, working_size(model, *inputs.content.size, recipe.size), inputs)


def working_size(model: Stylizer, height: int, width: int, size: str | None) -> tuple[int, int]:
    """Return the working size, (height, width), of a photo of height x width; raises ImageError if too large."""
    found = model.working_size(height, width, None if size is None else parse_size(size))
    if math.prod(found) > MAX_PIXELS:
        raise ImageError(too_many_pixels(*found))
    return found


def fit_painting(model: Stylizer, image: Tensor, longer: int | None) -> Tensor:
    """Return the painting at the method's default size for paintings, or with this longer side; never enlarged."""
    height, width = image.shape[-2:]
    if longer is None:
        longer = max(height, width) if model.one_pass else model.default_longer_side
    height, width = fit(height, width, longer)
    return resize(image, height, width)


def read_inputs(recipe: Recipe) -> Inputs:
    """Read all files that `recipe` names; raises ImpastoError for the first that can't be read."""
    assert recipe.content is not None
    content = open_picture(recipe.content)
    return Inputs(content, tuple(map(read_style, recipe.styles)), read_masks(recipe))


def read_style(path: Path) -> Tensor | Style:
    """Return a painting, (1, 3, H, W), a style card, or a named style that the method knows; raises ImpastoError."""
    if is_bare(path):
        return named_style(path.name)
    return load_style(path) if path.suffix.lower() == CARD else read_painting(path)


def read_masks(recipe: Recipe) -> tuple[Tensor, ...]:
    """Return the masks, (1, 1, H, W) each; raises ImpastoError, also if they select nothing."""
    if not recipe.masks:
        return ()
    masks = tuple(mask_of(open_picture(path)) for path in recipe.masks)
    check_masks(masks, [path.name for path in recipe.masks])
    return masks


def note_weights(recipe: Recipe, model: Stylizer) -> None:
    """Warn if the recorded run used other weights."""
    for name, digest in model.digests.items():
        if recipe.weights.get(name, digest) != digest:
            log.warning("the recorded run used other weights of %s: the picture will differ", name)


def note_size(recipe: Recipe, model: Stylizer, photo: tuple[int, int], work: tuple[int, int]) -> None:
    """Log a working size, (height, width), that may surprise, and how to get another one."""
    (height, width), longer, done = photo, max(photo), max(work)
    wanted = None if recipe.size is None else parse_size(recipe.size)
    if wanted is None and not model.one_pass and done < longer:
        size = f"{work[1]}x{work[0]}"
        log.info("working at %s of the photo's %dx%d; --size %d gives more", size, width, height, min(2 * done, longer))
    elif isinstance(wanted, int) and wanted > max(longer, done):
        larger = f"{round(width * wanted / longer)}x{round(height * wanted / longer)}"
        log.info("the photo has only %dx%d; --size %s enlarges it, --size %d does not", width, height, larger, wanted)


def outcome(job: PaintJob, seconds: float) -> dict[str, Any]:
    """Return the results of a run that took so many seconds."""
    return {
        "seconds": round(seconds, 3),
        "losses": job.model.losses,
        "interrupted": job.model.interrupted,
    }
