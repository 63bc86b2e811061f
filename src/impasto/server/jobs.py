"""Jobs: a bounded queue before each device's one worker; progress, previews, cancelling, results kept for a while."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from impasto.errors import ImpastoError, is_out_of_memory
from impasto.images.files import encode_picture
from impasto.images.tensors import fit, resize
from impasto.progress import Step
from impasto.server.limits import Busy, Limits, Missing, NotReady, TooMuch

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
PREVIEW_SIDE = 512
LOOKED_AT = 10.0
"""Seconds for which a preview is kept fresh after somebody looked."""

PREVIEW_EVERY = 0.7
MOST_JOBS = 1000

log = logging.getLogger(__name__)


class Stop(KeyboardInterrupt):
    """Ends an optimisation, which then gives its best picture."""


@dataclass(frozen=True)
class Outcome:
    """What a job made: a file, its media type, and what there is to tell of it."""

    data: bytes
    media_type: str
    about: dict[str, Any] = field(default_factory=dict)


Work = Callable[["Job"], Outcome]


class Job:
    """One piece of work for one device. held: bytes that it holds while it waits."""

    def __init__(self, work: Work, device: str, *, held: int = 0, seconds: float = 600.0) -> None:
        self.id = secrets.token_urlsafe(16)
        self.device, self.held, self.seconds = device, held, seconds
        self.state: State = "waiting"
        self.step, self.total = 0, 0
        self.created = time.monotonic()
        self.started: float | None = None
        self.ended: float | None = None
        self.error: Exception | None = None
        self.finished: Future[None] = Future()
        self._work: Work | None = work
        self._outcome: Outcome | None = None
        self._stop = False
        self._looked_at = self._previewed = -LOOKED_AT
        self._preview: bytes | None = None

    def see(self, step: Step) -> None:
        """The `on_step` of the job's work: raises Stop if the job was cancelled or has run for too long."""
        self.step, self.total = step.index, step.total
        now = time.monotonic()
        if step.terms and now - self._looked_at < LOOKED_AT and now - self._previewed > PREVIEW_EVERY:
            self._preview, self._previewed = _small(step.image()), now
        if self._stop or (self.started is not None and now - self.started > self.seconds):
            raise Stop

    def cancel(self) -> None:
        """Ask for the end: a job that waits never starts, an optimisation gives its best picture."""
        self._stop = True

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._stop

    def preview(self) -> bytes | None:
        """The picture as it is now, a small JPEG; None if there is none yet. Asking for it keeps it fresh."""
        self._looked_at = time.monotonic()
        return self._preview

    def outcome(self) -> Outcome:
        """What it made; raises what went wrong, or NotReady."""
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
        """What a client is told."""
        end = self.ended if self.ended is not None else time.monotonic()
        running = None if self.started is None else round(end - self.started, 3)
        found: dict[str, Any] = {"id": self.id, "state": self.state, "step": self.step, "steps": self.total}
        found |= {"device": self.device, "seconds": running, "error": None if self.error is None else tell(self.error)}
        return found | {"about": None if self._outcome is None else self._outcome.about}

    def run(self) -> None:
        """Do the work, whatever becomes of it."""
        if not self._stop:
            self.state, self.started = "running", time.monotonic()
            try:
                assert self._work is not None
                self._outcome = self._work(self)
            except KeyboardInterrupt:
                self._stop = True
            except Exception as error:  # the worker must live on; whoever asked for the job is told
                short = is_out_of_memory(error)
                self.error = TooMuch("not enough memory for this: give a smaller size") if short else error
                if not isinstance(self.error, ImpastoError):
                    log.exception("a job failed")
        self.finish()

    def finish(self) -> None:
        """Settle how it ended and let go of what it held."""
        self._work = self._preview = None
        self.ended = time.monotonic()
        timed_out = self.started is not None and self.ended - self.started > self.seconds
        if self._outcome is None and self.error is None and timed_out:
            self.error = TooMuch(f"this took more than {self.seconds:g} s; give a smaller size or fewer steps")
        self.state = "failed" if self.error else "cancelled" if self._outcome is None else "done"
        self.finished.set_result(None)


