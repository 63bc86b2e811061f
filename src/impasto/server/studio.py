"""From checked requests to jobs: pictures are decoded, models loaded once, styles found, cards made and kept."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.errors import ImpastoError, OptionError, is_out_of_memory
from impasto.images.color import MATCHING_MODES
from impasto.images.files import Picture, decode_picture, encode_picture
from impasto.images.masks import check_masks, mask_of
from impasto.images.tensors import fit, resize
from impasto.methods import list_methods, load
from impasto.runs import painting as jobs_of_one
from impasto.runs.painting import Inputs, fit_painting, working_size
from impasto.runs.record import Recipe, make_record
from impasto.server.jobs import Job, JobQueue, Outcome, Work
from impasto.server.limits import Limits, Malformed, Missing, TooMuch
from impasto.server.schema import FORMATS, Choice, Order, describe_method
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import Style, built_in_styles, check_weights, load_style, save_style

MOST_MODELS = 8
CARD_TYPE = "application/octet-stream"
QUALITY = 92


@dataclass(frozen=True)
class Card:
    """A style card that was made here: what it holds, and its file."""

    style: Style
    data: bytes


class Models:
    """The models in use, each loaded once; the least used are let go."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Stylizer] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, choice: Choice, device: str) -> Stylizer:
        """The model of that choice; raises ImpastoError."""
        key = json.dumps([choice.method, choice.preset, choice.options, device], sort_keys=True, default=str)
        with self._lock:
            found = self._known.pop(key, None)
            if found is None:
                found = load(choice.method, preset=choice.preset, device=device, **choice.options)
            self._known[key] = found
            while len(self._known) > MOST_MODELS:
                self._known.popitem(last=False)
            return found


class Studio:
    """All that the HTTP interface and the page can do. folder: its own, for files that are gone after each use."""

    def __init__(self, devices: Sequence[str], limits: Limits, folder: Path) -> None:
        self.limits, self.folder = limits, folder
        self.queue = JobQueue(devices, limits)
        self._models = Models()
        self._cards: OrderedDict[str, Card] = OrderedDict()
        self._lock = threading.Lock()
        self._built_in = functools.lru_cache(maxsize=None)(load_style)

    def close(self) -> None:
        """End all jobs."""
        self.queue.close()

    def warm_up(self) -> None:
        """Load the default method on every device, so that the first request need not wait for it."""
        for device in self.queue.devices:
            self._models.get(Choice(options={}), device)

    def methods(self) -> list[dict[str, Any]]:
        """What there is to choose from."""
        return [describe_method(name) for name in list_methods()]

    def styles(self) -> list[dict[str, Any]]:
        """The built-in styles: name, title, artist and the like."""
        return [{"name": name, **self._built_in(name).info} for name in built_in_styles()]

    def card(self, identifier: str) -> Card:
        """A card that was made here, by its id, or a built-in style's, by name; raises Missing."""
        with self._lock:
            if identifier in self._cards:
                self._cards.move_to_end(identifier)
                return self._cards[identifier]
        path = built_in_styles().get(identifier)
        if path is None:
            raise Missing("there is no such style: see GET /v1/styles; cards that were made here are not kept for ever")
        return Card(self._built_in(identifier), path.read_bytes())

    # --- pictures

    def decode(self, data: bytes, name: str) -> Picture:
        """A picture that somebody sent; raises ImageError or TooMuch."""
        return decode_picture(data, name, max_pixels=self.limits.max_pixels, max_side=self.limits.max_side)

    def stylize(self, order: Order) -> Job:
        """Check all of the order and queue it; raises ImpastoError, Busy if there is no place."""
        wishes, files, device = order.wishes, order.files, self.queue.check_room()
        self._check_counts(order)
        model = self._models.get(wishes, device)
        content = self.decode(files["content"][0], "content")
        known = wishes.model_dump(include={"method", "preset", "options", "style_weights", "size", "style_size"})
        known |= wishes.model_dump(include={"strength", "keep_color", "seed"})
        recipe = Recipe.parse(known, "stylize")
        size = working_size(model, *content.size, recipe.size)
        self.limits.check_work(model, size)
        styles = self._find_styles(order, model, size)
        masks = tuple(self._mask(data, f"mask {i}", size) for i, data in enumerate(files.get("masks", ()), 1))
        check_masks(masks, [f"mask {i}" for i in range(1, len(masks) + 1)])
        painting = jobs_of_one.Job(recipe, model, size, Inputs(content, styles, masks))
        held = sum(map(_bytes, (content.stored, *masks, *(s for s in styles if isinstance(s, Tensor)))))
        about = functools.partial(_about, painting, _sources(order))
        work = functools.partial(_paint, painting, FORMATS[wishes.format], about)
        return self.queue.submit(_blaming_cards(work, model) if files.get("cards") else work, device, held=held)

    def _check_counts(self, order: Order) -> None:
        wishes, files = order.wishes, order.files
        count = len(wishes.styles) + len(files.get("paintings", ())) + len(files.get("cards", ()))
        if max(count, len(files.get("masks", ()))) > self.limits.max_pictures:
            raise TooMuch(f"a request may have at most {self.limits.max_pictures} styles and as many masks")
        if not files.get("content"):
            raise Malformed("content: the photo is missing")
        check_weights(wishes.style_weights, count)
        if len(files.get("masks", ())) not in (0, 1, count):
            raise OptionError(f"{count} styles need one mask, or {count}, not {len(files['masks'])}")
        if wishes.keep_color in MATCHING_MODES and count > len(files.get("paintings", ())):
            raise OptionError(
                f"keep_color {wishes.keep_color} recolours the painting, which a style card does not hold: take "
                "luminance or lab"
            )

    def _find_styles(self, order: Order, model: Stylizer, size: tuple[int, int]) -> tuple[Tensor | Style, ...]:
        wishes, files = order.wishes, order.files
        styles = [self.card(name).style for name in wishes.styles]
        cards = [self.read_card(data) for data in files.get("cards", ())]
        for style in (*styles, *cards):
            model.adopt(style)
        longer = wishes.style_size or max(size)
        whole = wishes.keep_color in MATCHING_MODES
        paintings = [
            self._painting(data, f"painting {i}", model, longer, whole)
            for i, data in enumerate(files.get("paintings", ()), 1)
        ]
        return (*styles, *paintings, *cards)

    def _painting(self, data: bytes, name: str, model: Stylizer, longer: int, whole: bool) -> Tensor:
        """A painting at the size at which it is looked at, or whole if it has to be recoloured before."""
        image = self.decode(data, name).painting(name)
        height, width = fit(image.shape[-2], image.shape[-1], longer)
        self._check_painting(model, height, width)
        return image if whole else resize(image, height, width)

    def _check_painting(self, model: Stylizer, height: int, width: int) -> None:
        if height * width * getattr(model.options, "style_scale", 1) ** 2 > self.limits.max_output:
            raise TooMuch(f"a painting of {width}x{height} is more than can be looked at; give a smaller style_size")

    def _mask(self, data: bytes, name: str, size: tuple[int, int]) -> Tensor:
        return resize(mask_of(self.decode(data, name)), *size)

    # --- cards

    def read_card(self, data: bytes) -> Style:
        """A style card that somebody sent; raises WeightsError or TooMuch."""
        if len(data) > self.limits.max_card_bytes:
            raise TooMuch(f"a style card may have at most {self.limits.max_card_bytes} bytes")
        path = self.folder / f"{secrets.token_hex(8)}.safetensors"
        try:
            path.write_bytes(data)
            return load_style(path)
        except ImpastoError as error:
            raise type(error)(str(error).replace(str(path), "the style card")) from None
        finally:
            path.unlink(missing_ok=True)

    def extract(self, order: Order) -> Job:
        """Queue the making of a style card; raises ImpastoError."""
        wishes, device = order.wishes, self.queue.check_room()
        model = self._models.get(wishes, device)
        if not order.files.get("painting"):
            raise Malformed("painting: the picture is missing")
        image = self.decode(order.files["painting"][0], "painting").painting("painting")
        fitted = fit_painting(model, image, wishes.size)
        self._check_painting(model, fitted.shape[-2], fitted.shape[-1])
        info = {name: value for name, value in wishes.model_dump(include={"title", "artist", "year"}).items() if value}
        info |= {"width": fitted.shape[-1], "height": fitted.shape[-2]}
        return self.queue.submit(lambda job: self._extract(model, fitted, info), device, held=_bytes(fitted))

    def _extract(self, model: Stylizer, painting: Tensor, info: dict[str, Any]) -> Outcome:
        found = model.encode_style(painting)
        style = Style({name: value.cpu() for name, value in found.items()}, found.kind, info)
        path = self.folder / f"{secrets.token_hex(8)}.safetensors"
        try:
            save_style(style, path)
            data = path.read_bytes()
        finally:
            path.unlink(missing_ok=True)
        identifier = secrets.token_urlsafe(16)
        with self._lock:
            self._cards[identifier] = Card(style, data)
            while len(self._cards) > self.limits.max_cards:
                self._cards.popitem(last=False)
        return Outcome(data, CARD_TYPE, {"id": identifier, "kind": style.kind, "bytes": len(data), "info": info})


