"""Connections under limits: timeouts for header, idle and sending; silent clients make room for others.

uvicorn counts every open connection as work and refuses all clients once there are too many. Here, if a new client
needs a place, the longest idle connection is closed, or else the slowest one whose request trickles in; complete
requests are never closed for others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from impasto.server.limits import Limits

if TYPE_CHECKING:
    from uvicorn.config import Config

SLOW_AFTER, SLOW_RATE = 0.5, 10_000
"""A body may be dropped after this many seconds, and below this many bytes a second."""

REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 3\r\nconnection: close\r\n\r\n"
    b'{"error": "too many connections: try again in a few seconds"}'
)


class Connections:
    """The open connections of a server. proxies: addresses of proxies, which do not count as one client."""

    def __init__(self, limits: Limits, proxies: frozenset[str] = frozenset()) -> None:
        self.limits, self.proxies = limits, proxies
        self.open: dict[Connection, str] = {}
        """Connections with their client's address, the oldest first."""
        self.counts: Counter[str] = Counter()
        """Counts: accepted, refused, evicted, and timeouts by kind."""

    def make(self, *args: Any, **values: Any) -> Connection:
        """Return a protocol for uvicorn."""
        return Connection(self, *args, **values)

    def add(self, connection: Connection, address: str) -> bool:
        """Add a connection, if necessary in place of an idle one; returns whether there was room."""
        own = [one for one, other in self.open.items() if other == address]
        crowded = len(own) >= self.limits.max_client_connections and address not in self.proxies
        if crowded and not self._evict(own):
            return self._refuse()
        if len(self.open) >= self.limits.max_connections and not self._evict(list(self.open)):
            return self._refuse()
        self.open[connection] = address
        self.counts["accepted"] += 1
        return True

    def _refuse(self) -> bool:
        self.counts["refused"] += 1
        return False

    def _evict(self, connections: list[Connection]) -> bool:
        silent = [one for one in connections if not one.busy]
        slow = [one for one in connections if one.trickles]
        if silent or slow:
            found = min(silent, key=lambda one: one.heard_at) if silent else min(slow, key=lambda one: one.rate)
            self.end(found, "evicted")
        return bool(silent or slow)

    def end(self, connection: Connection, reason: str) -> None:
        """Close a connection at once."""
        self.counts[reason] += 1
        self.open.pop(connection, None)
        connection.transport.abort()


class Connection(H11Protocol):
    """A connection like uvicorn's, with a deadline whenever it waits for the client."""

    def __init__(self, table: Connections, config: Config, **values: Any) -> None:
        super().__init__(config, **values)
        self._table = table
        self._deadline: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._awaited = ""
        self._began, self._received = 0.0, 0
        self.heard_at = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a request with a complete header is in progress."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def rate(self) -> float:
        """Bytes a second of the request that is being received."""
        return self._received / max(time.monotonic() - self._began, 1e-3)

    @property
    def trickles(self) -> bool:
        """Whether the body of a request comes in more slowly than real pictures do."""
        receiving = self.busy and self.cycle.more_body
        return receiving and time.monotonic() - self._began > SLOW_AFTER and self.rate < SLOW_RATE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Add or refuse the connection."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if not self._table.add(self, str(peer[0]) if isinstance(peer, tuple) else ""):
            transport.write(REFUSAL)
            transport.close()
            return
        self._expect("header", self._table.limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        self._table.open.pop(self, None)
        for timer in (self._deadline, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive data; a header that has begun must be complete in time."""
        was_busy, self.heard_at = self.busy, time.monotonic()
        self._received += len(data)
        super().data_received(data)
        if self.busy and not was_busy:
            self._began, self._received = self.heard_at, 0
        if self.busy:
            self._expect("", 0)
        elif self._awaited != "header":
            self._expect("header", self._table.limits.header_seconds)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.busy and not self.transport.is_closing():
            self.heard_at = time.monotonic()
            self._expect("idle", self._table.limits.idle_seconds)

    def pause_writing(self) -> None:
        """Start a deadline: the client does not read."""
        super().pause_writing()
        self._writing = self.loop.call_later(self._table.limits.receive_seconds, self._table.end, self, "unread")

    def resume_writing(self) -> None:
        """End the deadline: the client reads."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def _expect(self, what: str, seconds: float) -> None:
        """Close the connection if nothing happens within `seconds`; 0: wait forever."""
        self._awaited = what
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds and not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self._table.end, self, what)
