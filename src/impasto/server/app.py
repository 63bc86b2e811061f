"""The HTTP interface: one FastAPI application over a `Studio`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from impasto import __version__
from impasto.errors import ImpastoError, one_line
from impasto.server.body import read_request
from impasto.server.connections import Connections
from impasto.server.guard import PROBLEM, Guard, refuse
from impasto.server.job import ENDED, Job, tell
from impasto.server.limits import Busy, Closing, Malformed, Missing, NotReady, TooMuch, WorkerFault
from impasto.server.metrics import Metrics
from impasto.server.schema import CardRequest, PictureRequest, body_schema
from impasto.server.state import add_state
from impasto.server.studio import Studio
from impasto.server.tasks import CARD_TYPE

PICTURE_FILES = ("content", "paintings", "cards", "masks")
CARD_FILES = ("painting",)
STATUS = {Malformed: 400, Missing: 404, NotReady: 409, TooMuch: 413, Busy: 429, Closing: 503}
RETRY = {429: "3", 503: "30"}
"""Seconds until a client may try again, by status."""

OF_ROUTES = {
    "Not Found": "there is nothing at this address; /openapi.json lists the addresses",
    "Method Not Allowed": "this address takes other requests, such as POST instead of GET; /openapi.json lists them",
}
LOOK_EVERY = 0.25
DESCRIPTION = "Neural style transfer: a photo is repainted in the style of a painting."
PICTURES = {f"image/{kind}": {"schema": {"type": "string", "format": "binary"}} for kind in ("png", "jpeg", "webp")}
PROBLEM_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}

log = logging.getLogger(__name__)


def create_app(studio: Studio, *, token: str = "", connections: Connections | None = None) -> FastAPI:
    """Return the application; the studio is closed when it ends.

    token: required of every client, if not empty. connections: the server's, for its metrics.
    """
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(studio.close)

    app = FastAPI(
        title="Impasto", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=live
    )
    app.add_middleware(Guard, limits=studio.limits, metrics=metrics, token=token)
    for kind, handler in ((HTTPException, _on_http), (RequestValidationError, _on_invalid)):
        app.add_exception_handler(kind, handler)
    for fault in (ImpastoError, WorkerFault):
        app.add_exception_handler(fault, _on_error)
    _add_pictures(app, studio)
    _add_jobs(app, studio)
    _add_lists(app, studio)
    add_state(app, studio, metrics, connections)
    _document(app)
    return app


def _problems(*statuses: int, **more: Any) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of an operation's refusals."""
    words = {
        400: "malformed",
        401: "the token is missing",
        403: "from another site",
        404: "not there, or no longer",
        408: "sent too slowly",
        409: "not ready",
        415: "neither multipart nor JSON",
        413: "more than the limits allow",
        422: "a value or a file is wrong",
        429: "busy: try again",
        503: "the server is ending, or its workers don't start",
    }
    return {status: {"description": words[status], "content": PROBLEM} for status in (401, 403, *statuses)}


POSTING = _problems(400, 404, 408, 409, 413, 415, 422, 429, 503)


def _add_pictures(app: FastAPI, studio: Studio) -> None:
    body = body_schema(PictureRequest, PICTURE_FILES, studio.limits)
    made = {"description": "the picture", "content": PICTURES}
    queued = {"description": "wait=false: the job that makes it", "content": {"application/json": {"schema": JOB_REF}}}

    @app.post(
        "/v1/stylize",
        responses={200: made, 202: queued, **POSTING, **_problems(409)},
        openapi_extra={"requestBody": body},
    )
    async def stylize(request: Request, wait: bool = True) -> Response:
        """Repaint a photo; answers with the picture, or with wait=false at once with the job."""
        studio.queue.check_room()
        order = await read_request(request, PictureRequest, PICTURE_FILES, studio.limits.max_pictures)
        job = await run_in_threadpool(studio.stylize, order, client_of(request))
        if not wait:
            return JSONResponse(_describe(studio, job), 202, {"Location": f"/v1/jobs/{job.id}"})
        await _finish(studio, job, request)
        try:
            return _send(job)
        finally:
            studio.queue.forget(job)

    card = body_schema(CardRequest, CARD_FILES, studio.limits)
    created = {"description": "the card", "content": {"application/json": {"schema": {"type": "object"}}}}

    both = {201: created, **POSTING}

    @app.post("/v1/styles", status_code=201, responses=both, openapi_extra={"requestBody": card})
    async def make_card(request: Request) -> Response:
        """Make a style card of a painting; its id is a style, and its file can be fetched."""
        studio.queue.check_room()
        order = await read_request(request, CardRequest, CARD_FILES, studio.limits.max_pictures)
        job = await run_in_threadpool(studio.extract, order, client_of(request))
        await _finish(studio, job, request)
        try:
            outcome = job.outcome()
        finally:
            studio.queue.forget(job)
        identifier = studio.keep_card(outcome)
        return JSONResponse({"id": identifier, **outcome.about, "card": f"/v1/styles/{identifier}/card"}, 201)


