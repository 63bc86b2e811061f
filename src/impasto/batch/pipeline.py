"""Pictures by one painter: other threads read photos and write results meanwhile; failures are reported."""

from __future__ import annotations

import io
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from impasto.batch.painter import Painter
from impasto.batch.plan import Item
from impasto.errors import ImpastoError, is_out_of_memory
from impasto.files import is_remote, url_of
from impasto.images.files import Picture, open_picture
from impasto.progress import Step
from impasto.runs.painting import PaintJob, outcome
from impasto.runs.record import digest, digest_of, make_record, sidecar, write_recorded
from impasto.runs.remote_files import put_remote, read_remote

AHEAD = 1
"""Photos that are read ahead, and results that may wait to be written."""

Photo = tuple[Picture, str]
"""A photo at its working size, and the SHA-256 of its file."""


class Outcomes(Protocol):
    """Receives the results of pictures."""

    def succeed(self, item: Item, report: dict[str, Any]) -> None:
        """Report a written picture; report: its record and how the run went."""

    def fail(self, item: Item, reason: str) -> None:
        """Report a picture that could not be made."""

    def within(self, step: Step) -> None:
        """Report a step of the picture that is being painted."""


class Pipeline:
    """A thread reads, this one paints, another writes. A context that ends once everything is written.

    record: whether pictures keep how they were made; run: see `put_remote`; alone: a context that is held while a large
    picture is painted. Once `halted` is set, it begins no more pictures.
    """

    def __init__(
        self,
        painter: Painter,
        outcomes: Outcomes,
        *,
        record: bool,
        run: str = "",
        alone: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.painter, self.outcomes, self.record = painter, outcomes, record
        self.alone, self.halted = alone, False
        self.run = run or new_run()
        self.reader, self.writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        self.writing: deque[tuple[Item, Future[dict[str, Any]]]] = deque()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait until everything is written; photos that were only read are dropped."""
        self.reader.shutdown(wait=False, cancel_futures=True)
        self._wait_for_writes(0)
        self.writer.shutdown()

    def paint_all(self, groups: Iterable[list[Item]]) -> None:
        """Paint all `groups`, made by `by_photo`."""
        for photo, group in self._read_ahead(groups):
            for item in group:
                if self.halted:
                    return
                try:
                    self._paint(item, *photo.result())
                except Exception as error:  # any failure of one picture: the others are made
                    self.outcomes.fail(item, explain(error))
        self._wait_for_writes(0)

    def _read_ahead(self, groups: Iterable[list[Item]]) -> Iterator[tuple[Future[Photo], list[Item]]]:
        coming: deque[tuple[Future[Photo], list[Item]]] = deque()
        for group in groups:
            coming.append((self.reader.submit(self._read, group[0].content), group))
            if len(coming) > AHEAD:
                yield coming.popleft()
        yield from coming

    def _read(self, path: Path) -> Photo:
        if not is_remote(path):
            return self.painter.fit(open_picture(path)), digest(path)
        data = read_remote(path)
        return self.painter.fit(open_picture(io.BytesIO(data), name=url_of(path))), digest_of(data)

    def _paint(self, item: Item, photo: Picture, sha256: str) -> None:
        job = self.painter.job(item.recipe, photo, item.recipe.styles)
        started = time.monotonic()
        with self.alone() if job.large else nullcontext():
            image = job.paint(self.outcomes.within)
        if job.model.interrupted:
            raise KeyboardInterrupt  # no half-painted picture among the results
        self._wait_for_writes(AHEAD)
        known = {**self.painter.digests, item.content: sha256}
        made = make_record(item.recipe, job.model, job.size, item.target.parent, known)
        report = {"record": made, **outcome(job, time.monotonic() - started)}
        self.writing.append((item, self.writer.submit(self._write, item, job, image, report)))

    def _write(self, item: Item, job: PaintJob, image: Tensor, report: dict[str, Any]) -> dict[str, Any]:
        record = report["record"] if self.record else None
        if is_remote(item.target):
            self._put(item, lambda path: write_recorded(image, path, record, alpha=job.alpha))
        else:
            write_recorded(image, item.target, record, alpha=job.alpha, overwrite=True)
        return report

    def _put(self, item: Item, write: Callable[[Path], None]) -> None:
        """Let `write` write locally, then upload; the record last, which shows that a picture is complete."""
        with tempfile.TemporaryDirectory(prefix="impasto-") as folder:
            path = Path(folder, item.target.name)
            write(path)
            for file in (path, sidecar(path)):
                if file is not None and file.exists():
                    put_remote(file.read_bytes(), item.target.with_name(file.name), self.run)

    def _wait_for_writes(self, most: int) -> None:
        """Wait until at most `most` results are unwritten."""
        while len(self.writing) > most:
            item, future = self.writing[0]
            try:
                report = future.result()
            except Exception as error:
                self.outcomes.fail(item, explain(error))
            else:
                self.outcomes.succeed(item, report)
            self.writing.popleft()


def by_photo(items: Iterable[Item]) -> list[list[Item]]:
    """Return pictures of the same photo in groups, if they follow each other."""
    return [list(group) for _, group in groupby(items, lambda item: item.content)]


def new_run() -> str:
    """Return a random mark for the files of one run, see `put_remote`."""
    return secrets.token_hex(4)


def explain(error: Exception) -> str:
    """Return the message for a picture that failed."""
    if isinstance(error, ImpastoError):
        return str(error)
    if is_out_of_memory(error):
        return "not enough memory for this: try a smaller --size"
    return " ".join(f"this should not have happened: {type(error).__name__}: {error}".split())
