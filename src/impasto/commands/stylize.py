"""The run of `impasto stylize`: the recipe from its flags, and the written picture from the recipe."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import typer
from torch import Tensor

from impasto.commands import terminal
from impasto.commands.arguments import check_target, name_target, take_flags
from impasto.commands.terminal import Watch, progress
from impasto.errors import ImpastoError, OptionError
from impasto.files import real_path
from impasto.images.files import WRITABLE, write_image
from impasto.methods import find_method
from impasto.progress import OnStep, Step, ignore
from impasto.runs.painting import PaintJob, note_size, note_weights, outcome, pick_device, prepare, read_inputs
from impasto.runs.record import (
    Recipe,
    check_recipe,
    choose_method,
    file_stem,
    find_painting,
    find_style,
    interrupted_picture,
    make_record,
    read_recipe,
    sidecar,
    write_recorded,
)
from impasto.stylizers.fixed_styles import LearnedStyles
from impasto.weights.checkpoints import Checkpoint

log = logging.getLogger(__name__)


def make_recipe(
    ctx: typer.Context,
    words: list[str],
    recipe: Path | None,
    flags: Mapping[str, Any],
    *,
    runtime: str = "torch",
    vary: Collection[str] | None = None,
    still: bool = True,
) -> Recipe:
    """Return the recipe of a command: its flags over a recorded run over the defaults. Raises ImpastoError.

    If method or preset differ from the recorded ones, the recorded options are dropped. If no method is named, the
    styles decide.

    Args:
        words: CONTENT, STYLEs and the method's flags.
        recipe: picture or JSON file of a recorded run.
        flags: values by the names of a Recipe's fields; ``style``: more styles by name.
        runtime: what runs the networks.
        vary: for a contact sheet: names of the method's options that differ between its cells.
        still: no video.
    """
    given = dict(flags)
    names = given.pop("style", [])
    merged, files = merge_flags(ctx, words, recipe, given)
    if merged.vary and vary is None:
        raise ImpastoError(f"{recipe} records a contact sheet: use it with impasto sweep --recipe {recipe}")
    learned = issubclass(find_method(merged.method), LearnedStyles)
    named = [find_style(name, learned=learned) for name in names]
    paintings = [find_painting(word, learned=learned) for word in files[1:]]
    known = merged.model_dump()
    if files:
        known["content"] = files[0]
    if files[1:] or named:
        known["styles"] = (*paintings, *named)
        if len(known["styles"]) != len(merged.styles) and "style_weights" not in given:
            known["style_weights"] = None
    made = check_recipe(Recipe.parse(known, ctx.command.name or "impasto"))
    if recipe is not None or "method" in given:
        return made
    options = [*made.options, *(vary or ())]
    return choose_method(made, made.styles, options=options, runtime=runtime, still=still)


def merge_flags(
    ctx: typer.Context, words: list[str], recipe: Path | None, flags: Mapping[str, Any]
) -> tuple[Recipe, list[str]]:
    """Return a recipe as `make_recipe` does, and the words that are not flags, unread."""
    base = Recipe.parse({}, "impasto") if recipe is None else read_recipe(recipe)
    method = find_method(flags.get("method", base.method))
    changed = method.name != base.method or flags.get("preset", base.preset) != base.preset
    files, options = take_flags(ctx, words, method.Options, method.name, f"impasto methods {method.name}")
    known = base.model_dump() | {"method": method.name}
    known |= {"options": {}, "preset": "default", "weights": {}, "temporal_weight": None} if changed else {}
    known |= {**flags, "options": {**known["options"], **options}}
    return Recipe.parse(known, ctx.command.name or "impasto"), files


PASSING = ("versions", "device", "runtime", "statistics", "tile")
"""Keys of a run record that describe the machine, not the settings."""


def choose_target(
    recipe: Recipe, output: Path | None, *, force: bool, record: bool, ending: str = "", resume: bool = False
) -> Path:
    """Return the file of the picture, by default CONTENT-STYLE.png here, with a number if that exists.

    resume: a run continues, and replaces its earlier picture. Raises ImpastoError if it can't be written there.
    """
    if recipe.content is None:
        raise ImpastoError("a recipe without a photo makes no picture")
    stem = file_stem(*(path.stem for path in (recipe.content, *recipe.styles)))
    default = Path(f"{stem}{ending}.png")
    if resume and output is None:
        default = interrupted_picture(default) or default
    beside = sidecar if record else lambda path: None
    return name_target(output, default, force=force or resume, suffixes=WRITABLE, beside=beside)


def open_job(recipe: Recipe, device: str, runtime: str = "torch") -> PaintJob:
    """Read the files and load the model; raises ImpastoError."""
    job = prepare(recipe, read_inputs(recipe), pick_device(device, runtime), runtime)
    note_size(recipe, job.model, job.photo_size, job.size)
    note_weights(recipe, job.model)
    return job


def note_seed(job: PaintJob) -> None:
    """Log that the given seed has no effect, if so."""
    if not job.model.uses_seed:
        log.info("%s paints without chance: --seed changes nothing", job.model.name)


def keep_state(job: PaintJob, target: Path, path: Path | None) -> None:
    """Let an optimisation keep its state in `path`, and resume from there; raises ImpastoError."""
    if path is None:
        return
    if job.model.one_pass:
        raise OptionError(f"{job.model.name} paints in one pass: --checkpoint is for methods that optimise, like gatys")
    if len(job.recipe.masks) > 1:
        raise OptionError("--checkpoint keeps one optimisation, but each mask needs another one: leave it out")
    check_target(path, True, (".safetensors",))
    made = make_record(job.recipe, job.model, job.size, target.parent)
    identity = {key: value for key, value in made.items() if key not in PASSING}
    job.model.checkpoint = Checkpoint(path, identity)


def previewer(job: PaintJob, target: Path, path: Path | None, every: int, *, force: bool) -> OnStep:
    """Return the `on_step` that writes the current picture to `path` after every `every` steps."""
    if path is None:
        return ignore
    if real_path(path) == real_path(target):
        raise ImpastoError(f"{path} is where the picture itself goes; give --preview another name")
    check_target(path, force, WRITABLE)

    def show(step: Step) -> None:
        if step.index % every == 0:
            write_image(job.finish(step.image()), path)

    return show


def title(job: PaintJob) -> str:
    """Return a run's description, for the progress."""
    height, width = job.size
    preset = "" if job.model.preset == "default" else f", {job.model.preset}"
    return f"painting {width}x{height} with {job.model.name}{preset}"


