"""The server's state: health, readiness, metrics."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse

from impasto.server.connections import Connections
from impasto.server.guard import PROBLEM, refuse
from impasto.server.metrics import CONTENT_TYPE, Metrics, family
from impasto.server.studio import Studio


def add_state(app: FastAPI, studio: Studio, metrics: Metrics, connections: Connections | None) -> None:
    """Add the routes /health, /ready and /metrics to `app`."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Return whether the process answers."""
        return {"status": "ok"}

    waiting: dict[int | str, dict[str, Any]] = {503: {"description": "not now; it says why", "content": PROBLEM}}

    @app.get("/ready", responses=waiting)
    async def ready() -> Response:
        """Return whether a picture would be painted now: there is a worker with a free place."""
        obstacle = studio.queue.obstacle()
        return JSONResponse({"status": "ready"}) if not obstacle else refuse(503, obstacle, **{"Retry-After": "3"})

    text = {"description": "the text format of Prometheus", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get(
        "/metrics",
        responses={200: text, 401: {"description": "the token is missing", "content": PROBLEM}},
        response_class=Response,
    )
    async def show_metrics() -> Response:
        """Return metrics of requests, jobs, workers and connections."""
        lines = [*metrics.lines(), *_count_jobs(studio), *(_count_connections(connections) if connections else ())]
        return Response("\n".join(lines) + "\n", headers={"Content-Type": CONTENT_TYPE})


def _count_jobs(studio: Studio) -> list[str]:
    counts = studio.queue.count()
    texts = {
        "waiting": ("impasto_jobs_waiting", "gauge", "Jobs that wait for a worker."),
        "running": ("impasto_jobs_running", "gauge", "Jobs under way."),
        "ready": ("impasto_worker_ready", "gauge", "Whether the device has its worker."),
        "kills": ("impasto_worker_kills_total", "counter", "Workers that were killed, as a job did not end."),
        "deaths": ("impasto_worker_deaths_total", "counter", "Workers that ended unexpectedly."),
    }
    out: list[str] = []
    for what, text in texts.items():
        out += family(*text, [({"device": device}, numbers[what]) for device, numbers in counts.items()])
    ended = [({"state": state}, count) for state, count in studio.queue.ended.items()]
    return out + family("impasto_jobs_ended_total", "counter", "Jobs that ended, by how.", ended)


def _count_connections(connections: Connections) -> list[str]:
    counts = [({"what": what}, count) for what, count in sorted(connections.counts.items())]
    text = "Connections accepted, refused, evicted, or closed while waiting for header, idle or unread."
    return [
        *family("impasto_connections_open", "gauge", "Open connections.", [({}, len(connections.open))]),
        *family("impasto_connections_total", "counter", text, counts),
    ]
