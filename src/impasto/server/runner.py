"""The server's side of a device's worker: starts it, gives it jobs, kills it if a job does not end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from impasto.errors import ImpastoError
from impasto.server import wire
from impasto.server.job import Job
from impasto.server.limits import REFUSALS, Closing, Limits, TooMuch, WorkerFault
from impasto.server.tasks import make_tasks
from impasto.server.worker import LOOKED_AT, Outcome, ProcessWorker, Worker, run_process

Start = Callable[[str, Limits], Worker]
START_SECONDS = 120.0
SEND_SECONDS = 20.0
TICK = 0.05
UNWANTED_SECONDS = 0.3
"""Seconds for a job to end whose result is not needed any more."""

LOOK_EVERY = 1.0

log = logging.getLogger(__name__)


def start_process(folder: Path, device: str, limits: Limits) -> Worker:
    """Return a worker process for `device`, which is ready later. folder: for files while they are used."""
    return ProcessWorker(run_process, make_tasks, device, limits, str(folder))


class Runner:
    """Keeps a worker for `device` and lets it do one job at a time. `do` and `prepare` belong to one thread."""

    def __init__(self, device: str, limits: Limits, start: Start) -> None:
        self.device, self.limits, self._start = device, limits, start
        self._worker: Worker | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self.ready = False
        self.failures = 0
        """Number of failed starts in a row."""
        self.kills = self.deaths = 0

    def prepare(self) -> bool:
        """Return whether a worker is ready; starts one if there is none."""
        if self._worker is not None and self._worker.alive() and self.ready:
            return True
        if self._worker is not None:
            self._note_death()
        if self._closed.is_set():
            return False
        try:
            with self._lock:
                if not self._closed.is_set():
                    self._worker = self._start(self.device, self.limits)
            self.ready = self._worker is not None and self._wait_until_ready(self._worker)
        except Exception:  # any reason: clients that wait must get an answer
            log.exception("no worker for %s", self.device)
        if self.ready:
            self.failures = 0
        elif not self._closed.is_set():
            self.failures += 1
            log.error("the worker for %s does not start", self.device)
            self._drop()
        return self.ready

    def _wait_until_ready(self, worker: Worker) -> bool:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and not self._closed.is_set():
            try:
                if worker.connection.poll(TICK):
                    return bool(wire.receive(worker.connection)[0].get("type") == "ready")
            except (EOFError, OSError):
                return False
        return False

    def do(self, job: Job) -> None:
        """Let the worker do `job` and always set its result or error; a job that does not end in time is killed."""
        worker = self._worker
        assert worker is not None
        job.begin()
        asked_at = looked_at = 0.0
        try:
            self._send_task(worker, job)
            while True:
                if worker.connection.poll(TICK) and self._take(job, *wire.receive(worker.connection)):
                    return
                if self._closed.is_set():
                    raise EOFError
                now = time.monotonic()
                if not asked_at and (job.stopping or job.late):
                    wire.send(worker.connection, {"type": "stop"})
                    asked_at = now
                if asked_at and now - asked_at > (UNWANTED_SECONDS if job.unwanted else self.limits.stop_seconds):
                    self.kills += 1
                    self._drop()
                    job.finish()
                    return
                if now - job.looked_at < LOOKED_AT and now - looked_at > LOOK_EVERY:
                    wire.send(worker.connection, {"type": "look"})
                    looked_at = now
        except (EOFError, OSError):
            job.finish(error=self._explain_death())

    def _send_task(self, worker: Worker, job: Job) -> None:
        """Send the task; a worker that does not receive it is killed."""
        header, blobs = job.take_task()
        watch = threading.Timer(SEND_SECONDS, worker.kill)
        watch.daemon = True
        watch.start()
        try:
            wire.send(worker.connection, header, blobs)
        finally:
            watch.cancel()

    def _take(self, job: Job, header: dict[str, Any], blobs: list[bytes]) -> bool:
        """Handle a message of the worker; returns whether the job has ended."""
        kind = header.get("type")
        if kind == "step":
            job.step, job.total = int(header["step"]), int(header["steps"])
        elif kind == "preview":
            job.show(blobs[0])
        elif kind == "done":
            job.finish(Outcome(blobs[0], str(header["media_type"]), dict(header["about"])))
        elif kind == "failed":
            job.finish(error=_error(str(header["kind"]), str(header["error"])))
        elif kind == "stopped":
            job.finish()
        return kind in ("done", "failed", "stopped")

    def _explain_death(self) -> Exception:
        """Return the error of a job whose worker is gone."""
        if self._closed.is_set():
            return Closing("the server is shutting down: try again in a minute")
        code = self._note_death()
        if code is not None and code in (-9, 137):
            return TooMuch("the system ended this job, most likely for want of memory: give a smaller size")
        return WorkerFault(f"the worker ended with code {code}")

    def _note_death(self) -> int | None:
        self.deaths += 1
        code = self._drop()
        log.error("the worker for %s ended unexpectedly (code %s); another one is started", self.device, code)
        return code

    def _drop(self) -> int | None:
        """Kill the worker; returns its exit code if it had already ended."""
        with self._lock:
            worker, self._worker, self.ready = self._worker, None, False
        if worker is None:
            return None
        code = worker.kill()
        worker.connection.close()
        return code

    def close(self) -> None:
        """End the worker at once, for good; may be called from any thread."""
        self._closed.set()
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.kill()


def _error(kind: str, message: str) -> Exception:
    """Return the exception that a worker reported."""
    return REFUSALS.get(kind, ImpastoError)(message) if kind else WorkerFault("a job failed")
