"""Small pictures of the built-in styles, each painted at its first request by a separate worker."""

from __future__ import annotations

import threading

from impasto.server.job import Job, Task
from impasto.server.limits import Closing, Limits, Missing
from impasto.server.runner import Runner, Start
from impasto.stylizers.styles import built_in_styles

IDLE_SECONDS = 20.0
"""Seconds without a request after which the worker ends."""

PAINT_SECONDS = 60.0


class Gallery:
    """One landscape in every built-in style, each painted once, on the CPU, independent of the other workers."""

    def __init__(self, limits: Limits, start: Start) -> None:
        self._limits, self._start = limits, start
        self._pictures: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._runner: Runner | None = None
        self._timer: threading.Timer | None = None
        self._closed = False

    def find(self, name: str) -> bytes | None:
        """Return the landscape in the built-in style of that name, None if it is not painted yet; raises Missing."""
        if name not in built_in_styles():
            raise Missing("there is no such style: see GET /v1/styles")
        return self._pictures.get(name)

    def picture(self, name: str) -> bytes:
        """Return the landscape in that style, a JPEG; paint it if necessary."""
        with self._lock:
            if name not in self._pictures:
                self._pictures[name] = self._paint(name)
            return self._pictures[name]

    def _paint(self, name: str) -> bytes:
        if self._timer is not None:
            self._timer.cancel()
        if self._runner is None:
            self._runner = Runner("cpu", self._limits, self._start)
        if self._closed or not self._runner.prepare():
            raise Closing("no work is done here: try again in a minute")
        job = Job(Task({"type": "thumbnail", "style": name}), "cpu", seconds=PAINT_SECONDS)
        self._runner.do(job)
        self._timer = threading.Timer(IDLE_SECONDS, self._rest)
        self._timer.daemon = True
        self._timer.start()
        return job.outcome().data

    def _rest(self) -> None:
        """End the worker; it is started again when needed."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()
                self._runner = None

    def close(self) -> None:
        """End its worker, for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        runner = self._runner
        if runner is not None:
            runner.close()
