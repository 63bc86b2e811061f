"""Progress on stderr: a bar on a terminal; elsewhere a line at the start, at the end, and now and then between."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from impasto.progress import OnStep, Step, Watch, duration, ignore

log = logging.getLogger(__name__)
PAUSE = 5.0
"""Seconds between two lines of a count of quick items."""

WORTH_SAYING = 5.0
"""Work that is expected to take this many seconds is announced with its time."""


@contextmanager
def progress(
    title: str, quiet: bool, also: OnStep = ignore, expected: float | None = None
) -> Iterator[tuple[Watch, OnStep]]:
    """Give a watch and the `on_step` that shows the progress.

    also: called after every step, too; expected: seconds that the work will take, if known.
    """
    watch = Watch()
    if expected is not None and expected >= WORTH_SAYING:
        title = f"{title}, about {duration(expected)}"

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
        return f", {duration(each * (self.total - self.done))} left"


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
            self._write(self.last())
            if self.live:
                typer.echo(err=True)
        self.last = None

    def _write(self, text: str) -> None:
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
    return f"{duration(expected - elapsed)} left" if expected and elapsed < expected else ""


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
