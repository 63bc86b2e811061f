"""Messages between the server and its worker processes: a JSON header and byte strings. Nothing is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

MOST_BYTES = 2**31 - 1
MOST_BLOBS = 1000


def send(connection: Connection, header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send one message; raises OSError if nobody receives any more."""
    connection.send_bytes(json.dumps({**header, "blobs": len(blobs)}).encode())
    for blob in blobs:
        connection.send_bytes(blob)


def receive(connection: Connection) -> tuple[dict[str, Any], list[bytes]]:
    """Wait for one message; raises EOFError or OSError if the other side is gone or talks nonsense."""
    try:
        header = json.loads(connection.recv_bytes(MOST_BYTES))
        count = header.pop("blobs")
        if not isinstance(count, int) or not 0 <= count <= MOST_BLOBS:
            raise ValueError
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise OSError("a message that can't be read") from None
    return header, [connection.recv_bytes(MOST_BYTES) for _ in range(count)]
