"""What the tests of the server share: a studio of tiny methods, a client, pictures as bytes."""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impasto.methods import find_method
from impasto.progress import Step
from impasto.server import tasks as tasks_module
from impasto.server import wire
from impasto.server.job import Job, TaskData
from impasto.server.jobs import JobQueue
from impasto.server.limits import Limits
from impasto.server.studio import Studio
from impasto.server.worker import Outcome, Progress, TaskFunction, serve
from impasto.stylizers.base import Stylizer
from tiny import narrow, tiny_gatys

ADDRESS = "http://127.0.0.1"


def load_tiny(method: str, *, preset: str = "default", device: str = "cpu", **options: Any) -> Stylizer:
    """As `impasto.load`, with tiny random networks."""
    if method == "gatys":
        return tiny_gatys(**{"steps": 3, "octaves": 0, **options})
    find_method(method).Options.parse(options, method)
    return _narrow(method)


_narrow = functools.cache(narrow)


class ThreadWorker:
    """A worker in a thread of this process, so that tests need no second one; it ends at the next step."""

    def __init__(self, make: Callable[[], Mapping[str, TaskFunction]]) -> None:
        self.connection, theirs = multiprocessing.Pipe()

        def work() -> None:
            with theirs:
                serve(theirs, make, lambda: None)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._thread.is_alive()

    def kill(self) -> int | None:
        code = None if self.alive() else 1
        with contextlib.suppress(OSError):
            wire.send(self.connection, {"type": "stop"})
        self.connection.close()
        return code


def start_thread(folder: Path, device: str, limits: Limits) -> ThreadWorker:
    """A worker with the server's tasks, and those of `odd_tasks`."""
    return ThreadWorker(lambda: {**tasks_module.make_tasks(device, limits, str(folder)), **odd_tasks()})


@contextmanager
def open_studio(folder: Path, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> Iterator[Studio]:
    """A studio of tiny methods with one worker."""
    monkeypatch.setattr(tasks_module, "load", load_tiny)
    studio = Studio(["cpu"], Limits(**limits), folder, functools.partial(start_thread, folder))
    assert studio.queue.wait_until_ready(60)
    yield studio
    studio.close()


@contextmanager
def open_queue(**limits: Any) -> Iterator[JobQueue]:
    """A queue whose worker knows the tasks of `odd_tasks` alone."""
    queue = JobQueue(["cpu"], Limits(**limits), lambda device, limits: ThreadWorker(odd_tasks))
    yield queue
    queue.close()


def picture_bytes(
    seed: int = 1, height: int = 36, width: int = 48, kind: str = "PNG", mode: str = "RGB", **save: Any
) -> bytes:
    """A picture of smooth colours as a file."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    buffer = io.BytesIO()
    image.save(buffer, kind, **save)
    return buffer.getvalue()


GATES: dict[str, threading.Event] = {}


def odd_tasks() -> dict[str, TaskFunction]:
    """Tasks that tests need: one that waits at a gate, taking steps now and then, others that fail or say something."""

    def wait(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
        index = 0
        while not GATES[header["gate"]].wait(0.01):
            index += 1
            progress(Step(index, 1000, {}, lambda: pytest.fail("no preview was asked for")))
        return Outcome(b"done", "text/plain")

    def fail(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
        raise {"fault": ZeroDivisionError("the inside"), "memory": MemoryError()}[header["how"]]

    def say(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
        return Outcome(header["text"].encode(), "text/plain")

    return {"wait": wait, "fail": fail, "say": say}


def gate_task() -> tuple[TaskData, threading.Event]:
    """A task that runs until the gate is opened."""
    name = f"gate {len(GATES)}"
    GATES[name] = threading.Event()
    return TaskData({"type": "wait", "gate": name}), GATES[name]


@contextmanager
def busy_worker(queue: JobQueue) -> Iterator[Job]:
    """The worker has something to do all the while."""
    task, gate = gate_task()
    job = queue.submit(task)
    wait_until(lambda: job.state == "running")
    try:
        yield job
    finally:
        gate.set()


def wait_until(found: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until `found` is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.005)
