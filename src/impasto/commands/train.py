"""The work of `impasto train`, for all trainings."""

from __future__ import annotations

import importlib
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from impasto.commands import methods_table, terminal
from impasto.commands.arguments import take_flags
from impasto.commands.early_checks import TRAININGS, check_training
from impasto.commands.terminal import Line, print_json
from impasto.errors import ImpastoError
from impasto.methods import find_training
from impasto.networks.layers import count_parameters
from impasto.progress import duration
from impasto.training.loop import CHECKPOINT, StepReport, Task, Training, TrainOptions, train
from impasto.training.pictures import Pictures

log = logging.getLogger(__name__)
OFTEN, SELDOM = 2.0, 10.0
NAMED = 5


@dataclass(frozen=True)
class Folders:
    """Folders or files of pictures."""

    contents: list[Path]
    styles: list[Path]

    def read(self, options: TrainOptions) -> tuple[Pictures, Pictures]:
        """Decode all pictures once; raises ImpastoError if a folder is missing or there is nothing to read."""
        if not self.contents or not self.styles:
            raise ImpastoError("name folders of pictures: --content PHOTOS --style ARTWORKS")
        for place in (*self.contents, *self.styles):
            if not place.exists():
                raise ImpastoError(f"{place} is not there; each --content and --style names a folder or a picture")
        contents = Pictures.load(self.contents, options.side, options.crop)
        styles = Pictures.load(self.styles, options.art_side, options.crop)
        log.info("read %d photographs and %d artworks", len(contents.items), len(styles.items))
        return contents, styles

    def read_styles(self, options: TrainOptions) -> tuple[Pictures, Pictures]:
        """Decode the pictures of --style, for a training without photographs; raises ImpastoError."""
        if self.contents or not self.styles:
            raise ImpastoError("name pictures to learn from, and no photographs: --style PICTURE --style PICTURE ...")
        for place in self.styles:
            if not place.exists():
                raise ImpastoError(f"{place} is not there; each --style names a folder or a picture")
        styles = Pictures.load(self.styles, options.art_side, options.crop)
        log.info("read %d artworks", len(styles.items))
        return Pictures([]), styles


def read_words(ctx: typer.Context, words: list[str]) -> tuple[str, Training, dict[str, Any]]:
    """Return the task's name, its training and the values of its options; raises ImpastoError."""
    name = check_training(ctx, words, listing=True)
    training = find_any_training(name)
    assert training is not None
    _, values = take_flags(ctx, words, training.options, f"train {name}", f"impasto train {name} --list-options")
    return name, training, values


def find_any_training(name: str) -> Training | None:
    """Return the training called `name`, of a method or one of TRAININGS; None if there is none."""
    if name not in TRAININGS:
        return find_training(name)
    training: Training = importlib.import_module(TRAININGS[name]).TRAINING
    return training


def show_options(training: Training, json: bool) -> None:
    """List all options of a training."""
    if json:
        print_json(methods_table.describe_options(training.options))
    else:
        methods_table.show_options(training.options)


def build(training: Training, options: TrainOptions, pictures: tuple[Pictures, Pictures]) -> Task:
    """Return the task, ready to learn; raises ImpastoError."""
    task = training.build(options, *pictures)
    log.info("%s: %d parameters learn", task.name, count_parameters(task.learned()))
    return task


def dry_run(
    task: Task, pictures: tuple[Pictures, Pictures], options: TrainOptions, folder: Path, **ignored: Any
) -> dict[str, Any]:
    """Report a checked run, for --dry-run; returns what --json prints."""
    limit = "" if options.minutes is None else f", at most {options.minutes:g} minutes"
    terminal.say(f"dry run: {task.name}, {options.steps} steps{limit}; nothing was written", err=True)
    _tell_skipped(pictures)
    return {**_facts(task, pictures, options, folder), "dry_run": True}


