"""What a command reads and writes besides files: text and JSON, escaped; notes; pictures through pipes; progress."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from impasto.commands import first_look
from impasto.errors import ImpastoError, one_line, printable, to_json

if TYPE_CHECKING:
    from impasto.progress import OnStep, Step

log = logging.getLogger(__name__)


class _Notes(logging.Handler):
    """Writes notes and warnings, a line each, to the current stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        say(prefix + one_line(record.getMessage()), err=True)


def log_to_stderr() -> None:
    """Let impasto's notes and warnings go to stderr."""
    notes = logging.getLogger("impasto")
    notes.setLevel(logging.INFO)
    if not any(isinstance(handler, _Notes) for handler in notes.handlers):
        notes.addHandler(_Notes())


def be_quiet(quiet: bool) -> None:
    """If `quiet`, silence notes, but not warnings."""
    if quiet:
        logging.getLogger("impasto").setLevel(logging.WARNING)


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text, with control characters escaped. Raises ImpastoError if stdout is full."""
    try:
        typer.echo(printable(text, keep="\n\t"), err=err, nl=nl)
    except UnicodeEncodeError:  # a stream in a narrow encoding
        typer.echo(printable(text, keep="\n\t").encode("ascii", "backslashreplace").decode(), err=err, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        if not err:
            reason = error.strerror or error
            raise ImpastoError(f"standard output can't be written ({reason}), but all files are") from None


def say_path(path: object) -> None:
    """Print the name of a file: as bytes to a program, escaped to a terminal."""
    text = str(path)
    buffer = getattr(sys.stdout, "buffer", None)
    if sys.stdout.isatty() or buffer is None or text == printable(text):
        say(text)
        return
    sys.stdout.flush()
    buffer.write(os.fsencode(text) + b"\n")
    buffer.flush()


def print_json(value: Any, *, line: bool = False) -> None:
    """Print one JSON object to stdout; line: on a single line."""
    say(to_json(value, indent=None if line else 2))


# --- pipes: `-` is standard input for a photo or a painting, and standard output for the result

PIPE = "-"
MOST_BYTES = 1 << 30


class Piped:
    """A command's words and output, with files in place of its pipes.

    to_stdout: the result goes to standard output, and its name is not printed.
    """

    def __init__(self, words: list[str], output: Path | None, to_stdout: bool) -> None:
        self.words, self.output, self.to_stdout = words, output, to_stdout

    def deliver(self, tell: Callable[[], None]) -> None:
        """Send the result through the pipe, or call `tell`."""
        if not self.to_stdout:
            tell()
        elif self.output is not None and self.output.exists():  # a dry run writes nothing
            _send(self.output)


@contextmanager
def piped(words: Sequence[str], output: Path | None, *, json: bool = False, dry_run: bool = False) -> Iterator[Piped]:
    """Replace `-` by temporary files. A piped photo's result goes to standard output, too.

    Raises ImpastoError if pipes are combined in an impossible way.
    """
    plain = list(words)
    wanted = plain.count(PIPE)
    to_stdout = output == Path(PIPE) or (output is None and plain[:1] == [PIPE])
    if not wanted and not to_stdout:
        yield Piped(plain, output, False)
        return
    if wanted > 1:
        raise ImpastoError("standard input holds one picture: - can be the photo or a painting, not both")
    if to_stdout and json:
        raise ImpastoError("--json and the picture can't both go to standard output: name a file with -o")
    if to_stdout and not dry_run and sys.stdout.isatty():
        raise ImpastoError("the picture would go to a terminal: name a file with -o, or redirect it with > FILE")
    import tempfile

    with tempfile.TemporaryDirectory(prefix="impasto-") as folder:
        if wanted:
            path = _receive(Path(folder))
            first_look.check_piped(path)
            plain[plain.index(PIPE)] = str(path)
        yield Piped(plain, Path(folder, "stdout.png") if to_stdout else output, to_stdout)


def _receive(folder: Path) -> Path:
    """Store standard input as a file in `folder`."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ImpastoError("- is a picture on standard input, and nothing is piped into it: < FILE, or name the file")
    path = folder / "stdin"
    left = MOST_BYTES
    with path.open("wb") as file:
        while data := sys.stdin.buffer.read(min(left, 1 << 20)):
            file.write(data)
            left -= len(data)
            if not left:
                raise ImpastoError(f"standard input has more than {MOST_BYTES} bytes; name a file instead")
    if left == MOST_BYTES:
        raise ImpastoError("standard input is empty; pipe a picture into it, or name a file")
    return path


def _send(path: Path) -> None:
    import shutil

    sys.stdout.flush()
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ImpastoError(f"standard output can't be written: {error.strerror or error}") from None


# --- progress on stderr: a bar on a terminal; elsewhere a line at the start, at the end, and now and then


def _duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 2 h 5 min."""
    from impasto.progress import duration

    return duration(seconds)


PAUSE = 5.0
"""Seconds between two lines of a count of quick items."""

WORTH_SAYING = 5.0
"""Work that is expected to take this many seconds is announced with its time."""


class Watch:
    """Time, number of steps and last loss of a run."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.steps = 0
        self.loss: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def see(self, step: Step) -> None:
        """Note a step."""
        self.steps, self.loss = step.index, step.loss if step.terms else None

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", {self.steps} steps, loss {self.loss:.4g}"
        return f"{self.seconds:.1f} s{loss}"


