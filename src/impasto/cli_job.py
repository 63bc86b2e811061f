"""What the commands that paint share: the recipe from flags, the files that it names, the model, the picture."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from impasto.canvas import Bytes, Window
from impasto.cli_flags import take_flags
from impasto.color import MATCHING_MODES, luma, recolor_style, restore_color
from impasto.errors import ImageError, ImpastoError, OptionError
from impasto.image import MAX_PIXELS, Picture, open_picture, parse_size, read_image, resize
from impasto.learned import LearnedStyles, named_style
from impasto.optimize import OnStep, ignore
from impasto.run_record import Recipe, find_style, is_bare, read_recipe
from impasto.styles import Style, check_weights, load_style, mix
from impasto.stylizer import OnePass, Stylizer, find_method, load

CARD = ".safetensors"
MOST_PIXELS = MAX_PIXELS
MOST_FLOATS = 4_000_000

log = logging.getLogger(__name__)


def make_recipe(ctx: typer.Context, words: list[str], recipe: Path | None, flags: Mapping[str, Any]) -> Recipe:
    """The flags, by the names of a Recipe's fields, over those of a recorded run, over the defaults.

    words: CONTENT, STYLEs and the method's own flags. style, in `flags`: further styles by name. With another method or
    preset than the recorded one, the recorded options count no more. Raises ImpastoError.
    """
    given = dict(flags)
    names = given.pop("style", [])
    merged, files = merge_flags(ctx, words, recipe, given)
    learned = issubclass(find_method(merged.method), LearnedStyles)
    named = [find_style(name, learned=learned) for name in names]
    known = merged.model_dump()
    if files:
        known["content"] = files[0]
    if files[1:] or named:
        known["styles"] = (*map(Path, files[1:]), *named)
        if len(known["styles"]) != len(merged.styles) and "style_weights" not in given:
            known["style_weights"] = None
    return check_recipe(Recipe.parse(known, ctx.command.name or "impasto"))


def merge_flags(
    ctx: typer.Context, words: list[str], recipe: Path | None, flags: Mapping[str, Any]
) -> tuple[Recipe, list[str]]:
    """As `make_recipe`, but the words that are no flags are not looked at: they come second."""
    base = Recipe.parse({}, "impasto") if recipe is None else read_recipe(recipe)
    method = find_method(flags.get("method", base.method))
    changed = method.name != base.method or flags.get("preset", base.preset) != base.preset
    files, options = take_flags(ctx, words, method.Options, method.name, f"impasto methods {method.name}")
    known = base.model_dump() | {"method": method.name}
    known |= {"options": {}, "preset": "default", "weights": {}} if changed else {}
    known |= {**flags, "options": {**known["options"], **options}}
    return Recipe.parse(known, ctx.command.name or "impasto"), files


def check_recipe(recipe: Recipe) -> Recipe:
    """Refuse what can be seen to be wrong before any file is read."""
    if recipe.content is None:
        raise ImpastoError("name a photo and a painting: impasto stylize photo.jpg painting.jpg")
    if not recipe.styles:
        raise ImpastoError("name a painting, a style card, or --style NAME, one of those that `impasto styles` lists")
    check_weights(recipe.style_weights, len(recipe.styles))
    if len(recipe.masks) not in (0, 1, len(recipe.styles)):
        count = len(recipe.styles)
        raise OptionError(f"{count} styles need one mask, or {count}, not {len(recipe.masks)}")
    cards = [path for path in recipe.styles if path.suffix.lower() == CARD]
    if cards and recipe.keep_color in MATCHING_MODES:
        raise OptionError(
            f"--keep-color {recipe.keep_color} recolours the painting, which {cards[0].name} does not hold: "
            "use luminance or lab"
        )
    return recipe


@dataclass(frozen=True)
class Inputs:
    """The files of a recipe, read: the photo, paintings and styles, masks (1, 1, H, W)."""

    content: Picture
    styles: tuple[Tensor | Style, ...]
    masks: tuple[Tensor, ...]


def read_inputs(recipe: Recipe) -> Inputs:
    """Read all files that `recipe` names; raises ImpastoError for the first that can't be read."""
    assert recipe.content is not None
    content = open_picture(recipe.content)
    return Inputs(content, tuple(map(read_style, recipe.styles)), read_masks(recipe))


def read_style(path: Path) -> Tensor | Style:
    """A painting, (1, 3, H, W), or a style card, or a style of which the method knows the name; raises ImpastoError."""
    if is_bare(path):
        return named_style(path.name)
    return load_style(path) if path.suffix.lower() == CARD else read_image(path)