def tell(error: Exception) -> str:
    """One line for a client; nothing of the inside of a fault of ours."""
    if not isinstance(error, ImpastoError):
        return "this should not have happened; the server's log says more"
    line = " ".join(str(error).split())
    line = line if len(line) < 400 else f"{line[:400]}..."
    return line.encode("utf-8", "replace").decode()


def _small(image: Tensor) -> bytes:
    height, width = fit(image.shape[-2], image.shape[-1], PREVIEW_SIDE)
    return encode_picture(resize(image, height, width), "JPEG", quality=85)


class JobQueue:
    """The jobs of all devices; each has one worker and so many places before it. Many threads may use it."""

    def __init__(self, devices: Sequence[str], limits: Limits) -> None:
        self.limits = limits
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, deque[Job]] = {device: deque() for device in devices}
        self._running: dict[str, Job] = {}
        self._change = threading.Condition()
        self._closed = False
        self._workers = [
            threading.Thread(target=self._serve, args=(device,), name=f"impasto {device}", daemon=True)
            for device in devices
        ]
        for worker in self._workers:
            worker.start()

    def check_room(self) -> str:
        """The device with the shortest queue; raises Busy if that is full, too."""
        with self._change:
            device = min(self._waiting, key=lambda name: len(self._waiting[name]) + (name in self._running))
            held = sum(job.held for jobs in self._waiting.values() for job in jobs)
            full = len(self._waiting[device]) >= self.limits.max_waiting
            if self._closed or full or held > self.limits.max_waiting_bytes:
                raise Busy("all places are taken: try again in a few seconds")
            return device

    def submit(self, work: Work, device: str, *, held: int = 0) -> Job:
        """Queue `work`; raises Busy if there is no place."""
        with self._change:
            self.check_room()
            if len(self._waiting[device]) >= self.limits.max_waiting:
                raise Busy("all places are taken: try again in a few seconds")
            job = Job(work, device, held=held, seconds=self.limits.max_seconds)
            self._forget_old()
            self._jobs[job.id] = job
            self._waiting[device].append(job)
            self._change.notify_all()
        return job

    def find(self, identifier: str) -> Job:
        """The job with that id; raises Missing."""
        with self._change:
            self._forget_old()
            if identifier not in self._jobs:
                raise Missing("there is no such job, or its result is no longer kept")
            return self._jobs[identifier]

    def place(self, job: Job) -> int:
        """How many jobs come before `job`; 0: none."""
        with self._change:
            waiting = self._waiting[job.device]
            return waiting.index(job) + (job.device in self._running) if job in waiting else 0

    def cancel(self, job: Job) -> None:
        """End `job`: at once if it waits, else after its current step, with the best picture so far if there is one."""
        with self._change:
            job.cancel()
            if job in self._waiting[job.device]:
                self._waiting[job.device].remove(job)
                job.finish()

    def forget(self, job: Job) -> None:
        """Cancel `job` and let go of its result."""
        self.cancel(job)
        with self._change:
            self._jobs.pop(job.id, None)

    def close(self, timeout: float = 10.0) -> None:
        """Cancel everything and wait for the workers' current steps."""
        with self._change:
            self._closed = True
            for job in list(self._jobs.values()):
                self.cancel(job)
            self._change.notify_all()
        for worker in self._workers:
            worker.join(timeout)

    @property
    def devices(self) -> tuple[str, ...]:
        """Those that have a worker."""
        return tuple(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether every device has its worker."""
        return not self._closed and all(worker.is_alive() for worker in self._workers)

    def _serve(self, device: str) -> None:
        waiting = self._waiting[device]
        while True:
            with self._change:
                while not waiting and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                job = waiting.popleft()
                self._running[device] = job
            job.run()
            with self._change:
                self._running.pop(device, None)

    def _forget_old(self) -> None:
        """Let go of results that nobody fetched in time, and of the oldest beyond the bytes that are kept."""
        now = time.monotonic()
        ended = [job for job in self._jobs.values() if job.state in ENDED]
        total = sum(job.size for job in ended)
        for job in sorted(ended, key=lambda job: job.ended or 0):
            late = job.ended is not None and now - job.ended > self.limits.keep_seconds
            if late or total > self.limits.keep_bytes or len(self._jobs) > MOST_JOBS:
                total -= job.size
                self._jobs.pop(job.id, None)