@contextmanager
def progress(
    title: str, quiet: bool, also: OnStep = lambda step: None, expected: float | None = None
) -> Iterator[tuple[Watch, OnStep]]:
    """Give a watch and the `on_step` that shows the progress.

    also: called after every step, too; expected: seconds that the work will take, if known.
    """
    watch = Watch()
    if expected is not None and expected >= WORTH_SAYING:
        title = f"{title}, about {_duration(expected)}"

    def follow(step: Step) -> None:
        watch.see(step)
        also(step)

    if quiet or not sys.stderr.isatty():
        log.info("%s", title)
        yield watch, follow
        log.info("took %s", watch)
        return
    with _bar(title, expected) as show:

        def follow_and_show(step: Step) -> None:
            follow(step)
            show(step)

        yield watch, follow_and_show
    log.info("took %s", watch)


class Count:
    """Counts finished items by lines, each with the time that is left.

    done: how many were ready before; pause: least number of seconds between two lines.
    """

    def __init__(self, total: int, done: int = 0, pause: float = 0.0) -> None:
        self.total, self.done, self.before, self.pause = total, done, done, pause
        self.started = self.reported = time.monotonic()

    def advance(self, what: str) -> None:
        """Count one more; what: its name and result."""
        self.reach(self.done + 1, self.total, what)

    def reach(self, done: int, total: int, what: str = "pictures") -> None:
        """Show that `done` of `total` are ready."""
        self.done, self.total = done, total
        now = time.monotonic()
        if now - self.reported >= self.pause or self.done == self.total:
            self.reported = now
            log.info("%d/%d %s%s", self.done, self.total, what, self.left())

    def within(self, step: Step) -> None:
        """Show a step of the picture that is being made."""

    def left(self) -> str:
        """Return ``, 3 min left``; nothing at the end."""
        if self.done >= self.total:
            return ""
        each = (time.monotonic() - self.started) / max(self.done - self.before, 1)
        return f", {_duration(each * (self.total - self.done))} left"


class _CountBar(Count):
    """A count as a bar that also moves with the steps within a picture."""

    def __init__(self, total: int, done: int, update: Callable[..., None]) -> None:
        super().__init__(total, done)
        self.update = update

    def advance(self, what: str) -> None:
        self.reach(self.done + 1, self.total, what)

    def reach(self, done: int, total: int, what: str = "") -> None:
        self.done, self.total = done, total
        self.update(completed=done, total=total, description=what or None, steps=f"{done}/{total}")

    def within(self, step: Step) -> None:
        self.update(completed=min(self.done + step.index / step.total, self.total))


@contextmanager
def count(title: str, total: int, quiet: bool, *, done: int = 0, pause: float = 0.0) -> Iterator[Count]:
    """Give a count of `total` pictures, as a bar on a terminal and by lines elsewhere."""
    if quiet or not sys.stderr.isatty():
        log.info("%s", title)
        yield Count(total, done, pause)
        return
    with _columns() as (bar, escape):
        task = bar.add_task(escape(title), total=total, completed=done, loss="", steps=f"{done}/{total}")

        def update(description: str | None = None, **values: Any) -> None:
            bar.update(task, description=None if description is None else escape(description), **values)

        yield _CountBar(total, done, update)


class Line:
    """One line that changes: rewritten in place on a terminal; elsewhere a new line now and then.

    often, seldom: least number of seconds between two texts, on a terminal and elsewhere.
    """

    def __init__(self, often: float, seldom: float) -> None:
        self.live = sys.stderr.isatty()
        self.pause = often if self.live else seldom
        self.shown_at = 0.0
        self.last: Callable[[], str] | None = None
        self.text = ""

    def show(self, text: Callable[[], str]) -> None:
        """Show a text if the last one is old enough."""
        self.last = text
        now = time.monotonic()
        if now - self.shown_at >= self.pause:
            self.shown_at = now
            self._write(text())

    def end(self) -> None:
        """Show the last text and leave the line."""
        if self.last is not None:
            text = self.last()
            if self.live or text != self.text:
                self._write(text)
            if self.live:
                typer.echo(err=True)
        self.last = None

    def _write(self, text: str) -> None:
        self.text = text
        if log.isEnabledFor(logging.INFO):
            typer.echo(f"\r\033[K{text}" if self.live else text, err=True, nl=not self.live)


@contextmanager
def _columns() -> Iterator[tuple[Any, Callable[[str], str]]]:
    """Give a progress bar of rich and its function for escaping text."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class Left(ProgressColumn):
        """The time that is left: by the finished steps, or by the expected time of work without steps."""

        known = TimeRemainingColumn()

        def render(self, task: Any) -> Any:
            return escape_left(task) if task.total is None else self.known.render(task)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[steps]}"),
        TextColumn("{task.fields[loss]}"),
        Left(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        yield bar, escape


def escape_left(task: Any) -> str:
    """Return the time that is left of work without steps; empty if no time was expected, or it is over."""
    expected, elapsed = task.fields.get("expected"), task.elapsed or 0.0
    return f"{_duration(expected - elapsed)} left" if expected and elapsed < expected else ""


@contextmanager
def _bar(title: str, expected: float | None = None) -> Iterator[OnStep]:
    with _columns() as (bar, escape):
        task = bar.add_task(escape(title), total=None, loss="", steps="", expected=expected)
        yield lambda step: bar.update(
            task,
            completed=step.index,
            total=step.total,
            steps=f"{step.index}/{step.total}",
            loss=f"loss {step.loss:.4g}" if step.terms else "",
        )
