"""Tasks of a real worker process that does not behave; they are imported by the process itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from impasto.progress import Step
from impasto.server.worker import Outcome, Progress, TaskFunction


def make_stubborn() -> Mapping[str, TaskFunction]:
    """Tasks that hang, crash, are killed, or say something."""
    return {"hang": hang, "crash": crash, "starve": starve, "say": say, "obey": obey}


def hang(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
    progress(Step(1, 2, {}, lambda: None))  # type: ignore[arg-type, return-value]
    time.sleep(1000)
    raise AssertionError


def crash(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
    os._exit(3)


def starve(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def say(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
    return Outcome(b"".join(blobs), "text/plain", {"text": header["text"]})


def obey(header: dict[str, Any], blobs: list[bytes], progress: Progress) -> Outcome:
    while True:
        progress(Step(1, 2, {}, lambda: None))  # type: ignore[arg-type, return-value]
        time.sleep(0.01)
