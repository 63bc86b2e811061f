"""What stands before every request: who may ask, from where, how many bytes, how long; and headers of every answer."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from starlette.datastructures import URL, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from impasto.server.limits import Limits

COOKIE = "impasto_token"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN_PATHS = ("/health", "/ready")
READING = ("GET", "HEAD", "OPTIONS")
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY"))


def refuse(status: int, message: str, **headers: str) -> JSONResponse:
    """An answer that says in one line why not."""
    return JSONResponse({"error": message}, status, headers)


class Guard:
    """The outermost ASGI application around `app`. token: needed by all but health and readiness, if not empty.

    Without a token only names of the loopback are answered, so that no web page can reach the server by a name of its
    own; with or without, a request that changes something must not come from another site's page.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str = "") -> None:
        self.app, self.limits, self.token = app, limits, token
        self.receiving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = self._check(scope, headers)
        if answer is not None:
            await answer(scope, receive, _adorn(send))
            return
        if scope["method"] in READING:
            await self.app(scope, receive, _adorn(send))
            return
        if self.receiving >= self.limits.max_receiving:
            busy = refuse(429, "too many requests at the same time: try again in a few seconds", **{"Retry-After": "3"})
            await busy(scope, receive, _adorn(send))
            return
        body = _Body(receive, self.limits)
        self.receiving += 1
        body.on_end = self._received
        try:
            await self.app(scope, body, _adorn(send))
        finally:
            body.end()

    def _received(self) -> None:
        self.receiving -= 1

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
            401, "a token is needed: send the header Authorization: Bearer TOKEN", **{"WWW-Authenticate": "Bearer"}
        )

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())


class _Body:
    """A request's body as it comes in: counted and timed."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self.receive, self.limits = receive, limits
        self.count, self.more, self.deadline = 0, True, time.monotonic() + limits.receive_seconds
        self.on_end: Any = None

    async def __call__(self) -> Message:
        if not self.more:
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.01, self.deadline - time.monotonic()))
        except TimeoutError:
            self.end()
            raise HTTPException(408, f"sending a request may take at most {self.limits.receive_seconds:g} s") from None
        self.count += len(message.get("body", b""))
        if self.count > self.limits.max_bytes:
            self.end()
            raise HTTPException(413, f"a request may have at most {self.limits.max_bytes} bytes")
        self.more = bool(message.get("more_body", False))
        if not self.more:
            self.end()
        return message

    def end(self) -> None:
        """No more is received: another request may be."""
        if self.on_end is not None:
            self.on_end()
            self.on_end = None


class NoAddresses:
    """An ASGI application around the page: files that its requests name are uploaded ones, never foreign addresses."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

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
        if _names_foreign_file(body):
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


def _names_foreign_file(body: bytes) -> bool:
    try:
        found = json.loads(body) if body else None
        return any(str(path).lower().lstrip().startswith(("http:", "https:", "//")) for path in _paths(found))
    except (ValueError, RecursionError):
        return True


def _paths(value: Any) -> Iterator[Any]:
    """What stands under "path" anywhere in a JSON value."""
    if isinstance(value, dict):
        yield from (item for name, item in value.items() if name == "path")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _paths(item)


def _split(address: str) -> tuple[str, str | None]:
    """An address's host with its port, and without; nothing of what is none."""
    try:
        url = URL(address)
        return url.netloc, url.hostname
    except ValueError:
        return "", None


def _adorn(send: Send) -> Send:
    """`send`, with the headers that every answer has."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in own)]
        await send(message)

    return sending