def _paint(painting: jobs_of_one.Job, kind: str, about: Callable[[Job], dict[str, Any]], job: Job) -> Outcome:
    start = time.perf_counter()
    image = painting.paint_bytes(job.see) if painting.by_windows else painting.paint(job.see)
    seconds = round(time.perf_counter() - start, 4)
    data = encode_picture(image, kind, alpha=painting.alpha, quality=QUALITY)
    return Outcome(data, f"image/{kind.lower()}", {"seconds": seconds, **about(job)})


def _about(painting: jobs_of_one.Job, sources: dict[str, Any], job: Job) -> dict[str, Any]:
    """What there is to tell of a picture; its record can be replayed by the command line."""
    model, (height, width) = painting.model, painting.size
    record = make_record(painting.recipe, model, painting.size, Path()) | sources
    if model.interrupted:
        record["interrupted"] = job.step
    found = {"width": width, "height": height, "interrupted": model.interrupted}
    return found | {
        "losses": {name: loss for name, loss in model.losses.items() if math.isfinite(loss)},
        "record": record,
    }


def _sources(order: Order) -> dict[str, Any]:
    """The files of an order as a record names them: by what they are and their digests, never by their own names."""

    def named(role: str, name: str) -> list[dict[str, str]]:
        datas = order.files.get(name, ())
        return [{"file": f"{role}-{i}", "sha256": hashlib.sha256(data).hexdigest()} for i, data in enumerate(datas, 1)]

    styles = [{"style": name} if name in built_in_styles() else {"file": "card"} for name in order.wishes.styles]
    return {
        "content": {"file": "content", "sha256": hashlib.sha256(order.files["content"][0]).hexdigest()},
        "styles": [*styles, *named("painting", "paintings"), *named("card", "cards")],
        "masks": named("mask", "masks"),
    }


def _blaming_cards(work: Work, model: Stylizer) -> Work:
    """`work`, whose failures are put down to a foreign style card, which can be wrong in any number."""

    def attempt(job: Job) -> Outcome:
        try:
            return work(job)
        except (RuntimeError, ValueError, KeyError, IndexError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            raise OptionError(f"the style card does not fit {model.name}: extract it again from the painting") from None

    return attempt


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