JOB_REF = {"$ref": "#/components/schemas/Job"}
JOB_SCHEMA = {
    "type": "object",
    "required": ["id", "state", "step", "steps", "waiting", "seconds", "left", "error", "about"],
    "properties": {
        "id": {"type": "string"},
        "state": {"enum": ["waiting", "running", "done", "failed", "cancelled"]},
        "step": {"type": "integer"},
        "steps": {"type": "integer", "description": "steps in all; 0 as long as they are not known"},
        "waiting": {"type": "integer", "description": "jobs that come before it"},
        "device": {"type": "string"},
        "seconds": {"type": ["number", "null"], "description": "since it started"},
        "left": {"type": ["number", "null"], "description": "seconds until its end, as the steps so far suggest"},
        "error": {"type": ["string", "null"]},
        "about": {
            "type": ["object", "null"],
            "description": "size, losses, notes and the record of the run, once done",
        },
        "result": {"type": "string", "description": "where the picture is"},
    },
}


def _add_jobs(app: FastAPI, studio: Studio) -> None:
    followers = Followers(studio)
    described = {
        200: {"description": "the job", "content": {"application/json": {"schema": JOB_REF}}},
        **_problems(404),
    }

    @app.get("/v1/jobs/{job}", responses=described)
    async def show_job(job: str) -> Response:
        """Return the state of a job."""
        return JSONResponse(_describe(studio, studio.queue.find(job)))

    events = {"description": "progress", "content": {"text/event-stream": {"schema": {"type": "string"}}}}

    @app.get("/v1/jobs/{job}/events", responses={200: events, **_problems(404, 429)}, response_class=StreamingResponse)
    async def follow_job(job: str) -> Response:
        """Return the job as server-sent events: ``progress`` whenever something changes, ``end`` as the last one."""
        events = followers.follow(studio.queue.find(job))
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.post("/v1/jobs/{job}/cancel", responses=described)
    async def cancel_job(job: str) -> Response:
        """End a job early: the best picture of an optimisation becomes the result."""
        found = studio.queue.find(job)
        studio.queue.cancel(found)
        return JSONResponse(_describe(studio, found))

    @app.delete("/v1/jobs/{job}", status_code=204, responses=_problems(404))
    async def delete_job(job: str) -> Response:
        """End a job and forget its result."""
        studio.queue.forget(studio.queue.find(job))
        return Response(status_code=204)

    file = {200: {"description": "the picture", "content": PICTURES}, **_problems(404, 409, 413, 422, 503)}

    @app.get("/v1/jobs/{job}/result", responses=file, response_class=Response)
    async def fetch_result(job: str) -> Response:
        """Return the picture that a job made."""
        return _send(studio.queue.find(job))

    small = {200: {"description": "a small picture", "content": {"image/jpeg": {}}}, **_problems(404, 409)}

    @app.get("/v1/jobs/{job}/preview", responses=small, response_class=Response)
    async def fetch_preview(job: str) -> Response:
        """Return the current picture of a running optimisation; each request keeps previews coming."""
        data = studio.queue.find(job).preview()
        if data is None:
            raise NotReady("there is no preview yet; only optimisations have one, while they run")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


