"""Progress on stderr: a bar where somebody looks, one line at the start and one at the end elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from impasto.optimize import OnStep, Step, ignore

log = logging.getLogger(__name__)


class Watch:
    """How long a run has taken, how many steps it did, its last loss."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.steps = 0
        self.loss: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def see(self, step: Step) -> None:
        """Take note of a step."""
        self.steps, self.loss = step.index, step.loss

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", {self.steps} steps, loss {self.loss:.4g}"
        return f"{self.seconds:.1f} s{loss}"


@contextmanager
def progress(title: str, quiet: bool, also: OnStep = ignore) -> Iterator[tuple[Watch, OnStep]]:
    """A watch and the `on_step` that shows how far the work is; also: called after every step, too."""
    watch = Watch()

    def follow(step: Step) -> None:
        watch.see(step)
        also(step)

    if quiet or not sys.stderr.isatty():
        log.info("%s", title)
        yield watch, follow
        log.info("took %s", watch)
        return
    with _bar(title) as show:

        def follow_and_show(step: Step) -> None:
            follow(step)
            show(step)

        yield watch, follow_and_show
    log.info("took %s", watch)


@contextmanager
def _bar(title: str) -> Iterator[OnStep]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=None, loss="")
        yield lambda step: bar.update(task, completed=step.index, total=step.total, loss=f"loss {step.loss:.4g}")


@contextmanager
def counting(title: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A function of done and total: a bar on stderr where somebody looks; elsewhere a line at every tenth part."""
    if quiet or not sys.stderr.isatty():

        def tell(done: int, total: int) -> None:
            if not quiet and done * 10 // total > (done - 1) * 10 // total:
                typer.echo(f"{title}: {done} of {total}", err=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
