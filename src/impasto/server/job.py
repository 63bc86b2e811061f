"""A job: one task for one device, and its result."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from impasto.errors import ImpastoError, one_line
from impasto.server.limits import NotReady, TooMuch
from impasto.server.worker import LOOKED_AT, Outcome

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
LONGEST_LINE = 400


@dataclass(frozen=True)
class TaskData:
    """The work of a worker: a header that describes it, and files."""

    header: Mapping[str, Any]
    blobs: tuple[bytes, ...] = ()


class Job:
    """One task for one device, and its result."""

    def __init__(self, task: TaskData, device: str, *, seconds: float = 600.0, client: str = "") -> None:
        self.id = secrets.token_urlsafe(16)
        self.device, self.seconds, self.client = device, seconds, client
        self.held = sum(map(len, task.blobs))
        self.state: State = "waiting"
        self.step, self.total = 0, 0
        self.created = time.monotonic()
        self.started: float | None = None
        self.ended: float | None = None
        self.error: Exception | None = None
        self.finished: Future[None] = Future()
        self.stopping = self.unwanted = False
        self.looked_at = -LOOKED_AT
        self._task: TaskData | None = task
        self._outcome: Outcome | None = None
        self._preview: bytes | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Note that it has begun."""
        self.state, self.started = "running", time.monotonic()

    def take_task(self) -> tuple[Mapping[str, Any], tuple[bytes, ...]]:
        """Return the task, once: the files are released."""
        task, self._task = self._task, None
        assert task is not None
        return task.header, task.blobs

    @property
    def late(self) -> bool:
        """Whether it has run too long."""
        return self.started is not None and time.monotonic() - self.started > self.seconds

    def show(self, preview: bytes) -> None:
        """Keep a preview, a small JPEG."""
        self._preview = preview

    def preview(self) -> bytes | None:
        """Return a preview, a small JPEG, or None; each request keeps previews coming."""
        self.looked_at = time.monotonic()
        return self._preview

    def outcome(self) -> Outcome:
        """Return its result; raises its error, or NotReady."""
        if self.error is not None:
            raise self.error
        if self._outcome is None:
            words = "was cancelled before there was a picture" if self.state == "cancelled" else "is not done yet"
            raise NotReady(f"this job {words}")
        return self._outcome

    @property
    def size(self) -> int:
        """Bytes of its result."""
        return 0 if self._outcome is None else len(self._outcome.data)

    def describe(self) -> dict[str, Any]:
        """Return the job's state for clients."""
        end = self.ended if self.ended is not None else time.monotonic()
        running = None if self.started is None else round(end - self.started, 3)
        found: dict[str, Any] = {"id": self.id, "state": self.state, "step": self.step, "steps": self.total}
        found |= {"device": self.device, "seconds": running, "left": self._seconds_left(running)}
        found |= {"error": None if self.error is None else tell(self.error)}
        return found | {"about": None if self._outcome is None else self._outcome.about}

    def _seconds_left(self, running: float | None) -> float | None:
        """Return the seconds until its end, estimated from the steps so far."""
        if self.state in ENDED or not running or not 0 < self.step <= self.total:
            return None
        return round(running / self.step * (self.total - self.step), 1)

    def finish(self, outcome: Outcome | None = None, error: Exception | None = None) -> None:
        """Set the result or the error, once."""
        with self._lock:
            if self.state in ENDED:
                return
            if outcome is None and error is None and self.late:
                error = TooMuch(f"this took more than {self.seconds:g} s; give a smaller size or fewer steps")
            self._task = self._preview = None
            self.ended, self.error, self._outcome = time.monotonic(), error, outcome
            self.state = "failed" if error else "cancelled" if outcome is None else "done"
        self.finished.set_result(None)


def tell(error: Exception) -> str:
    """Return one line for a client, without control characters, and without details of internal faults."""
    if not isinstance(error, ImpastoError):
        return "this should not have happened; the server's log says more"
    line = one_line(str(error)[: 4 * LONGEST_LINE])
    return line if len(line) < LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