def _add_lists(app: FastAPI, studio: Studio) -> None:
    refusals = _problems()

    @app.get("/v1/methods", responses=refusals)
    async def list_methods() -> list[dict[str, Any]]:
        """Return the methods with their presets and the JSON schema of their options."""
        return studio.methods()

    @app.get("/v1/limits", responses=refusals)
    async def show_limits() -> dict[str, float]:
        """Return the limits of requests, by the names in `impasto serve --limits`."""
        return studio.limits.model_dump()

    @app.get("/v1/styles", responses=refusals)
    def list_styles() -> list[dict[str, Any]]:
        """Return the built-in styles."""
        return [{**about, "picture": f"/v1/styles/{about['name']}/picture"} for about in studio.styles()]

    shown = {200: {"description": "a small picture", "content": {"image/jpeg": {}}}, **_problems(404, 503)}

    one_at_a_time = anyio.CapacityLimiter(1)  # so that painting takes no threads from other requests

    @app.get("/v1/styles/{style}/picture", responses=shown, response_class=Response)
    async def show_style(style: str) -> Response:
        """Return a small landscape in that built-in style."""
        data = studio.gallery.find(style)
        if data is None:
            data = await anyio.to_thread.run_sync(studio.gallery.picture, style, limiter=one_at_a_time)
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})

    card = {200: {"description": "the card", "content": {CARD_TYPE: {}}}, **_problems(404)}

    @app.get("/v1/styles/{style}/card", responses=card, response_class=Response)
    def fetch_card(style: str) -> Response:
        """Return a style card, a safetensors file."""
        headers = {"Content-Disposition": 'attachment; filename="style.safetensors"'}
        return Response(studio.card(style).data, media_type=CARD_TYPE, headers=headers)


def _document(app: FastAPI) -> None:
    """Add to the OpenAPI document what the routes refer to, and remove the framework's own errors."""
    build: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = build()
            schema["components"] = {"schemas": {"Problem": PROBLEM_SCHEMA, "Job": JOB_SCHEMA}}
            for operation in (one for path in schema["paths"].values() for one in path.values()):
                if "HTTPValidationError" in json.dumps(operation["responses"].get("422", {})):
                    del operation["responses"]["422"]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def client_of(request: Request) -> str:
    """Return the address of a client."""
    return request.client.host if request.client else ""


async def _finish(studio: Studio, job: Job, request: Request) -> None:
    """Wait for `job`; cancel it if the client has gone."""
    done = asyncio.wrap_future(job.finished)
    try:
        while not (await asyncio.wait({done}, timeout=LOOK_EVERY))[0]:
            if await request.is_disconnected():
                break
    finally:
        if not done.done():
            studio.queue.forget(job)


def _send(job: Job) -> Response:
    outcome = job.outcome()
    about = {"X-Impasto-Seconds": str(outcome.about.get("seconds")), "Cache-Control": "no-store"}
    if outcome.about.get("notes"):
        about["X-Impasto-Note"] = (
            one_line("; ".join(outcome.about["notes"])).encode("ascii", "backslashreplace").decode()
        )
    return Response(outcome.data, media_type=outcome.media_type, headers=about)


def _describe(studio: Studio, job: Job) -> dict[str, Any]:
    return {**job.describe(), "waiting": studio.queue.place(job), "result": f"/v1/jobs/{job.id}/result"}


class Followers:
    """Clients that follow jobs as events; their number is limited, because each takes a connection."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._count = 0

    def follow(self, job: Job) -> AsyncIterator[str]:
        """Return the events of a job; raises Busy if too many clients follow."""
        if self._count >= self._studio.limits.max_followers:
            raise Busy("too many clients follow jobs: ask GET /v1/jobs/ID now and then instead")
        return self._events(job)

    async def _events(self, job: Job) -> AsyncIterator[str]:
        self._count += 1
        try:
            last: dict[str, Any] = {}
            while job.state not in ENDED:
                now = _describe(self._studio, job)
                if any(now[name] != last.get(name) for name in ("state", "step", "waiting")):
                    yield _event("progress", now)
                    last = now
                await asyncio.wait({asyncio.wrap_future(job.finished)}, timeout=LOOK_EVERY)
            yield _event("end", _describe(self._studio, job))
        finally:
            self._count -= 1


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, default=str)}\n\n"


async def _on_error(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 422)
    if not isinstance(error, ImpastoError):
        status = 500
    headers = {"Retry-After": RETRY[status]} if status in RETRY else {}
    return refuse(status, tell(error), **headers)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = OF_ROUTES.get(error.detail, str(error.detail))
    return refuse(error.status_code, words, **(dict(error.headers or {})))


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return refuse(422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")
