"""Checks before every request: token, origin, bytes, seconds; and the headers of every answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.datastructures import URL, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impasto.server.limits import Limits
from impasto.server.metrics import Metrics

COOKIE = "impasto_token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN_PATHS = ("/health", "/ready")
READING = ("GET", "HEAD", "OPTIONS")
METHODS = (*READING, "POST", "PUT", "PATCH", "DELETE")
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"))

PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
"""A refusal in the OpenAPI document."""

log = logging.getLogger(__name__)
access = logging.getLogger("impasto-access")  # separate from the loggers of the terminal


def refuse(status: int, message: str, **headers: str) -> JSONResponse:
    """Return a refusal with a reason in one line."""
    return JSONResponse({"error": message}, status, headers)


class Guard:
    """The outermost ASGI application around `app`. token: required except for health and readiness, if not empty.

    Without a token, only requests to the loopback's names are answered, so that no web page can reach the server under
    its own domain. In any case, a request that changes something must not come from another site's page.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str = "") -> None:
        self.app, self.limits, self.metrics, self.token = app, limits, metrics, token
        self.reception = Reception(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, count it and log it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, send)
        if scope["method"] == "HEAD":  # the server in front leaves the body out
            scope = {**scope, "method": "GET"}
        body: _Body | None = None
        try:
            answer = self._check(scope, exchange.headers)
            if answer is None and scope["method"] not in READING:
                body = self.reception.admit(receive)
            await (answer or self.app)(scope, body or receive, exchange.send)
        except ClientDisconnect:  # the client is gone
            exchange.gone = True
        except Exception:
            log.exception("a request failed: %s", exchange.id)
            if not exchange.status:
                fault = refuse(500, "this should not have happened; the server's log says more")
                await fault(scope, receive, exchange.send)
        finally:
            exchange.route = getattr(scope.get("route"), "path", "") or "other"
            if body is not None:
                body.end()
                exchange.received = body.count
            exchange.finish(self.metrics)

    def _check(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        host = headers.get("host", "")
        if not self.token and _split(f"http://{host}")[1] not in LOOPBACK:
            return refuse(403, "this server answers only on this machine; start it with a token to open it to others")
        origin = headers.get("origin")
        if scope["method"] not in READING and origin is not None and _split(origin)[0] != host:
            return refuse(403, "requests from other sites' pages are refused")
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or len(declared) > 18 or int(declared) > self.limits.max_bytes:
            return refuse(413, f"a request may have at most {self.limits.max_bytes} bytes")
        return self._check_token(scope, headers) if self.token and scope["path"] not in OPEN_PATHS else None

    def _check_token(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._fits(bearer.strip()):
            return None
        if self._fits(cookie_parser(headers.get("cookie", "")).get(COOKIE, "")):
            return None
        query = QueryParams(scope["query_string"])
        if self._fits(query.get("token", "")) and scope["method"] == "GET":
            left = QueryParams([(name, value) for name, value in query.multi_items() if name != "token"])
            answer = RedirectResponse("/" + scope["path"].lstrip("/\\") + (f"?{left}" if left else ""), 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="lax")
            return answer
        return refuse(
            401,
            "a token is needed: open the address with ?token=TOKEN, or send the header Authorization: Bearer TOKEN",
            **{"WWW-Authenticate": "Bearer"},
        )

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


class Reception:
    """The bodies that are being received. If they hold too many bytes together, the slowest is dropped."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bodies: set[_Body] = set()

    def admit(self, receive: Receive) -> _Body:
        """Return a new body to receive."""
        body = _Body(receive, self)
        self.bodies.add(body)
        return body

    def make_room(self) -> None:
        """Drop bodies until the others are within the limit."""
        while len(self.bodies) > 1 and sum(body.count for body in self.bodies) > self.limits.max_receiving_bytes:
            min(self.bodies, key=lambda body: body.rate).give_up()


class _Body:
    """A request's body as it comes in: counted and timed."""

    def __init__(self, receive: Receive, reception: Reception) -> None:
        self.receive, self.reception, self.limits = receive, reception, reception.limits
        self.count, self.more, self.started = 0, True, time.monotonic()
        self._given_up = False
        self._timeout: asyncio.Timeout | None = None

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Bytes a second so far."""
        return self.count / max(self.age, 1e-3)

    async def __call__(self) -> Message:
        """Return the next message of the client."""
        if not self.more:
            return await self.receive()
        left = min(self.limits.stall_seconds, self.limits.receive_seconds - self.age)
        try:
            async with asyncio.timeout(0 if self._given_up else max(0.01, left)) as self._timeout:
                message = await self.receive()
        except TimeoutError:
            self.end()
            raise HTTPException(408, "this request was sent too slowly", {"Connection": "close"}) from None
        self.count += len(message.get("body", b""))
        if self.count > self.limits.max_bytes:
            self.end()
            words = f"a request may have at most {self.limits.max_bytes} bytes"
            raise HTTPException(413, words, {"Connection": "close"})
        self.more = bool(message.get("more_body", False))
        if not self.more:
            self.end()
        self.reception.make_room()
        return message

    def give_up(self) -> None:
        """Stop receiving it, because its place is needed."""
        self._given_up = True
        if self._timeout is not None:
            with contextlib.suppress(RuntimeError):  # nobody waits for it now
                self._timeout.reschedule(asyncio.get_running_loop().time())
        self.end()

    def end(self) -> None:
        """End it: another request may be received."""
        self.reception.bodies.discard(self)


class Exchange:
    """A request and its answer, for counts and the access log."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self._send = scope, send
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.id, self.started = secrets.token_hex(8), time.monotonic()
        self.status = self.received = self.sent = 0
        self.route, self.gone = "", False

    async def send(self, message: Message) -> None:
        """Send a message, with the common headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name.lower() for name, _ in message["headers"]}
            ours = [*HEADERS, (b"x-request-id", self.id.encode())]
            message["headers"] = [*message["headers"], *(pair for pair in ours if pair[0] not in own)]
        self.sent += len(message.get("body", b""))
        await self._send(message)

    def finish(self, metrics: Metrics) -> None:
        """Count and log it, without the query, which may hold the token."""
        seconds = time.monotonic() - self.started
        method = self.scope["method"] if self.scope["method"] in METHODS else "other"
        metrics.note(self.route, method, self.status, seconds, self.received, self.sent)
        if access.isEnabledFor(logging.INFO):
            client = self.scope.get("client")
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "id": self.id,
                "client": client[0] if client else None,
                "method": self.scope["method"],
                "path": self.scope["path"],
                "route": self.route,
                "status": self.status,
                "seconds": round(seconds, 4),
                "received": self.received,
                "sent": self.sent,
                "gone": self.gone,
            }
            access.info(json.dumps(line))


class NoAddresses:
    """An ASGI application around the page, which refuses requests that name other files than uploaded ones.

    Gradio checks the paths of requests only if it was launched itself, not if it is mounted. uploads: its folder.
    """

    def __init__(self, app: ASGIApp, limits: Limits, uploads: Path) -> None:
        self.app, self.limits, self.uploads = app, limits, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        types = [value for name, value in scope.get("headers", ()) if name == b"content-type"]
        if scope["type"] != "http" or scope["method"] in READING or any(b"multipart" in kind for kind in types):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if _names_foreign_file(body, self.uploads):
            await refuse(400, "files are uploaded; addresses are not fetched")(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)


def _names_foreign_file(body: bytes, uploads: Path) -> bool:
    """Return whether a JSON request names a file outside the folder of uploads, or can't be read."""
    try:
        found = json.loads(body) if body else None
        own = uploads.resolve()
        return any(not Path(str(path)).resolve().is_relative_to(own) for path in _paths(found) if path is not None)
    except (OSError, ValueError, RecursionError):
        return True


def _paths(value: Any) -> Iterator[Any]:
    """Yield the values of "path" anywhere in a JSON value."""
    if isinstance(value, dict):
        yield from (item for name, item in value.items() if name == "path")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)


def _split(address: str) -> tuple[str, str | None]:
    """Return an address's host with its port, and without; empty if it is no address."""
    try:
        url = URL(address)
        return url.netloc, url.hostname
    except ValueError:
        return "", None
