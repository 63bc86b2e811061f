"""Worker processes and their messages: a JSON header and byte strings; nothing is unpickled."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

MOST_BYTES = 2**31 - 1
MOST_BLOBS = 1000
START_METHOD = "IMPASTO_START_METHOD"
"""The environment variable by which tests choose how processes are started, as on systems without a fork server."""

LONGEST_FOLDER = 75
"""Longest path, in bytes, of the folder for temporary files with which a fork server's socket has a valid name."""


def process_context() -> Any:
    """Return how worker processes are started: on Linux as forks of a process that has loaded everything.

    If called early, that process loads in parallel with this one. On other systems, and if the path of the folder for
    temporary files is too long for a socket, each worker is a new process.
    """
    long = len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER
    if sys.platform != "linux" or long or os.environ.get(START_METHOD) == "spawn":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["impasto.server.tasks"])
    forkserver.ensure_running()
    return context


def send(connection: Connection, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send one message; raises OSError if the other side is gone."""
    connection.send_bytes(json.dumps({**header, "blobs": len(blobs)}).encode())
    for blob in blobs:
        connection.send_bytes(blob)


def receive(connection: Connection) -> tuple[dict[str, Any], list[bytes]]:
    """Wait for one message; raises EOFError or OSError if the other side is gone or the message is invalid."""
    try:
        header = json.loads(connection.recv_bytes(MOST_BYTES))
        count = header.pop("blobs")
        if not isinstance(count, int) or not 0 <= count <= MOST_BLOBS:
            raise ValueError
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise OSError("a message that can't be read") from None
    return header, [connection.recv_bytes(MOST_BYTES) for _ in range(count)]
