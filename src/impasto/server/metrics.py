"""A server's metrics in the text format of Prometheus."""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping

from impasto import __version__

BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds of a request: upper bounds."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


class Metrics:
    """Counts of requests by route, method and status, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._received = self._sent = 0
        self._started = time.time()

    def note(self, route: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count one request; status 0: the client left before the answer."""
        with self._lock:
            self._requests[route, method, str(status)] += 1
            counts = self._buckets.setdefault(route, [0] * (len(BUCKETS) + 1))
            counts[bisect.bisect_left(BUCKETS, seconds)] += 1
            self._seconds[route] = self._seconds.get(route, 0) + seconds
            self._received += received
            self._sent += sent

    def lines(self) -> list[str]:
        """Return all metrics as lines of text."""
        with self._lock:
            out = family("impasto_info", "gauge", "The version.", [({"version": __version__}, 1)])
            out += family("impasto_start_time_seconds", "gauge", "When the server started.", [({}, self._started)])
            requests = [
                ({"route": route, "method": method, "status": status}, count)
                for (route, method, status), count in self._requests.items()
            ]
            out += family("impasto_requests_total", "counter", "Requests that were answered.", requests)
            out += family(
                "impasto_received_bytes_total", "counter", "Bytes of bodies received.", [({}, self._received)]
            )
            out += family("impasto_sent_bytes_total", "counter", "Bytes of bodies sent.", [({}, self._sent)])
            return [*out, *self._histogram()]

    def _histogram(self) -> list[str]:
        name = "impasto_request_seconds"
        out = [f"# HELP {name} Seconds from a request's header to the end of its answer.", f"# TYPE {name} histogram"]
        for route, counts in self._buckets.items():
            total = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
                total += count
                out.append(sample(f"{name}_bucket", {"route": route, "le": bound}, total))
            out += [
                sample(f"{name}_sum", {"route": route}, self._seconds[route]),
                sample(f"{name}_count", {"route": route}, total),
            ]
        return out


def family(name: str, kind: str, description: str, samples: Iterable[tuple[Labels, float]]) -> list[str]:
    """Return the lines of one metric with its samples; kind: counter or gauge."""
    found = [sample(name, labels, value) for labels, value in samples]
    return [f"# HELP {name} {description}", f"# TYPE {name} {kind}", *found]


def sample(name: str, labels: Labels, value: float) -> str:
    """Return one line."""
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
