"""What the commands that paint share: the recipe from flags, the files that it names, the model, the picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from torch import Tensor

from impasto.cli_flags import take_flags
from impasto.color import MATCHING_MODES
from impasto.errors import ImpastoError, OptionError
from impasto.image import open_picture, parse_size, read_painting
from impasto.job import Inputs, Job, load_model, pick_device, prepare, working_size
from impasto.learned import LearnedStyles, named_style
from impasto.masks import check_masks, mask_of
from impasto.run_record import Recipe, find_style, is_bare, read_recipe
from impasto.styles import Style, check_weights, load_style
from impasto.stylizer import Stylizer, find_method

__all__ = [
    "Inputs",
    "Job",
    "check_recipe",
    "load_model",
    "make_recipe",
    "merge_flags",
    "note_size",
    "note_weights",
    "pick_device",
    "prepare",
    "read_inputs",
    "read_masks",
    "read_style",
    "working_size",
]
CARD = ".safetensors"

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
    known |= {"options": {}, "preset": "default", "weights": {}, "temporal_weight": None} if changed else {}
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


def read_inputs(recipe: Recipe) -> Inputs:
    """Read all files that `recipe` names; raises ImpastoError for the first that can't be read."""
    assert recipe.content is not None
    content = open_picture(recipe.content)
    return Inputs(content, tuple(map(read_style, recipe.styles)), read_masks(recipe))


def read_style(path: Path) -> Tensor | Style:
    """A painting, (1, 3, H, W), or a style card, or a style of which the method knows the name; raises ImpastoError."""
    if is_bare(path):
        return named_style(path.name)
    return load_style(path) if path.suffix.lower() == CARD else read_painting(path)


def read_masks(recipe: Recipe) -> tuple[Tensor, ...]:
    """The masks, (1, 1, H, W) each; raises ImpastoError, also if they select nothing."""
    masks = tuple(mask_of(open_picture(path)) for path in recipe.masks)
    check_masks(masks, [path.name for path in recipe.masks])
    return masks


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
