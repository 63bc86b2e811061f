"""The run of `impasto stylize`, from the recipe to the written picture."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.commands import terminal
from impasto.commands.arguments import check_target, name_target
from impasto.commands.progress import progress
from impasto.errors import ImpastoError, OptionError
from impasto.files import real_path
from impasto.images.files import WRITABLE, write_image
from impasto.progress import OnStep, Step, Watch, ignore
from impasto.runs import runtime_choice
from impasto.runs.forecast import expected_seconds, forecast, tell
from impasto.runs.painting import PaintJob, note_size, note_weights, outcome, pick_device, prepare, read_inputs
from impasto.runs.record import Recipe, file_stem, interrupted_picture, make_record, sidecar, write_recorded
from impasto.weights.checkpoints import Checkpoint

log = logging.getLogger(__name__)

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
    device = pick_device(device, runtime_choice.named(runtime))
    job = prepare(recipe, read_inputs(recipe), device, runtime_choice.named(runtime))
    runtime_choice.use(job.model, runtime)
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
    with progress(title(job), quiet, also, expected_seconds(job)) as (watch, on_step):
        image = job.paint_bytes(on_step) if job.by_windows else job.paint(on_step)
    written = write(job, image, target, watch, record=record, force=force)
    if job.model.checkpoint is not None and not job.model.interrupted:
        job.model.checkpoint.finish()
    return {**written, **outcome(job, watch)}


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
