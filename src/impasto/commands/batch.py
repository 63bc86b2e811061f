"""The run of `impasto batch`: paints what is missing by an engine, and reports."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from impasto.batch.pipeline import Outcomes
from impasto.batch.plan import BatchPlan, Item, count_left_out, tell_left_out
from impasto.commands import terminal
from impasto.commands.terminal import Count, count, print_json
from impasto.errors import ImpastoError
from impasto.files import LEFTOVER, is_remote, url_of
from impasto.progress import Step
from impasto.runs.remote_files import clear_remote, make_folder, names_in

FAILED, INTERRUPTED = 1, 130
PAUSE = 1.0

Signature = tuple[int, int]

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Paints pictures. title: its method and device; run: see `put_remote`."""

    title: str
    run: str

    def paint(self, items: Sequence[Item], outcomes: Outcomes) -> None:
        """Paint all of `items`, grouped by photo, and report each."""


def dry_run(plan: BatchPlan, *, json: bool) -> int:
    """Report which pictures would be made, for --dry-run; returns the exit code."""
    items, there = plan.items(), names_in(plan.output)
    todo = [item for item in items if plan.force or not item.is_in(there, plan.record)]
    for item in todo:
        _tell(json, "planned", item)
    terminal.say(f"dry run: {len(todo)} pictures to make, {len(items) - len(todo)} are there already", err=True)
    return 0


def run(plan: BatchPlan, open_engine: Callable[[], Engine], *, watch: bool, quiet: bool, json: bool) -> int:
    """Paint what is missing, and with `watch` continue with new photos until Ctrl-C. Returns the exit code."""
    engine = open_engine()
    make_folder(plan.output)
    session = _Session(plan, engine, quiet, json)
    with _claimed(plan, engine.run):
        try:
            session.first_round()
            while watch:
                time.sleep(PAUSE)
                session.next_round()
        except KeyboardInterrupt:
            session.interrupted = not (watch and session.idle)
    return session.close()


def _tell(json: bool, status: str, item: Item, **more: Any) -> None:
    """Print a picture's line on stdout: JSON, or the name of a finished or planned file."""
    if json:
        styles = [url_of(path) for path in item.recipe.styles]
        line = {"status": status, "output": url_of(item.target), "content": url_of(item.content), "styles": styles}
        print_json({**line, **more}, line=True)
    elif status in ("done", "planned"):
        terminal.say_path(url_of(item.target))


@contextmanager
def _claimed(plan: BatchPlan, run: str) -> Iterator[None]:
    """Lock the folder of the results; a run that holds it alone removes half-written files of killed runs.

    In a remote folder it removes only those of this `run`, because other runs are unknown.
    """
    if is_remote(plan.output):
        yield
        clear_remote(plan.output, run)
        return
    try:
        import fcntl
    except ImportError:  # Windows: such files stay; they are never taken for results
        yield
        return

    def clear() -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(plan)
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError as error:  # another run is active here, or the file system has no locks
            log.debug("%s is not held alone: %s", plan.output, error)

    handle = os.open(plan.output, os.O_RDONLY)
    try:
        clear()
        yield
        clear()  # files of workers that were killed meanwhile
    finally:
        os.close(handle)


def _clear(plan: BatchPlan) -> None:
    for path in plan.output.iterdir():
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


@dataclass
class _Session:
    """Rounds over the existing photos, and the results of all pictures."""

    plan: BatchPlan
    engine: Engine
    quiet: bool
    json: bool
    done: int = 0
    skipped: int = 0
    failed: int = 0
    interrupted: bool = False
    idle: bool = False
    started: float = field(default_factory=time.monotonic)
    refused: dict[Path, Signature] = field(default_factory=dict)
    """Failed pictures by their target, and the state of their photos then."""
    seen: dict[Path, Signature] = field(default_factory=dict)
    """The state of the photos in the last round."""
    shown: Count = field(default_factory=lambda: Count(0))
    """The progress of a round."""

    def first_round(self) -> None:
        """Paint everything that is missing."""
        left_out = tell_left_out(self.plan.words, self.plan.output)
        if left_out:
            log.info("%s", left_out)
        todo, there = [], names_in(self.plan.output)
        for item in self.plan.items():
            if not self.plan.force and item.is_in(there, self.plan.record):
                self.skipped += 1
                _tell(self.json, "skipped", item)
            else:
                todo.append(item)
        if self.skipped:
            log.info("%d pictures are there already and stay (--force makes them again)", self.skipped)
        self._paint(todo)

    def next_round(self) -> None:
        """Paint new photos that are no longer being written."""
        try:
            items = self.plan.items()
        except ImpastoError as error:
            log.debug("%s", error)  # a folder may be missing for a while
            return
        now, there = {item.content: _sign(item.content) for item in items}, names_in(self.plan.output)
        todo = [
            item
            for item in items
            if self.seen.get(item.content) == now[item.content] != self.refused.get(item.target)
            and not item.is_in(there, self.plan.record)
        ]
        self.seen = now
        self._paint(todo)

    def _paint(self, items: Sequence[Item]) -> None:
        self.idle = not items
        if self.idle:
            return
        with count(f"painting {len(items)} pictures {self.engine.title}", len(items), self.quiet) as self.shown:
            self.engine.paint(items, self)
        self.idle = True

    def succeed(self, item: Item, report: dict[str, Any]) -> None:
        """Report a written picture."""
        self.done += 1
        _tell(self.json, "done", item, **report)
        self.shown.advance(f"{item.target.name}: {report['seconds']:.1f} s")

    def fail(self, item: Item, reason: str) -> None:
        """Report a failed picture."""
        self.failed += 1
        self.refused[item.target] = _sign(item.content)
        log.warning("%s: %s", item.target.name, reason)
        _tell(self.json, "failed", item, error=reason)
        self.shown.advance(f"{item.target.name}: failed")

    def within(self, step: Step) -> None:
        """Show the progress of a picture."""
        self.shown.within(step)

    def close(self) -> int:
        """Report the totals; returns the exit code."""
        seconds = round(time.monotonic() - self.started, 3)
        counts = {"done": self.done, "skipped": self.skipped, "failed": self.failed}
        if self.json:
            left_out = count_left_out(self.plan.words, self.plan.output)
            about = {"left_out": left_out, "interrupted": self.interrupted, "seconds": seconds}
            print_json({"status": "summary", **counts, **about}, line=True)
        line = ", ".join(f"{number} {name}" for name, number in counts.items())
        cut = "interrupted; the same command goes on: " if self.interrupted else ""
        log.log(logging.WARNING if self.failed else logging.INFO, "%s%s in %.1f s", cut, line, seconds)
        return INTERRUPTED if self.interrupted else FAILED if self.failed else 0


def _sign(path: Path) -> Signature:
    """Return what shows that a file has changed: its time and size."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
