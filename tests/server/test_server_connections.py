"""Clients that are silent, slow or gone: by real sockets; nobody else waits for them."""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from impasto.server.app import create_app
from impasto.server.connections import Connections
from impasto.server.limits import Limits
from impasto.server.listen import bind, make_server
from impasto.server.studio import Studio
from server_support import ThreadWorker, odd_tasks, wait_until

PATIENCE = 5.0
"""Seconds that a client may have to wait, whatever others do."""

Open = Callable[..., "Place"]


class Place:
    """A running server, and clients of it."""

    def __init__(self, port: int, connections: Connections, stack: contextlib.ExitStack) -> None:
        self.port, self.connections, self._stack = port, connections, stack

    def connect(self, data: bytes = b"") -> socket.socket:
        """A connection over which `data` was sent and no more."""
        found = self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=20))
        found.sendall(data)
        return found

    def ask(self, method: str = "GET", path: str = "/health", body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of an answer; it must come in time."""
        start = time.monotonic()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as client:
            client.request(method, path, body, {"Content-Type": "application/json"})
            answer = client.getresponse()
            found = answer.status, answer.read()
        assert time.monotonic() - start < PATIENCE
        return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def open_one(**values: Any) -> Place:
            limits = Limits(**values)
            studio = Studio(["cpu"], limits, tmp_path, lambda device, limits: ThreadWorker(odd_tasks))
            connections = Connections(limits)
            app = create_app(studio, connections=connections)
            listener = stack.enter_context(bind("127.0.0.1", 0))
            server = make_server(app, studio, connections, lambda: None)
            thread = threading.Thread(target=functools.partial(server.run, [listener]), daemon=True)
            thread.start()
            stack.callback(thread.join, 20)
            stack.callback(setattr, server, "should_exit", True)
            wait_until(lambda: server.started)
            return Place(listener.getsockname()[1], connections, stack)

        yield open_one


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_nonsense_is_answered_and_not_logged(serve: Open) -> None:
    place, lines = serve(), Lines()
    log = logging.getLogger("uvicorn.error")
    log.addHandler(lines)
    try:
        upgrade = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        for data, status in ((b"\x16\x03\x01\x02\r\n\r\n", b"400"), (b"\x00" * 300, b"400"), (upgrade, b"200")):
            assert place.connect(data).recv(100).startswith(b"HTTP/1.1 " + status)
        assert lines.lines == []
        log.warning("something of ours")
        assert lines.lines == ["something of ours"]
    finally:
        log.removeHandler(lines)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed it; waits for that."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


HALF_HEADER = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-"
HALF_BODY = (
    b"POST /v1/stylize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
)


@pytest.mark.parametrize("sent", [b"", HALF_HEADER], ids=["idle", "half a header"])
def test_silent_connections_make_room(serve: Open, sent: bytes) -> None:
    place = serve(max_connections=10, max_client_connections=10, header_seconds=100)
    silent = [place.connect(sent) for _ in range(30)]
    assert place.ask() == (200, b'{"status":"ok"}')
    assert len(place.connections.open) <= 10
    assert place.connections.counts["evicted"] >= 20
    assert is_closed(silent[0])


@pytest.mark.parametrize("sent", [b"", HALF_HEADER], ids=["idle", "half a header"])
def test_a_header_has_to_come_in_time(serve: Open, sent: bytes) -> None:
    place = serve(header_seconds=0.1)
    assert is_closed(place.connect(sent))
    assert place.connections.counts["header"] == 1


def test_a_header_that_comes_byte_by_byte_gains_no_time(serve: Open) -> None:
    place = serve(header_seconds=0.3)
    connection = place.connect()
    with pytest.raises(OSError):  # noqa: PT012
        for _ in range(2000):
            connection.sendall(b"G")
            time.sleep(0.01)
    assert place.connections.counts["header"] == 1


def test_half_bodies_keep_nobody_waiting(serve: Open) -> None:
    place = serve(stall_seconds=100, receive_seconds=100)
    for _ in range(40):
        place.connect(HALF_BODY)
    status, body = place.ask("POST", "/v1/stylize", b"{}")
    assert (status, b"content" in body) == (400, True)


def test_half_bodies_on_all_connections_make_room(serve: Open) -> None:
    place = serve(max_connections=8, max_client_connections=8, stall_seconds=100, receive_seconds=100)
    held = [place.connect(HALF_BODY) for _ in range(8)]
    wait_until(lambda: sum(one.trickles for one in list(place.connections.open)) == 8)
    assert place.ask("POST", "/v1/stylize", b"{}")[0] == 400
    assert is_closed(held[0])
    assert place.connections.counts["evicted"] == 1


def test_bodies_hold_no_more_than_they_may_and_the_slowest_makes_room(serve: Open) -> None:
    place = serve(max_receiving_bytes=300_000, max_bytes=400_000, stall_seconds=100)
    head = HALF_BODY.replace(b": 1000", b": 390000")
    slow = place.connect(head + b" " * 150_000)
    time.sleep(0.3)
    quick = place.connect(head + b" " * 250_000)
    assert slow.recv(10_000).startswith(b"HTTP/1.1 408 ")
    quick.sendall(b" " * 139_999)
    assert quick.recv(10_000).startswith(b"HTTP/1.1 400 ")


def test_a_body_has_to_go_on(serve: Open) -> None:
    place = serve(stall_seconds=0.1)
    connection = place.connect(HALF_BODY)
    answer = b"".join(iter(lambda: connection.recv(10_000), b""))  # head and body may come one after the other
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"sent too slowly" in answer


def test_a_body_has_to_end(serve: Open) -> None:
    place = serve(receive_seconds=0.3, stall_seconds=100)
    connection = place.connect(HALF_BODY)
    connection.settimeout(0.01)
    answer = b""
    for _ in range(900):
        try:
            answer = connection.recv(10_000)
            break
        except TimeoutError:
            connection.sendall(b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_serves_several_requests_and_then_ends(serve: Open) -> None:
    place = serve(idle_seconds=0.2)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", place.port, timeout=20)) as client:
        for _ in range(3):
            client.request("GET", "/health")
            assert client.getresponse().read() == b'{"status":"ok"}'
        assert place.connections.counts["accepted"] == 1
        wait_until(lambda: place.connections.counts["idle"] == 1)
    assert not place.connections.open


def test_an_answer_has_to_be_read(serve: Open) -> None:
    place = serve(receive_seconds=0.1, max_client_connections=1)
    place.connect(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200)
    wait_until(lambda: place.connections.counts["unread"] == 1)
    assert place.ask()[0] == 200


def test_requests_under_way_are_not_closed_for_others(serve: Open) -> None:
    place = serve(max_connections=4, max_client_connections=4, stall_seconds=100)
    busy = [place.connect(HALF_BODY) for _ in range(4)]
    wait_until(lambda: sum(one.busy for one in list(place.connections.open)) == 4)
    for one in list(place.connections.open):
        one._began = time.monotonic() + 100  # as if they had just begun
    connection = place.connect()
    refused = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"too many connections" in refused
    busy[0].sendall(b" " * 999)
    assert busy[0].recv(10_000).startswith(b"HTTP/1.1 400 ")


def test_aborted_uploads_are_quiet(serve: Open, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    place = serve()
    for _ in range(3):
        place.connect(HALF_BODY).close()
    wait_until(lambda: place.connections.counts["accepted"] == 3 and not place.connections.open)
    assert place.ask()[0] == 200
    assert caplog.text == ""


def test_metrics_and_access_log_tell_what_happened(serve: Open, caplog: pytest.LogCaptureFixture) -> None:
    place = serve()
    caplog.set_level(logging.INFO, "impasto-access")
    assert place.ask("GET", "/v1/jobs/%1b%5d0;x?token=secret-one")[0] == 404
    assert place.ask("GET", "/nothing")[0] == 404
    lines = place.ask("GET", "/metrics")[1].decode().splitlines()
    assert 'impasto_requests_total{route="/v1/jobs/{job}",method="GET",status="404"} 1' in lines
    assert 'impasto_requests_total{route="other",method="GET",status="404"} 1' in lines
    assert 'impasto_jobs_waiting{device="cpu"} 0' in lines
    assert 'impasto_worker_ready{device="cpu"} 1' in lines
    assert 'impasto_connections_total{what="accepted"} 3' in lines
    for line in lines:
        assert line.startswith("# ") or float(line.rsplit(" ", 1)[1]) >= 0
    text = caplog.text
    assert "\x1b" not in text
    assert "secret-one" not in text
    assert '"route": "/v1/jobs/{job}", "status": 404' in text
