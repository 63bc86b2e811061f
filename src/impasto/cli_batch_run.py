"""The work of `impasto batch`: photos are read and results written beside the painting; what fails is told of."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from torch import Tensor

from impasto.cli_batch_plan import Item, Plan
from impasto.cli_flags import print_json
from impasto.cli_job import Job
from impasto.cli_painter import Painter
from impasto.cli_progress import Count, Watch, count
from impasto.cli_run import outcome
from impasto.errors import ImpastoError, is_out_of_memory
from impasto.image import Picture, open_picture
from impasto.optimize import Step
from impasto.run_record import make_record, sidecar, write_recorded

FAILED, INTERRUPTED = 1, 130
AHEAD = 1
"""Photos read before they are needed, and results that may wait to be written."""
PAUSE = 1.0
LEFTOVER = re.compile(r"\.impasto-[0-9a-f]{16}\.tmp")

Signature = tuple[int, int]

log = logging.getLogger(__name__)


def rehearse(plan: Plan, *, json: bool) -> int:
    """What --dry-run does: tell which pictures would be made."""
    items = plan.items()
    todo = [item for item in items if plan.force or not item.is_there(plan.record)]
    for item in todo:
        _tell(json, "planned", item)
    typer.echo(f"dry run: {len(todo)} pictures to make, {len(items) - len(todo)} are there already", err=True)
    return 0


def run(plan: Plan, device: str, runtime: str, *, watch: bool, quiet: bool, json: bool) -> int:
    """Make what is not there yet, and with `watch` go on with new photos until Ctrl-C. Returns the exit code."""
    painter = Painter(plan.base, device, runtime)
    try:
        plan.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImpastoError(f"{plan.output} can't be made: {error.strerror}") from None
    session = _Session(plan, painter, quiet, json)
    with _claimed(plan):
        try:
            session.first_round()
            while watch:
                time.sleep(PAUSE)
                session.next_round()
        except KeyboardInterrupt:
            session.interrupted = not (watch and session.idle)
    return session.close()


def _tell(json: bool, status: str, item: Item, **more: Any) -> None:
    """A line on stdout: of a picture that is there or will be its name alone, unless JSON is asked for."""
    if json:
        styles = [str(path) for path in item.recipe.styles]
        line = {"status": status, "output": str(item.target), "content": str(item.content), "styles": styles}
        print_json({**line, **more}, line=True)
    elif status in ("done", "planned"):
        typer.echo(str(item.target))


@contextmanager
def _claimed(plan: Plan) -> Iterator[None]:
    """Hold the folder of the results; whoever holds it alone clears away what a killed run left half-written."""
    try:
        import fcntl
    except ImportError:  # Windows: such files stay; they are hidden and never taken for results
        yield
        return
    handle = os.open(plan.output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(plan)
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError as error:  # another run is at work here, or the file system has no locks
            log.debug("%s is not held alone: %s", plan.output, error)
        yield
    finally:
        os.close(handle)


def _clear(plan: Plan) -> None:
    besides = [beside.name for item in plan.items() if (beside := sidecar(item.target))]
    pattern = "|".join([LEFTOVER.pattern, *(rf"\.{re.escape(name)}\.\w{{8}}" for name in besides)])
    for path in plan.output.iterdir():
        if re.fullmatch(pattern, path.name):
            path.unlink(missing_ok=True)


@dataclass
class _Session:
    """Rounds over the photos that are there, and how all pictures went."""

    plan: Plan
    painter: Painter
    quiet: bool
    json: bool
    done: int = 0
    skipped: int = 0
    failed: int = 0
    interrupted: bool = False
    idle: bool = False
    started: float = field(default_factory=time.monotonic)
    refused: dict[Path, Signature] = field(default_factory=dict)
    """The pictures that failed, by where they would go, and the photos as they were then."""
    seen: dict[Path, Signature] = field(default_factory=dict)
    """The photos as they were when they were last looked for."""

    def first_round(self) -> None:
        """Make all that is not there."""
        todo = []
        for item in self.plan.items():
            if not self.plan.force and item.is_there(self.plan.record):
                self.skipped += 1
                _tell(self.json, "skipped", item)
            else:
                todo.append(item)
        if self.skipped:
            log.info("%d pictures are there already and stay (--force makes them again)", self.skipped)
        self._paint(todo)

    def next_round(self) -> None:
        """Make what new photos ask for, once nobody writes to them any more."""
        try:
            items = self.plan.items()
        except ImpastoError as error:
            log.debug("%s", error)  # a folder that is gone for a while
            return
        now = {item.content: _sign(item.content) for item in items}
        todo = [
            item
            for item in items
            if self.seen.get(item.content) == now[item.content] != self.refused.get(item.target)
            and not item.is_there(self.plan.record)
        ]
        self.seen = now
        self._paint(todo)

    def _paint(self, items: Sequence[Item]) -> None:
        self.idle = not items
        if self.idle:
            return
        title = f"painting {len(items)} pictures with {self.painter.model.name} on {self.painter.model.device.type}"
        with count(title, len(items), self.quiet) as shown, _Round(self, shown) as work:
            work.paint_all(items)
        self.idle = True

    def succeed(self, item: Item, report: dict[str, Any], shown: Count) -> None:
        """Tell of a picture that has been written."""
        self.done += 1
        _tell(self.json, "done", item, **report)
        shown.advance(f"{item.target.name}: {report['seconds']:.1f} s")

    def fail(self, item: Item, error: Exception, shown: Count) -> None:
        """Tell of a picture that could not be made."""
        self.failed += 1
        self.refused[item.target] = _sign(item.content)
        told = _explain(error)
        log.warning("%s: %s", item.target.name, told)
        _tell(self.json, "failed", item, error=told)
        shown.advance(f"{item.target.name}: failed")

    def close(self) -> int:
        """Tell how it all went; returns the exit code."""
        seconds = round(time.monotonic() - self.started, 3)
        told = {"done": self.done, "skipped": self.skipped, "failed": self.failed}
        if self.json:
            print_json({"status": "summary", **told, "interrupted": self.interrupted, "seconds": seconds}, line=True)
        line = ", ".join(f"{number} {name}" for name, number in told.items())
        cut = "interrupted; the same command goes on: " if self.interrupted else ""
        log.log(logging.WARNING if self.failed else logging.INFO, "%s%s in %.1f s", cut, line, seconds)
        return INTERRUPTED if self.interrupted else FAILED if self.failed else 0


class _Round:
    """One round: a thread reads, this one paints, another writes."""

    def __init__(self, session: _Session, shown: Count) -> None:
        self.session, self.shown = session, shown
        self.reader, self.writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        self.writing: deque[tuple[Item, Future[dict[str, Any]]]] = deque()

    def __enter__(self) -> _Round:
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for what is being written; what was only read is dropped."""
        self.reader.shutdown(wait=False, cancel_futures=True)
        self._settle(0)
        self.writer.shutdown()

    def paint_all(self, items: Sequence[Item]) -> None:
        """Paint `items`, those of the same photo in a row."""
        for photo, group in self._read_ahead([list(group) for _, group in groupby(items, lambda i: i.content)]):
            for item in group:
                try:
                    self._paint(item, photo.result())
                except Exception as error:  # whatever one picture fails of, the others are made
                    self.session.fail(item, error, self.shown)
        self._settle(0)

    def _read_ahead(self, groups: Sequence[list[Item]]) -> Iterator[tuple[Future[Picture], list[Item]]]:
        coming: deque[tuple[Future[Picture], list[Item]]] = deque()
        for group in groups:
            coming.append((self.reader.submit(self._read, group[0].content), group))
            if len(coming) > AHEAD:
                yield coming.popleft()
        yield from coming

    def _read(self, path: Path) -> Picture:
        return self.session.painter.fit(open_picture(path))

    def _paint(self, item: Item, photo: Picture) -> None:
        painter = self.session.painter
        job = painter.job(item.recipe, photo, item.recipe.styles)
        watch = Watch()

        def follow(step: Step) -> None:
            watch.see(step)
            self.shown.within(step)

        image = job.paint_bytes(follow) if job.by_windows else job.paint(follow)
        if job.model.interrupted:
            raise KeyboardInterrupt  # a picture that is half done has no place among the results
        self._settle(AHEAD)
        self.writing.append((item, self.writer.submit(self._write, item, job, image, outcome(job, watch))))

    def _write(self, item: Item, job: Job, image: Tensor, report: dict[str, Any]) -> dict[str, Any]:
        made = make_record(item.recipe, job.model, job.size, item.target.parent)
        record = made if self.session.plan.record else None
        write_recorded(image, item.target, record, alpha=job.alpha, overwrite=True)
        return {"record": made, **report}

    def _settle(self, most: int) -> None:
        """Wait until no more than `most` results are to be written."""
        while len(self.writing) > most:
            item, future = self.writing[0]
            try:
                report = future.result()
            except Exception as error:
                self.session.fail(item, error, self.shown)
            else:
                self.session.succeed(item, report, self.shown)
            self.writing.popleft()


def _explain(error: Exception) -> str:
    if isinstance(error, ImpastoError):
        return str(error)
    if is_out_of_memory(error):
        return "not enough memory for this: try a smaller --size"
    return " ".join(f"this should not have happened: {type(error).__name__}: {error}".split())


def _sign(path: Path) -> Signature:
    """By what a file that has changed is known."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