def dry_run(job: PaintJob, target: Path, **ignored: Any) -> dict[str, Any]:
    """Report a checked run, for --dry-run; returns what --json prints."""
    from impasto.runs.forecast import forecast, tell

    found = forecast(job)
    estimate = f"; {tell(found)}" if found else ""
    by = "" if job.model.runtime == "torch" else f" by {job.model.runtime}"
    terminal.say(f"dry run: {title(job)} on {job.model.device.type}{by}{estimate}; nothing was written", err=True)
    record = make_record(job.recipe, job.model, job.size, target.parent)
    return {"output": str(target), **record, "forecast": found, "dry_run": True}


def paint_file(
    job: PaintJob, target: Path, *, quiet: bool, record: bool, force: bool, also: OnStep = ignore
) -> dict[str, Any]:
    """Paint and write the picture; after Ctrl-C the best one so far. Returns what --json prints."""
    with progress(title(job), quiet, also, _expected_seconds(job)) as (watch, on_step):
        image = job.paint(on_step)
    written = write(job, image, target, watch, record=record, force=force)
    if job.model.checkpoint is not None and not job.model.interrupted:
        job.model.checkpoint.finish()
    return {**written, **outcome(job, watch.seconds)}


def _expected_seconds(job: PaintJob) -> float | None:
    """Return the seconds of a run that may take long; None if it is short, or too small for an estimate."""
    if job.model.one_pass and not job.large:
        return None
    from impasto.runs.forecast import expected_seconds

    return expected_seconds(job)


def write(job: PaintJob, image: Tensor, target: Path, watch: Watch, *, record: bool, force: bool) -> dict[str, Any]:
    """Write the picture with its record; returns the record and the path."""
    made = make_record(job.recipe, job.model, job.size, target.parent)
    if job.model.interrupted:
        made["interrupted"] = watch.steps
        checkpoint = job.model.checkpoint
        more = "; the same command goes on" if checkpoint is not None and checkpoint.path.exists() else ""
        terminal.say(f"interrupted after {watch.steps} steps: this is the best picture so far{more}", err=True)
    write_recorded(image, target, made if record else None, alpha=job.alpha, overwrite=force)
    return {"output": str(target), **made}
