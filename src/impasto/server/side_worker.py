"""A worker beside those of the devices, for small things: styles' thumbnails, and what the page shows of uploads."""

from __future__ import annotations

import threading
from typing import Any

from impasto.server.job import Job, TaskData
from impasto.server.limits import Closing, Limits, Missing
from impasto.server.runner import Runner, Start
from impasto.stylizers.styles import built_in_styles

IDLE_SECONDS = 20.0
"""After so long without work its process ends."""

MOST_SECONDS = 60.0


class SideWorker:
    """Does one small task at a time on the CPU, whatever the other workers are doing. Many threads may use it."""

    def __init__(self, limits: Limits, start: Start) -> None:
        self._limits, self._start = limits, start
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self._timer: threading.Timer | None = None
        self._closed = False

    def do(self, header: dict[str, Any], blobs: tuple[bytes, ...] = ()) -> bytes:
        """Return what a task makes; a task that takes too long is killed. Raises ImpastoError."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._runner is None:
                self._runner = Runner("cpu", self._limits, self._start)
            if self._closed or not self._runner.prepare():
                raise Closing("no work is done here: try again in a minute")
            job = Job(TaskData(header, blobs), "cpu", seconds=MOST_SECONDS)
            self._runner.do(job)
            self._timer = threading.Timer(IDLE_SECONDS, self._rest)
            self._timer.daemon = True
            self._timer.start()
            return job.outcome().data

    def _rest(self) -> None:
        """End the process: it is started again if there is a need."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()
                self._runner = None

    def close(self) -> None:
        """End its process, for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        runner = self._runner
        if runner is not None:
            runner.close()


class Gallery:
    """One landscape in every built-in style; made by `worker`, each once."""

    def __init__(self, worker: SideWorker) -> None:
        self._worker = worker
        self._pictures: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> bytes | None:
        """Return the landscape in the built-in style of that name if it is there already; raises Missing."""
        if name not in built_in_styles():
            raise Missing("there is no such style: see GET /v1/styles")
        return self._pictures.get(name)

    def picture(self, name: str) -> bytes:
        """Return the landscape in that style, a JPEG, painted if need be."""
        with self._lock:
            if name not in self._pictures:
                self._pictures[name] = self._worker.do({"type": "thumbnail", "style": name})
            return self._pictures[name]
