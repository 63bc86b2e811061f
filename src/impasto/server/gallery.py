"""Small pictures of the built-in styles: each is painted when first asked for."""

from __future__ import annotations

import threading

from impasto.server.limits import Missing
from impasto.server.side_worker import SideWorker
from impasto.stylizers.styles import built_in_styles


class Gallery:
    """One landscape in every built-in style; made by `worker`, each once."""

    def __init__(self, worker: SideWorker) -> None:
        self._worker = worker
        self._pictures: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> bytes | None:
        """The landscape in the built-in style of that name if it is there already; raises Missing."""
        if name not in built_in_styles():
            raise Missing("there is no such style: see GET /v1/styles")
        return self._pictures.get(name)

    def picture(self, name: str) -> bytes:
        """The landscape in that style, a JPEG, painted if need be."""
        with self._lock:
            if name not in self._pictures:
                self._pictures[name] = self._worker.do({"type": "thumbnail", "style": name})
            return self._pictures[name]
