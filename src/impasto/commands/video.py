"""The work of `impasto video`: paints frames into a folder, then encodes the video from them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import typer
from torch import Tensor

from impasto.batch.painter import Painter
from impasto.commands import terminal
from impasto.commands.arguments import check_target, name_target
from impasto.commands.terminal import PAUSE, Count, count
from impasto.commands.video_memory import find_fitting, limit_memory
from impasto.commands.video_report import measure, paint_strip
from impasto.errors import ImpastoError, OptionError, flickers, to_json
from impasto.files import real_path, write_atomically
from impasto.images.color import MATCHING_MODES
from impasto.images.files import WRITABLE, Picture, open_picture, read_image, write_image
from impasto.images.flow import estimate_flow, has_flow
from impasto.images.tensors import resize
from impasto.images.video import (
    ENCODERS,
    Frame,
    Survey,
    default_ending,
    probe_video,
    read_frames,
    survey_video,
    write_video,
)
from impasto.images.video import check_target as check_video
from impasto.methods import find_method
from impasto.ops.machine import name_bytes
from impasto.progress import Step
from impasto.runs import record as record_module
from impasto.runs.painting import pick_device
from impasto.runs.record import Recipe, make_record, sidecar
from impasto.stylizers.video_coherence import Coherence
from impasto.weights import load_weights, save_weights

if TYPE_CHECKING:
    from impasto.networks.raft_flow import Raft

SMOOTH, FLOW, TEMPORAL = 0.9, 0.22, 40.0
STATE, IDENTITY = "state.safetensors", "run.json"
MOST_BYTES_A_PIXEL = 2.5
"""Bytes per pixel of a stored frame: a PNG with much texture."""

log = logging.getLogger(__name__)


def fill_defaults(made: Recipe) -> Recipe:
    """Return the recipe with the defaults of videos; raises OptionError if colours would change between frames."""
    if made.keep_color in MATCHING_MODES:
        raise OptionError(flickers(made.keep_color))
    smooth, flow = made.smooth, made.flow
    if flow is None and made.flow_by != "raft" and not has_flow():
        log.info("optical flow would make it flicker less: pip install 'impasto[flow]'")
        flow = 0.0
    flow = FLOW if flow is None else flow
    smooth = SMOOTH if smooth is None else smooth
    return made.model_copy(update={"smooth": smooth, "flow": flow, "temporal_weight": _temporal_weight(made, flow)})


def _temporal_weight(recipe: Recipe, flow: float) -> float | None:
    """Return the weight that keeps an optimisation near the last result; None for one pass. Raises OptionError.

    Other presets use other forms of content and style losses, for which this default does not fit.
    """
    given = recipe.temporal_weight
    if find_method(recipe.method).one_pass:
        if given is not None:
            raise OptionError(
                f"{recipe.method} paints in one pass: --temporal-weight is for methods that optimise, like gatys"
            )
        return None
    return (TEMPORAL if flow and recipe.preset == "default" else 0.0) if given is None else given


@dataclass(frozen=True)
class VideoRun:
    """A checked run: files, source, model, working size."""

    recipe: Recipe
    target: Path
    strip: Path | None
    report: Path | None
    record: bool
    force: bool
    survey: Survey
    painter: Painter
    size: tuple[int, int]
    raft: Raft | None = None

    @property
    def source(self) -> Path:
        """The source video."""
        assert self.recipe.content is not None
        return self.recipe.content

    @property
    def folder(self) -> Path:
        """Folder of finished frames."""
        return _folder(self.target)

    def frame_path(self, index: int) -> Path:
        """Return the file of a finished frame."""
        return self.folder / f"{index:08}.png"

    def make_record(self) -> dict[str, Any]:
        """Return the run record."""
        made = make_record(self.recipe, self.painter.model, self.size, self.target.parent)
        return made if self.raft is None else made | {"weights": made["weights"] | {"raft": self.raft.digest}}

    def results(self, total: int) -> Iterator[Tensor]:
        """Return all finished frames, (1, 3, H, W) each, or (1, 4, H, W) with transparency."""
        return (self._result(index) for index in range(total))

    def _result(self, index: int) -> Tensor:
        picture = open_picture(self.frame_path(index))
        if not self.survey.alpha:
            return picture.color
        color = picture.color
        return torch.cat([color, torch.ones_like(color[:, :1]) if picture.alpha is None else picture.alpha], dim=1)


def _folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.frames")


@dataclass(frozen=True)
class VideoFiles:
    """The files of a run besides those of its recipe; salvage: damage to the video is no error."""

    output: Path | None
    strip: Path | None
    report: Path | None
    flow_weights: Path | None
    salvage: bool = False


def plan(
    recipe: Recipe,
    places: VideoFiles,
    device: str,
    runtime: str = "torch",
    max_memory: float | None = None,
    *,
    force: bool,
    record: bool,
    quiet: bool = False,
) -> VideoRun:
    """Check everything and load the model; raises ImpastoError before any work is done."""
    source, strip, report = recipe.content, places.strip, places.report
    assert source is not None
    if places.output is not None:
        _check_names(places.output, source, force)
    survey = _survey(source, salvage=places.salvage, quiet=quiet)
    stem = record_module.file_stem(*(path.stem for path in (source, *recipe.styles)))
    default = Path(f"{stem}{default_ending(source, survey)}")
    target = name_target(places.output, default, force=force, suffixes=tuple(ENCODERS))
    _check_names(target, source, force)
    beside = sidecar(target) if record else None
    resumed = _folder(target).exists()
    for path, endings in ((strip, WRITABLE), (report, (".json",)), (beside, (".json",))):
        if path is not None:
            check_target(path, force or resumed, endings)
    raft = _open_raft(recipe, places.flow_weights, device)
    if ((_needs_flow(recipe) and raft is None) or report) and not has_flow():
        raise ImpastoError("--flow, --temporal-weight and --report need OpenCV: pip install 'impasto[flow]'")
    painter = Painter(recipe, device, runtime)
    size = painter.working_size(*survey.size)
    if max_memory is not None:
        limit_memory(max_memory, painter.model.device)
        first = next(read_frames(source, survey)).image
        size = find_fitting(size, lambda size: _try(painter, first, size))
        painter.recipe = recipe = recipe.model_copy(update={"size": f"{size[1]}x{size[0]}"})
    for note in (*survey.notes, *check_video(source, target, survey, size)):
        log.warning("%s: %s", source.name, note)
    _check_room(target, survey.frames, size)
    return VideoRun(recipe, target, strip, report, record, force, survey, painter, size, raft)


def _check_names(target: Path, source: Path, force: bool) -> None:
    check_target(target, force, tuple(ENCODERS))
    if real_path(target) == real_path(source):
        raise ImpastoError(f"{target} is the video itself; give -o another name")


def _survey(source: Path, *, salvage: bool, quiet: bool) -> Survey:
    """Decode the whole video once, so that problems show before hours of work."""
    frames = probe_video(source).frames
    with count(f"looking through {source.name}", frames, quiet, pause=PAUSE) as shown:
        return survey_video(source, salvage=salvage, on_frame=lambda: shown.advance("frames checked"))


def _check_room(target: Path, frames: int, size: tuple[int, int]) -> None:
    needed = frames * size[0] * size[1] * MOST_BYTES_A_PIXEL
    if shutil.disk_usage(target.parent).free < needed:
        raise ImpastoError(f"{frames} frames may need {name_bytes(needed)} in {target.parent}: write elsewhere with -o")


def _needs_flow(recipe: Recipe) -> bool:
    return bool(recipe.flow or recipe.temporal_weight)


def _open_raft(recipe: Recipe, weights: Path | None, device: str) -> Raft | None:
    """Return RAFT, if it estimates the flow; raises ImpastoError."""
    if recipe.flow_by != "raft":
        if weights is not None:
            raise OptionError("--flow-weights goes with --flow-by raft")
        return None
    if not _needs_flow(recipe):
        return None
    from impasto.networks.raft_flow import Raft

    return Raft(weights, pick_device(device))


def _try(painter: Painter, frame: Tensor, size: tuple[int, int]) -> None:
    """Paint a frame at `size`, (height, width); of an optimisation only the first step."""
    photo = Picture(resize(frame, *size), None)

    def stop(step: Step) -> None:
        raise KeyboardInterrupt

    painter.model.start_from = photo.color
    try:
        painter.job(painter.recipe, photo, painter.recipe.styles).paint_floats(stop)
    finally:
        painter.model.start_from = None


def dry_run(work: VideoRun) -> dict[str, Any]:
    """Report a checked run, for --dry-run; returns what --json prints."""
    terminal.say(f"dry run: {_title(work)}; nothing was written", err=True)
    return {"output": str(work.target), **work.make_record(), "frames": work.survey.frames, "dry_run": True}


def paint_video(work: VideoRun, *, quiet: bool) -> dict[str, Any]:
    """Paint the remaining frames, encode the video, measure it. Returns what --json prints."""
    begun = time.monotonic()
    record = work.make_record()
    done = _claim(work, record)
    try:
        frames = _paint_frames(work, done, quiet)
    except KeyboardInterrupt:
        terminal.say("interrupted: the same command goes on", err=True)
        raise typer.Exit(130) from None
    made: dict[str, Any] = {"output": str(work.target), **record, "frames": len(frames)}
    if work.strip is not None:
        made["strip"] = str(work.strip)
        log.info("strip: %s", work.strip)
        write_image(paint_strip(work.source, work.survey, work.frame_path), work.strip)
    if work.report is not None:
        made["report"] = measure(work.painter, work.recipe, work.source, work.survey, work.results(len(frames)), quiet)
        write_atomically(work.report, _as_json(made["report"]))
        made["report_file"] = str(work.report)
        log.info("report: %s", work.report)
    beside = sidecar(work.target)
    if work.record and beside is not None:
        write_atomically(beside, _as_json(record_module.shareable(record)))
    log.info("putting %d frames together", len(frames))
    write_video(work.results(len(frames)), frames, work.source, work.target, work.survey.colors)
    shutil.rmtree(work.folder)
    return {**made, "seconds": round(time.monotonic() - begun, 3)}


def _as_json(value: Any) -> bytes:
    return (to_json(value, indent=2) + "\n").encode()


def _title(work: VideoRun) -> str:
    height, width = work.size
    return f"painting {work.survey.frames} frames of {width}x{height} with {work.painter.model.name}"


def _claim(work: VideoRun, record: Mapping[str, Any]) -> int:
    """Create or find the folder of finished frames; returns how many are done. Raises ImpastoError."""
    identity = _as_json({**record, "versions": None})
    known = work.folder / IDENTITY
    if work.folder.exists() and work.force:
        shutil.rmtree(work.folder)
    if not known.exists():
        try:
            work.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ImpastoError(f"{work.folder} can't be made: {error.strerror}") from None
        write_atomically(known, identity)
    if known.read_bytes() != identity:
        raise ImpastoError(f"{work.folder} holds frames of a run with other options: --force starts over")
    state = work.folder / STATE
    return int(load_weights(state).config["done"]) if state.exists() else 0


def _paint_frames(work: VideoRun, done: int, quiet: bool) -> list[Frame]:
    """Paint all frames but the first `done`; returns the times of all."""
    recipe, estimate = work.recipe, work.raft or estimate_flow
    memory, carried, held = recipe.smooth or 0.0, recipe.flow or 0.0, recipe.temporal_weight or 0.0
    coherence = Coherence(work.painter.model, memory=memory, carried=carried, held=held, estimate=estimate)
    times: list[Frame] = []
    if done:
        log.info("%d frames are there already", done)
    with (
        count(_title(work), work.survey.frames, quiet, done=done, pause=PAUSE) as shown,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        waiting: Future[None] | None = None
        for index, frame in enumerate(_ahead(read_frames(work.source, work.survey))):
            times.append(replace(frame, image=frame.image[..., :1, :1], alpha=None))
            if index < done - 1:
                continue
            photo = work.painter.fit(Picture(frame.image, frame.alpha))
            if index == done - 1:
                state = load_weights(work.folder / STATE).tensors
                coherence.restore(state, photo.color, read_image(work.frame_path(index)))
                continue
            result = _paint(work, coherence, photo, shown)
            if waiting is not None:
                waiting.result()
            waiting = writer.submit(_keep, work, index, Picture(result, photo.alpha), coherence.state())
            shown.advance("frames")
        if waiting is not None:
            waiting.result()
    if coherence.cuts:
        log.info("%d cuts", coherence.cuts)
    return times


def _paint(work: VideoRun, coherence: Coherence, photo: Picture, shown: Count) -> Tensor:
    job = work.painter.job(work.recipe, photo, work.recipe.styles)
    result = coherence.paint(photo.color, lambda: job.paint_floats(shown.within))
    if job.model.interrupted:
        raise KeyboardInterrupt  # an unfinished frame is dropped
    return result


def _keep(work: VideoRun, index: int, result: Picture, state: Mapping[str, Tensor]) -> None:
    """Write a frame, then the state for the next one; a kill in between costs one frame."""
    write_image(result.color, work.frame_path(index), alpha=result.alpha)
    save_weights(state, work.folder / STATE, {"done": index + 1}, half=False)


def _ahead(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield `frames`, decoding the next one in another thread."""
    iterator = iter(frames)
    with ThreadPoolExecutor(1, "read") as reader:
        coming = reader.submit(next, iterator, None)
        while (frame := coming.result()) is not None:
            coming = reader.submit(next, iterator, None)
            yield frame
