"""A worker: one process per device that decodes, paints and encodes, and that can be killed at any moment.

The server's side is `runner.Runner`. Both talk over one connection: tasks, ``stop`` and ``look`` come in; ``ready``,
``step``, ``preview``, ``done`` and ``failed`` go out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from impasto.errors import ImpastoError, is_out_of_memory, printable
from impasto.images.files import encode_picture
from impasto.images.tensors import fit, resize
from impasto.progress import Step
from impasto.server import wire
from impasto.server.limits import TooMuch

PREVIEW_SIDE = 512
PREVIEW_EVERY = 0.7
LOOKED_AT = 10.0
"""Seconds for which previews are made after a request for one."""

STEP_EVERY = 0.05
UNKNOWN = 255
"""The exit code of a process whose parent is gone."""


log = logging.getLogger(__name__)


class Stop(KeyboardInterrupt):
    """Ends an optimisation, which then returns its best picture."""


@dataclass(frozen=True)
class Outcome:
    """The result of a task: a file, its media type, and facts about it."""

    data: bytes
    media_type: str
    about: dict[str, Any] = field(default_factory=dict)


class Progress:
    """The `on_step` of a task: reports steps and previews; raises Stop when the task must end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.stopping, self.step = False, 0
        self.looked_at = self._previewed = self._reported = -LOOKED_AT

    def __call__(self, step: Step) -> None:
        """Report one step."""
        now, self.step = time.monotonic(), step.index
        if now - self._reported > STEP_EVERY or step.index == step.total:
            wire.send(self._connection, {"type": "step", "step": step.index, "steps": step.total})
            self._reported = now
        if step.terms and now - self.looked_at < LOOKED_AT and now - self._previewed > PREVIEW_EVERY:
            wire.send(self._connection, {"type": "preview"}, [_small(step.image())])
            self._previewed = now
        if self.stopping:
            raise Stop


TaskFunction = Callable[[dict[str, Any], list[bytes], Progress], Outcome]


class Worker(Protocol):
    """A worker as the server sees it."""

    connection: Connection

    def alive(self) -> bool:
        """Return whether it still runs."""

    def kill(self) -> int | None:
        """End it at once; returns its exit code if it had already ended."""


class ProcessWorker:
    """A worker in a separate process, which runs ``target(connection, *args)``."""

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        context = wire.process_context()
        self.connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=target, args=(theirs, *args), name="impasto worker", daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    def alive(self) -> bool:
        """Return whether it still runs."""
        return self._process.is_alive()

    def kill(self) -> int | None:
        """End it at once; returns its exit code if it had already ended."""
        self._process.join(0.05)
        code = self._process.exitcode
        self._process.kill()
        # if the fork server is gone, maybe by a signal to all, this one may still run
        if sys.platform != "win32" and code == UNKNOWN and self.pid is not None:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        self._process.join(5)
        return code


class SafeFormatter(logging.Formatter):
    """Escapes control characters: errors may repeat names from files of clients."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        return printable(super().format(record), keep="\n\t")


def run_process(connection: Connection, make: Callable[..., Mapping[str, TaskFunction]], *args: Any) -> None:
    """Run a worker process: ends when the server is gone, and ignores signals meant for the server."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    with contextlib.suppress(OSError):  # if memory runs out, Linux is to end this process, not the server
        Path("/proc/self/oom_score_adj").write_text("500")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(connection, lambda: make(*args), lambda: os._exit(0))


def serve(connection: Connection, make: Callable[[], Mapping[str, TaskFunction]], on_gone: Callable[[], None]) -> None:
    """Do the tasks from `connection`, one after the other, until the server is gone.

    make: returns the tasks by name, warmed up. on_gone: called from another thread when the server is gone, even during
    a task.
    """
    tasks = make()
    inbox: queue.SimpleQueue[tuple[dict[str, Any], list[bytes], Progress] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox, on_gone), daemon=True).start()
    try:
        wire.send(connection, {"type": "ready"})
        while (order := inbox.get()) is not None:
            _do(connection, tasks, *order)
            del order
    except OSError:
        on_gone()


def _listen(connection: Connection, inbox: queue.SimpleQueue[Any], on_gone: Callable[[], None]) -> None:
    """Read messages during tasks, so that these can be stopped."""
    progress = Progress(connection)
    try:
        while True:
            header, blobs = wire.receive(connection)
            if header.get("type") == "stop":
                progress.stopping = True
            elif header.get("type") == "look":
                progress.looked_at = time.monotonic()
            else:
                progress = Progress(connection)
                inbox.put((header, blobs, progress))
    except (EOFError, OSError):
        progress.stopping = True
        inbox.put(None)
        on_gone()


def _do(
    connection: Connection,
    tasks: Mapping[str, TaskFunction],
    header: dict[str, Any],
    blobs: list[bytes],
    progress: Progress,
) -> None:
    try:
        outcome = tasks[header["type"]](header, blobs, progress)
    except Stop:
        wire.send(connection, {"type": "stopped"})
    except Exception as error:  # the worker continues and reports the error
        if is_out_of_memory(error):
            error = TooMuch("not enough memory for this: give a smaller size")
        foreseen = isinstance(error, ImpastoError)
        if not foreseen:
            log.error("a job failed", exc_info=error)
        kind = type(error).__name__ if foreseen else ""
        wire.send(connection, {"type": "failed", "kind": kind, "error": str(error) if foreseen else ""})
    else:
        header = {"type": "done", "media_type": outcome.media_type, "about": outcome.about}
        wire.send(connection, header, [outcome.data])


def _small(image: Tensor) -> bytes:
    height, width = fit(image.shape[-2], image.shape[-1], PREVIEW_SIDE)
    return encode_picture(resize(image, height, width), "JPEG", quality=85)