def read_masks(recipe: Recipe) -> tuple[Tensor, ...]:
    """The masks, (1, 1, H, W) each; raises ImpastoError."""
    return tuple(luma(read_image(path)) for path in recipe.masks)


def pick_device(name: str) -> str:
    """The device called `name`; ``auto`` is the fastest there is. Raises OptionError if there is no such device."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there.insert(0, "cuda")
    if name == "auto":
        return there[0]
    if name not in there:
        raise OptionError(f"--device {name} is not there; there are: auto, {', '.join(there)}")
    return name


@dataclass(frozen=True)
class Job:
    """A recipe ready to run: its model, the working size, (height, width), what was read."""

    recipe: Recipe
    model: Stylizer
    size: tuple[int, int]
    inputs: Inputs

    @functools.cached_property
    def content(self) -> Tensor:
        """The photo at the working size, (1, 3, H, W)."""
        return resize(self.inputs.content.color, *self.size)

    @property
    def by_windows(self) -> bool:
        """Whether the photo is so large that it is worked on without ever being held as floats."""
        stored = self.inputs.content
        as_is = stored.size == self.size and stored.stored.dtype == torch.uint8 and not self.inputs.masks
        return as_is and isinstance(self.model, OnePass) and math.prod(self.size) > MOST_FLOATS

    @property
    def photo_size(self) -> tuple[int, int]:
        """The photo's own size, (height, width)."""
        return self.inputs.content.size

    @property
    def alpha(self) -> Tensor | None:
        """The photo's transparency at the working size."""
        alpha = self.inputs.content.alpha
        return None if alpha is None else resize(alpha, *self.size)

    def finish(self, image: Tensor) -> Tensor:
        """A picture as the method made it, with the photo's colours if they are to be kept."""
        return restore_color(image.detach().cpu(), self.content, self.recipe.keep_color)

    def paint(self, on_step: OnStep = ignore) -> Tensor:
        """Do the work; returns (1, 3, H, W)."""
        recipe = self.recipe
        styles = self._styles()
        image = self.model.stylize(
            self.content,
            *styles,
            weights=recipe.style_weights,
            strength=recipe.strength,
            style_size=recipe.style_size,
            masks=self.inputs.masks,
            seed=recipe.seed,
            on_step=on_step,
        )
        return self.finish(image)

    def paint_bytes(self, on_step: OnStep = ignore) -> Tensor:
        """As `paint`, window by window; returns (H, W, 3) uint8."""
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


def load_model(recipe: Recipe, device: str) -> Stylizer:
    """The recipe's method with its options; raises ImpastoError."""
    return load(recipe.method, preset=recipe.preset, device=device, **recipe.options)


def prepare(recipe: Recipe, inputs: Inputs, device: str) -> Job:
    """Load the model, check the styles against it and fit the photo; raises ImpastoError."""
    model = load_model(recipe, device)
    for style in inputs.styles:
        if isinstance(style, Style):
            model.adopt(style)
    return Job(recipe, model, working_size(model, *inputs.content.size, recipe.size), inputs)


def working_size(model: Stylizer, height: int, width: int, size: str | None) -> tuple[int, int]:
    """The size (height, width) at which a photo of height x width is worked on; raises ImageError if too large."""
    found = model.working_size(height, width, None if size is None else parse_size(size))
    if math.prod(found) > MOST_PIXELS:
        most = f"{MOST_PIXELS // 1_000_000} megapixels"
        raise ImageError(f"{found[1]}x{found[0]} is more than {most}; give a smaller --size")
    return found


def note_weights(recipe: Recipe, model: Stylizer) -> None:
    """Warn if the recorded run used other weights."""
    for name, digest in model.digests.items():
        if recipe.weights.get(name, digest) != digest:
            log.warning("the recorded run used other weights of %s: the picture will differ", name)


def note_size(recipe: Recipe, model: Stylizer, photo: tuple[int, int], work: tuple[int, int]) -> None:
    """Tell of a working size, (height, width), that may surprise, and of how to get another one."""
    (height, width), longer, done = photo, max(photo), max(work)
    wanted = None if recipe.size is None else parse_size(recipe.size)
    if wanted is None and not model.one_pass and done < longer:
        size = f"{work[1]}x{work[0]}"
        log.info("working at %s of the photo's %dx%d; --size %d gives more", size, width, height, min(2 * done, longer))
    elif isinstance(wanted, int) and wanted > max(longer, done):
        larger = f"{round(width * wanted / longer)}x{round(height * wanted / longer)}"
        log.info("the photo has only %dx%d; --size %s enlarges it, --size %d does not", width, height, larger, wanted)