def run(
    task: Task,
    pictures: tuple[Pictures, Pictures],
    options: TrainOptions,
    folder: Path,
    *,
    resume: bool,
    log: bool,
) -> dict[str, Any]:
    """Train and return what --json prints; Ctrl-C leaves a checkpoint and exit code 130. Raises ImpastoError."""
    try:
        learned = learn(task, pictures, options, folder, resume=resume, log=log)
    except KeyboardInterrupt:
        terminal.say(f"interrupted: {folder / CHECKPOINT} is kept; the same command with --resume goes on", err=True)
        raise typer.Exit(130) from None
    finally:
        _tell_skipped(pictures)
    return {**_facts(task, pictures, options, folder), **learned}


def learn(
    task: Task,
    pictures: tuple[Pictures, Pictures],
    options: TrainOptions,
    folder: Path,
    *,
    resume: bool = False,
    log: bool = False,
    also: Callable[[StepReport], None] = lambda report: None,
) -> dict[str, Any]:
    """Train, show the numbers, and return the last ones; also: called after every step.

    Raises KeyboardInterrupt after Ctrl-C, between two steps, and ImpastoError.
    """
    line = _Line(options)
    try:
        with _stop_between_steps() as stop:

            def follow(report: StepReport) -> None:
                line.show(report)
                also(report)
                stop()

            train(task, *pictures, options, folder, resume=resume, log=log, on_step=follow)
    finally:
        line.end()
    return line.facts()


def _facts(task: Task, pictures: tuple[Pictures, Pictures], options: TrainOptions, folder: Path) -> dict[str, Any]:
    skipped = [name for kind in pictures for name in kind.skipped]
    return {
        "output": str(folder / f"{task.name}.safetensors"),
        "options": options.model_dump(mode="json"),
        "contents": len(pictures[0].items),
        "styles": len(pictures[1].items),
        "skipped": skipped,
    }


def _tell_skipped(pictures: tuple[Pictures, Pictures]) -> None:
    skipped = [reason for kind in pictures for reason in kind.skipped]
    for reason in skipped[:NAMED]:
        log.warning("skipped: %s", reason)
    if skipped:
        more = f", {NAMED} of them named above" if len(skipped) > NAMED else ""
        log.warning("%d unreadable pictures were skipped%s", len(skipped), more)


@contextmanager
def _stop_between_steps() -> Iterator[Callable[[], None]]:
    """Give a function that raises KeyboardInterrupt after Ctrl-C; a second Ctrl-C acts at once.

    So a checkpoint never holds half a step, and a resumed training gives the same bits.
    """
    pressed: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    def stop() -> None:
        if pressed:
            raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGINT, press)
    except ValueError:  # signals arrive only in the main thread
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


class _Line:
    """The numbers of the steps, as a line."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.line = Line(OFTEN, SELDOM)
        self.first: StepReport | None = None
        self.last: StepReport | None = None

    def show(self, report: StepReport) -> None:
        """Show a step's numbers, if the last ones are old enough."""
        self.first = self.first or report
        self.last = report
        self.line.show(lambda: self._text(report))

    def end(self) -> None:
        """Show the last step's numbers and leave the line."""
        self.line.end()

    def _text(self, report: StepReport) -> str:
        terms = " ".join(f"{name} {value:.4f}" for name, value in report.terms.items())
        total = sum(report.terms.values())
        return (
            f"step {report.step}/{self.options.steps}  loss {total:.4f} ({terms})  rate {report.learning_rate:.2e}  "
            f"{self._left(report)}"
        )

    def _left(self, report: StepReport) -> str:
        """Return the time that is left, by the speed since this run began."""
        assert self.first is not None
        done, seconds = report.progress - self.first.progress, report.seconds - self.first.seconds
        if done <= 0 or report.progress >= 1:
            return f"{report.seconds:.0f} s"
        return f"{duration(seconds * (1 - report.progress) / done)} left"

    def facts(self) -> dict[str, Any]:
        """Return the last step, for --json."""
        if self.last is None:
            return {}
        return {"steps": self.last.step, "losses": self.last.terms, "seconds": round(self.last.seconds, 3)}
