"""From checked requests to jobs: sizes and work are checked, styles found, cards kept. Nothing is decoded here."""

from __future__ import annotations

import functools
import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impasto.errors import OptionError, nearest, wrong_masks
from impasto.images.color import MATCHING_MODES
from impasto.images.files import peek_size
from impasto.images.tensors import LEAST_SIDE
from impasto.methods import list_methods
from impasto.options import check_weights, parse_size
from impasto.server.job import Job, TaskData
from impasto.server.jobs import JobQueue
from impasto.server.limits import Closing, Limits, Malformed, Missing, TooMuch
from impasto.server.runner import Start, start_process
from impasto.server.schema import CheckedRequest, describe_method
from impasto.server.side_worker import Gallery, SideWorker
from impasto.server.work import count_steps, sketch
from impasto.server.worker import Outcome
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import built_in_styles, load_style

WARM_UP_SECONDS = 120.0


@dataclass(frozen=True)
class Card:
    """A style card: its facts for people, and its file."""

    info: dict[str, Any]
    data: bytes


class Studio:
    """The operations of the HTTP interface and the page.

    folder: for temporary files. start: starts a worker; None: a process each.
    """

    def __init__(self, devices: Sequence[str], limits: Limits, folder: Path, start: Start | None = None) -> None:
        self.limits, self.folder = limits, folder
        start = start or functools.partial(start_process, folder)
        self.queue = JobQueue(devices, limits, start)
        self.side = SideWorker(limits, start)
        self.gallery = Gallery(self.side)
        self._cards: OrderedDict[str, Card] = OrderedDict()
        self._lock = threading.Lock()
        self._built_in = functools.lru_cache(maxsize=None)(load_style)

    def close(self) -> None:
        """End all jobs and workers at once."""
        self.side.close()
        self.queue.close()

    def warm_up(self) -> None:
        """Wait until the workers have loaded the default method; raises Closing if they can't be started."""
        if not self.queue.wait_until_ready(WARM_UP_SECONDS):
            raise Closing("no worker could be started; the lines above say why")

    def methods(self) -> list[dict[str, Any]]:
        """Return the methods with presets and options."""
        return [describe_method(name) for name in list_methods()]

    def styles(self) -> list[dict[str, Any]]:
        """Return the built-in styles: name, title, artist and the like."""
        return [{"name": name, **self._built_in(name).info} for name in built_in_styles()]

    def card(self, identifier: str) -> Card:
        """Return a card that was made here, by id, or a built-in style's, by name; raises Missing."""
        with self._lock:
            if identifier in self._cards:
                self._cards.move_to_end(identifier)
                return self._cards[identifier]
        path = built_in_styles().get(identifier)
        if path is None:
            near = nearest(identifier, built_in_styles())
            raise Missing(
                f"there is no such style{near}: see GET /v1/styles; cards that were made here are not kept for ever"
            )
        return Card(self._built_in(identifier).info, path.read_bytes())

    def shrink(self, data: bytes, longer: int, size: tuple[int, int] | None = None) -> bytes:
        """Return a photo that a client sent as a JPEG of that longer side, or (height, width); decoded by a worker.

        Raises ImageError.
        """
        self._peek(data, "content")
        return self.side.do({"type": "shrink", "longer": longer, "size": size}, (data,))

    def brushed(self, data: bytes) -> bytes | None:
        """Return what was brushed on a photo, a grey PNG of a layer's alpha; None if nothing was. Raises ImageError."""
        self._peek(data, "mask")
        return self.side.do({"type": "brushed"}, (data,)) or None

    def _peek(self, data: bytes, name: str) -> tuple[int, int]:
        """Return the size (height, width) of a picture, from its header; raises ImageError."""
        return peek_size(data, name, max_pixels=self.limits.max_pixels, max_side=self.limits.max_side)

    # --- jobs

    def stylize(self, order: CheckedRequest, client: str = "") -> Job:
        """Check an order and queue it; raises ImpastoError, Busy if there is no place.

        client: its address, for the limit of places per client.
        """
        settings, files, device = order.settings, order.files, self.queue.check_room(client)
        self._check_counts(order)
        cards = [None if name in built_in_styles() else self.card(name).data for name in settings.styles]
        model = sketch(settings, device)
        photo = self._peek(files["content"][0], "content")
        steps = count_steps(model.options, styles=_count_styles(order), regions=len(files.get("masks", ())))
        size, painted, notes = self._choose_size(model, photo, settings.size, steps)
        for i, data in enumerate(files.get("masks", ()), 1):
            self._peek(data, f"mask {i}")
        paintings = [self._peek(data, f"painting {i}") for i, data in enumerate(files.get("paintings", ()), 1)]
        style_size = self._choose_style_size(model, paintings, settings.style_size, max(painted))
        for data in files.get("cards", ()):
            self._check_card(data)
        known = tuple(data for data in cards if data is not None)
        named = [name if data is None else None for name, data in zip(settings.styles, cards, strict=True)]
        values = settings.model_dump(mode="json") | {"size": size, "style_size": style_size, "styles": []}
        header = {"type": "stylize", "settings": values, "styles": named, "notes": notes}
        return self.queue.submit(_make_task(header, {**files, "known": known}), client)

    def _choose_size(
        self, model: Stylizer, photo: tuple[int, int], size: str | None, steps: float
    ) -> tuple[str | None, tuple[int, int], list[str]]:
        """Return the size for the method, the painted size, (height, width), and notes.

        A photo that exceeds the limits is shrunk if no size was named.

        Raises TooMuch for a size that was named and is too large.
        """
        height, width = model.working_size(*photo, None if size is None else parse_size(size))
        most = self.limits.most_pixels(steps)
        if size is None and height * width > most:
            share = math.sqrt(most / (height * width))
            longer = max(16, int(max(height, width) * share))
            small = model.working_size(*photo, longer)
            self.limits.check_work(small, steps)
            note = (
                f"the photo was shrunk from {photo[1]}x{photo[0]} to {small[1]}x{small[0]}, the most this server paints"
            )
            return str(longer), small, [note]
        self.limits.check_work((height, width), steps)
        return size, (height, width), []

    def _choose_style_size(
        self, model: Stylizer, sizes: Sequence[tuple[int, int]], asked: int | None, usual: int
    ) -> int | None:
        """Return the longer side to which paintings of these sizes are shrunk; reduced to fit the limits.

        Raises TooMuch for a named one that is too large.
        """
        scale, most = getattr(model.options, "style_scale", 1), self.limits.max_output
        largest = [int(0.99 * max(size) * math.sqrt(most / math.prod(size)) / scale) for size in sizes]
        seen = [min(asked or usual, max(size)) for size in sizes]
        over = [(size, side) for size, side, wanted in zip(sizes, largest, seen, strict=True) if wanted > side]
        if not over:
            return asked
        if asked is not None:
            (height, width), _ = over[0]
            raise TooMuch(f"a painting of {width}x{height} exceeds the size limit; give a smaller style_size")
        return max(LEAST_SIDE, min(side for _, side in over))

    def _check_card(self, data: bytes) -> None:
        if len(data) > self.limits.max_card_bytes:
            raise TooMuch(f"a style card may have at most {self.limits.max_card_bytes} bytes")

    def _check_counts(self, order: CheckedRequest) -> None:
        settings, files = order.settings, order.files
        count = _count_styles(order)
        if max(count, len(files.get("masks", ()))) > self.limits.max_pictures:
            raise TooMuch(f"a request may have at most {self.limits.max_pictures} styles and as many masks")
        if not files.get("content"):
            raise Malformed("content: the photo is missing")
        check_weights(settings.style_weights, count)
        if len(files.get("masks", ())) not in (0, 1, count):
            raise OptionError(wrong_masks(count, len(files["masks"])))
        if settings.keep_color in MATCHING_MODES and count > len(files.get("paintings", ())):
            raise OptionError(
                f"keep_color {settings.keep_color} recolours the painting, which a style card does not hold: take "
                "luminance or lab"
            )

    def extract(self, order: CheckedRequest, client: str = "") -> Job:
        """Queue a job for a style card; raises ImpastoError."""
        settings, device = order.settings, self.queue.check_room(client)
        if not order.files.get("painting"):
            raise Malformed("painting: the picture is missing")
        model = sketch(settings, device)
        size = self._peek(order.files["painting"][0], "painting")
        usual = max(size) if model.one_pass else model.default_longer_side
        values = settings.model_dump(mode="json") | {
            "size": self._choose_style_size(model, [size], settings.size, usual)
        }
        header = {"type": "card", "settings": values}
        return self.queue.submit(_make_task(header, order.files), client)

    def keep_card(self, outcome: Outcome) -> str:
        """Keep a new card for a while; returns its id."""
        identifier = secrets.token_urlsafe(16)
        with self._lock:
            self._cards[identifier] = Card(outcome.about["info"], outcome.data)
            while len(self._cards) > self.limits.max_cards:
                self._cards.popitem(last=False)
        return identifier


def _count_styles(order: CheckedRequest) -> int:
    return len(order.settings.styles) + len(order.files.get("paintings", ())) + len(order.files.get("cards", ()))


def _make_task(header: dict[str, Any], files: Any) -> TaskData:
    counts = {name: len(datas) for name, datas in files.items() if datas}
    return TaskData({**header, "files": counts}, tuple(data for datas in files.values() for data in datas))
