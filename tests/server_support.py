"""What the tests of the server share: a studio of tiny methods, a client, pictures as bytes."""

from __future__ import annotations

import functools
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impasto.methods import find_method
from impasto.progress import Step
from impasto.server import studio as studio_module
from impasto.server.jobs import Job, JobQueue
from impasto.server.limits import Limits
from impasto.server.studio import Studio
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


@contextmanager
def open_studio(folder: Path, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> Iterator[Studio]:
    """A studio of tiny methods with one worker."""
    monkeypatch.setattr(studio_module, "load", load_tiny)
    studio = Studio(["cpu"], Limits(**limits), folder)
    yield studio
    studio.close()


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


class Gate:
    """Work that holds a worker until it is let go, taking a step now and then."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, job: Job) -> Any:
        from impasto.server.jobs import Outcome

        index = 0
        while not self.open.wait(0.01):
            index += 1
            job.see(Step(index, 1000, {}, lambda: pytest.fail("no preview was asked for")))
        return Outcome(b"done", "text/plain")


@contextmanager
def busy_worker(queue: JobQueue) -> Iterator[Job]:
    """The worker has something to do all the while."""
    gate = Gate()
    job = queue.submit(gate, "cpu")
    wait_until(lambda: job.state == "running")
    try:
        yield job
    finally:
        gate.open.set()


def wait_until(found: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until `found` is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.005)
