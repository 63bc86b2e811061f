"""The server's socket and process: bound before anything is loaded, ended at once on request."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.concurrency import run_in_threadpool

from impasto.errors import ImpastoError
from impasto.server.connections import Connections

if TYPE_CHECKING:
    from impasto.server.studio import Studio

PREFIX = "impasto-serve-"
LOCK = "lock"
BACKLOG = 1024
CLOSING_SECONDS = 2
EVERYWHERE, ELSEWHERE = ("0.0.0.0", "::"), ("192.0.2.1", 9)
"""Addresses that stand for all of this machine's, and one for documentation, which nobody has."""
OF_CLIENTS = ("Invalid HTTP request received", "Unsupported upgrade request", "No supported WebSocket library")
"""What uvicorn logs of clients that talk nonsense, as often as they like; they are answered."""


@dataclass(frozen=True)
class Place:
    """The socket, the named host, the token, and the trusted proxies."""

    listener: socket.socket
    host: str
    token: str
    proxies: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The address for a browser; if it listens at all of them, the one that other machines reach."""
        host = own_address() if self.host in EVERYWHERE else self.host
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.listener.getsockname()[1]}/" + (f"?token={self.token}" if self.token else "")


def own_address() -> str:
    """Return the address of this machine in its network; its name if it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        try:
            found.connect(ELSEWHERE)
        except OSError:
            return socket.gethostname()
        return str(found.getsockname()[0])


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet; raises ImpastoError in one line."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ImpastoError(f"--host {host} is no address of this machine; 127.0.0.1 is for itself alone") from None
    found = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise ImpastoError(_explain(error, host, port)) from None
    return found


def _explain(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken, maybe by another impasto serve: end that, or give --port 0 for any free port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs rights that this user lacks: give a port from 1024 to 65535"
    return f"{host} port {port} can't be listened at: {error.strerror}; give another --host or --port"


class Server(uvicorn.Server):
    """Calls `on_start` once it listens; at the end, jobs end first, so that no client waits for them."""

    def __init__(self, config: uvicorn.Config, studio: Studio, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._studio, self._on_start = studio, on_start

    async def startup(self, sockets: Any = None) -> None:
        """Listen and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: Any = None) -> None:
        """End all jobs, whose clients are answered, then all connections."""
        await run_in_threadpool(self._studio.close)
        await super().shutdown(sockets)


def make_server(
    app: Any, studio: Studio, connections: Connections, on_start: Callable[[], None], proxies: Sequence[str] = ()
) -> Server:
    """Return the server of `app`. proxies: trusted addresses, whose X-Forwarded-For is used."""
    config = uvicorn.Config(
        app,
        http=connections.make,  # type: ignore[arg-type]  # called as a class is
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_keep_alive=int(studio.limits.idle_seconds) + 5,  # connections end earlier, by their own timer
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_of_ours)  # after Config, which sets loggers up
    return Server(config, studio, on_start)


def _is_of_ours(record: logging.LogRecord) -> bool:
    """Whether a line of the log is about this server, not about a client that talks nonsense."""
    return not record.getMessage().startswith(OF_CLIENTS)


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Give a folder in `parent`, removed at the end; folders of killed servers are removed, too."""
    _remove_left_over(parent)
    folder = parent / f"{PREFIX}{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        with (folder / LOCK).open("w") as lock:
            _try_lock(lock)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_over(parent: Path) -> None:
    """Remove folders of dead servers, whose locks are free."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open("r+") as lock:
                gone = _try_lock(lock)
        except OSError:  # another user's, or just being created
            continue
        if gone:
            shutil.rmtree(folder, ignore_errors=True)


def _try_lock(file: Any) -> bool:
    """Return whether this process now holds the lock; always False on systems without such locks."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
