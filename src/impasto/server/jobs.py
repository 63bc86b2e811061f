"""The jobs of all devices: a bounded queue for each worker, cancelling, results kept for a while."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from impasto.errors import ImpastoError
from impasto.server.job import ENDED, Job, TaskData
from impasto.server.limits import Busy, Closing, Limits, Missing
from impasto.server.runner import Runner, Start

MOST_JOBS = 1000
MOST_FAILURES = 3
PATIENCE = 1.0
"""Seconds between checks of an idle worker."""


class JobQueue:
    """The jobs of all devices; each device has one worker and a bounded queue. Thread-safe."""

    def __init__(self, devices: Sequence[str], limits: Limits, start: Start) -> None:
        self.limits = limits
        self.ended = dict.fromkeys(ENDED, 0)
        """Number of ended jobs by state."""
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, deque[Job]] = {device: deque() for device in devices}
        self._running: dict[str, Job] = {}
        self._change = threading.Condition()
        self._closed = False
        self._runners = {device: Runner(device, limits, start) for device in devices}
        self._threads = [
            threading.Thread(target=self._serve, args=(device,), name=f"impasto {device}", daemon=True)
            for device in devices
        ]
        for thread in self._threads:
            thread.start()

    def check_room(self, client: str = "") -> str:
        """Return the device with the shortest queue; raises Busy if all are full, Closing if there is no worker.

        client: the address of the client, whose places are limited; empty: no client.
        """
        with self._change:
            there = [device for device, runner in self._runners.items() if runner.failures < MOST_FAILURES]
            if self._closed:
                raise Closing("the server is shutting down: try again in a minute")
            if not there:
                raise Closing("no work is done here: its worker does not start; the server's log says more")
            device = min(there, key=lambda name: len(self._waiting[name]) + (name in self._running))
            held = sum(job.held for jobs in self._waiting.values() for job in jobs)
            if len(self._waiting[device]) >= self.limits.max_waiting or held > self.limits.max_waiting_bytes:
                raise Busy("all places are taken: try again in a few seconds")
            own = sum(job.client == client for jobs in self._waiting.values() for job in jobs)
            if client and own >= self.limits.max_client_waiting:
                raise Busy(f"{own} jobs of yours are waiting: try again when one of them has begun")
            return device

    def submit(self, task: TaskData, client: str = "") -> Job:
        """Queue a task; raises Busy if there is no place."""
        with self._change:
            device = self.check_room(client)
            job = Job(task, device, seconds=self.limits.max_seconds, client=client)
            self._forget_old()
            self._jobs[job.id] = job
            self._waiting[device].append(job)
            self._change.notify_all()
        return job

    def find(self, identifier: str) -> Job:
        """Return the job with that id; raises Missing."""
        with self._change:
            self._forget_old()
            if identifier not in self._jobs:
                raise Missing("there is no such job, or its result is no longer kept")
            return self._jobs[identifier]

    def place(self, job: Job) -> int:
        """Return how many jobs come before `job`; 0: none."""
        with self._change:
            waiting = self._waiting[job.device]
            return waiting.index(job) + (job.device in self._running) if job in waiting else 0

    def cancel(self, job: Job) -> None:
        """End `job`: at once if it waits, else after its current step, with the best picture so far if there is one.

        If there is none within `Limits.stop_seconds`, the job is killed.
        """
        with self._change:
            job.stopping = True
            if job in self._waiting[job.device]:
                self._waiting[job.device].remove(job)
                self._end_waiting(job)

    def forget(self, job: Job) -> None:
        """End `job`, by force if necessary, and drop its result."""
        job.unwanted = True
        self.cancel(job)
        with self._change:
            self._jobs.pop(job.id, None)

    def close(self, timeout: float = 10.0) -> None:
        """End everything now; clients that wait for a job get an answer."""
        with self._change:
            self._closed = True
            for waiting in self._waiting.values():
                while waiting:
                    self._end_waiting(waiting.popleft(), Closing("the server is shutting down: try again in a minute"))
            self._change.notify_all()
        for runner in self._runners.values():
            runner.close()
        for thread in self._threads:
            thread.join(timeout)

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices."""
        return tuple(self._waiting)

    def wait_until_ready(self, seconds: float) -> bool:
        """Wait until every device has its worker; returns whether all have."""
        end = time.monotonic() + seconds
        with self._change:
            while not all(runner.ready for runner in self._runners.values()):
                broken = any(runner.failures >= MOST_FAILURES for runner in self._runners.values())
                if self._closed or broken or time.monotonic() > end:
                    return False
                self._change.wait(0.05)
        return True

    def obstacle(self) -> str:
        """Return why a request for a picture would be refused now; empty if it would not."""
        try:
            device = self.check_room()
        except ImpastoError as error:
            return str(error)
        return "" if self._runners[device].ready else f"the worker for {device} is starting"

    def count(self) -> dict[str, dict[str, int]]:
        """Return numbers by device: jobs waiting and running, workers ready, killed and lost."""
        with self._change:
            return {
                device: {
                    "waiting": len(self._waiting[device]),
                    "running": int(device in self._running),
                    "ready": int(runner.ready),
                    "kills": runner.kills,
                    "deaths": runner.deaths,
                }
                for device, runner in self._runners.items()
            }

    def _serve(self, device: str) -> None:
        runner = self._runners[device]
        while not self._closed:
            if not runner.prepare():
                with self._change:
                    if not self._closed:
                        self._change.wait(min(2**runner.failures, 30))
                continue
            job = self._next(device)
            if job is not None:
                runner.do(job)
                with self._change:
                    self._running.pop(device, None)
                    self.ended[job.state] += 1

    def _next(self, device: str) -> Job | None:
        """Return the next job, or None after a while without one."""
        with self._change:
            if not self._waiting[device] and not self._closed:
                self._change.wait(PATIENCE)
            if self._closed or not self._waiting[device]:
                return None
            self._running[device] = job = self._waiting[device].popleft()
            return job

    def _end_waiting(self, job: Job, error: Exception | None = None) -> None:
        """End a job that never started."""
        job.finish(error=error)
        self.ended[job.state] += 1

    def _forget_old(self) -> None:
        """Drop results that were not fetched in time, and the oldest beyond the limit of bytes."""
        now = time.monotonic()
        ended = [job for job in self._jobs.values() if job.state in ENDED]
        total = sum(job.size for job in ended)
        for job in sorted(ended, key=lambda job: job.ended or 0):
            late = job.ended is not None and now - job.ended > self.limits.keep_seconds
            if late or total > self.limits.keep_bytes or len(self._jobs) > MOST_JOBS:
                total -= job.size
                self._jobs.pop(job.id, None)
