"""The tasks of a worker: repaint a photo, make a style card, paint a thumbnail of a built-in style."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.errors import ImpastoError, OptionError, is_out_of_memory
from impasto.images.color import MATCHING_MODES
from impasto.images.exchange import check_masks, mask_of
from impasto.images.files import Picture, decode_picture, encode_picture
from impasto.images.landscape import landscape
from impasto.images.tensors import fit, resize
from impasto.methods import load
from impasto.runs.painting import Inputs, PaintJob, fit_painting, working_size
from impasto.runs.record import Recipe, make_record
from impasto.server.limits import Limits, TooMuch
from impasto.server.schema import FORMATS, CardRequest, MethodRequest, PictureRequest
from impasto.server.worker import Outcome, Progress, TaskFunction
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import Style, load_style, save_style

MOST_MODELS = 8
CARD_TYPE = "application/octet-stream"
QUALITY = 92
PAINTED = {"method", "preset", "options", "style_weights", "size", "style_size", "strength", "keep_color", "seed"}
"""Common fields of a request and a `Recipe`."""


def make_tasks(device: str, limits: Limits, folder: str) -> Mapping[str, TaskFunction]:
    """Return the tasks of a worker on `device` by name; the default method is loaded before the first one.

    folder: for files while they are used.
    """
    models, reader = Models(device), Reader(limits, folder)
    models.get(MethodRequest(options={}))
    return {
        "stylize": functools.partial(stylize, models, reader),
        "card": functools.partial(make_card, models, reader),
        "thumbnail": functools.partial(paint_thumbnail, models),
        "shrink": functools.partial(shrink, reader),
        "brushed": functools.partial(find_brushed, reader),
    }


@functools.cache
def built_in(name: str) -> Style:
    """Return a built-in style, read once."""
    return load_style(name)


class Models:
    """The models in use, each loaded once; the least recently used are dropped."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._known: OrderedDict[str, Stylizer] = OrderedDict()

    def get(self, choice: MethodRequest) -> Stylizer:
        """Return the model for a choice; raises ImpastoError."""
        key = json.dumps([choice.method, choice.preset, choice.options], sort_keys=True, default=str)
        found = self._known.pop(key, None)
        if found is None:
            found = load(choice.method, preset=choice.preset, device=self._device, **choice.options)
        self._known[key] = found
        while len(self._known) > MOST_MODELS:
            self._known.popitem(last=False)
        return found


@dataclass(frozen=True)
class Reader:
    """Decodes what clients send, within the limits."""

    limits: Limits
    folder: str

    def picture(self, data: bytes, name: str) -> Picture:
        """Return a picture; raises ImageError."""
        return decode_picture(data, name, max_pixels=self.limits.max_pixels, max_side=self.limits.max_side)

    def painting(self, data: bytes, name: str, model: Stylizer, longer: int, whole: bool) -> Tensor:
        """Return a painting shrunk for the encoder, or whole if it must be recoloured first."""
        image = self.picture(data, name).painting(name)
        height, width = fit(image.shape[-2], image.shape[-1], longer)
        self.check_painting(model, height, width)
        return image if whole else resize(image, height, width)

    def check_painting(self, model: Stylizer, height: int, width: int) -> None:
        """Raise TooMuch if a painting of this size exceeds the limits."""
        if height * width * getattr(model.options, "style_scale", 1) ** 2 > self.limits.max_output:
            raise TooMuch(f"a painting of {width}x{height} exceeds the size limit; give a smaller style_size")

    def mask(self, data: bytes, name: str, size: tuple[int, int]) -> Tensor:
        """Return a mask, (1, 1, H, W), at the size of the result."""
        return resize(mask_of(self.picture(data, name)), *size)

    def card(self, data: bytes) -> Style:
        """Return a style card; raises WeightsError or TooMuch."""
        if len(data) > self.limits.max_card_bytes:
            raise TooMuch(f"a style card may have at most {self.limits.max_card_bytes} bytes")
        path = self.new_file()
        try:
            path.write_bytes(data)
            return load_style(path)
        except ImpastoError as error:
            text = str(error).replace(str(path), "the style card").replace(path.name, "the style card")
            raise type(error)(text) from None
        finally:
            path.unlink(missing_ok=True)

    def new_file(self) -> Path:
        """Return a name for a temporary file of a style card."""
        return Path(self.folder) / f"{secrets.token_hex(8)}.safetensors"


def _part(header: Mapping[str, Any], blobs: Sequence[bytes]) -> dict[str, list[bytes]]:
    """Return the files of a task by role."""
    left = iter(blobs)
    return {name: [next(left) for _ in range(count)] for name, count in header["files"].items()}


def stylize(
    models: Models, reader: Reader, header: Mapping[str, Any], blobs: Sequence[bytes], progress: Progress
) -> Outcome:
    """Repaint a photo. header: settings; styles, by name or as ``known`` cards; notes to pass on."""
    settings, files = PictureRequest.parse(header["settings"], "the request"), _part(header, blobs)
    model = models.get(settings)
    content = reader.picture(files["content"][0], "content")
    recipe = Recipe.parse(settings.model_dump(include=PAINTED), "stylize")
    size = working_size(model, *content.size, recipe.size)
    styles = _read_styles(reader, model, settings, header["styles"], files, size)
    masks = tuple(reader.mask(data, f"mask {i}", size) for i, data in enumerate(files.get("masks", ()), 1))
    check_masks(masks, [f"mask {i}" for i in range(1, len(masks) + 1)])
    painting = PaintJob(recipe, model, size, Inputs(content, styles, masks))
    start = time.perf_counter()
    try:
        image = painting.paint(progress)
    except (RuntimeError, ValueError, KeyError, IndexError, AssertionError) as error:
        if is_out_of_memory(error) or not (files.get("cards") or files.get("known")):
            raise
        raise OptionError(f"the style card does not fit {model.name}: extract it again from the painting") from None
    seconds = round(time.perf_counter() - start, 4)
    kind = FORMATS[settings.format]
    data = encode_picture(image, kind, alpha=painting.alpha, quality=QUALITY)
    sources = _sources(header["styles"], files)
    about = {"seconds": seconds, "notes": header.get("notes", []), **_describe(painting, sources, progress.step)}
    return Outcome(data, f"image/{kind.lower()}", about)


def _read_styles(
    reader: Reader,
    model: Stylizer,
    settings: PictureRequest,
    names: Sequence[str | None],
    files: Mapping[str, Sequence[bytes]],
    size: tuple[int, int],
) -> tuple[Tensor | Style, ...]:
    """Return the styles of a request: built-in ones and kept cards in their order, then paintings, then cards."""
    known = iter(files.get("known", ()))
    styles = [reader.card(next(known)) if name is None else built_in(name) for name in names]
    cards = [reader.card(data) for data in files.get("cards", ())]
    for style in (*styles, *cards):
        model.take(style)
    longer, whole = settings.style_size or max(size), settings.keep_color in MATCHING_MODES
    paintings = [
        reader.painting(data, f"painting {i}", model, longer, whole)
        for i, data in enumerate(files.get("paintings", ()), 1)
    ]
    return (*styles, *paintings, *cards)


def _describe(painting: PaintJob, sources: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Return facts about a picture; the command line can replay its record."""
    model, (height, width) = painting.model, painting.size
    record = {**make_record(painting.recipe, model, painting.size, Path()), **sources}
    if model.interrupted:
        record["interrupted"] = step
    found = {"width": width, "height": height, "interrupted": model.interrupted}
    return found | {
        "losses": {name: loss for name, loss in model.losses.items() if math.isfinite(loss)},
        "record": record,
    }


def _sources(styles: Sequence[str | None], files: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    """Return the files of a request for a record: by role and digest, never by name."""

    def named(role: str, name: str) -> list[dict[str, str]]:
        return [
            {"file": f"{role}-{i}", "sha256": hashlib.sha256(data).hexdigest()}
            for i, data in enumerate(files.get(name, ()), 1)
        ]

    content = {"file": "content", "sha256": hashlib.sha256(files["content"][0]).hexdigest()}
    known = [{"file": "card"} if name is None else {"style": name} for name in styles]
    styles_too = [*known, *named("painting", "paintings"), *named("card", "cards")]
    return {"content": content, "styles": styles_too, "masks": named("mask", "masks")}


def make_card(
    models: Models, reader: Reader, header: Mapping[str, Any], blobs: Sequence[bytes], progress: Progress
) -> Outcome:
    """Make a style card of a painting."""
    settings = CardRequest.parse(header["settings"], "the request")
    model = models.get(settings)
    image = reader.picture(_part(header, blobs)["painting"][0], "painting").painting("painting")
    fitted = fit_painting(model, image, settings.size)
    reader.check_painting(model, fitted.shape[-2], fitted.shape[-1])
    info = {name: value for name, value in settings.model_dump(include={"title", "artist", "year"}).items() if value}
    info |= {"width": fitted.shape[-1], "height": fitted.shape[-2]}
    found = model.encode_style(fitted)
    style = Style({name: value.cpu() for name, value in found.items()}, found.kind, info)
    path = reader.new_file()
    try:
        save_style(style, path)
        data = path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
    return Outcome(data, CARD_TYPE, {"kind": style.kind, "bytes": len(data), "info": info})


def paint_thumbnail(models: Models, header: Mapping[str, Any], blobs: Sequence[bytes], progress: Progress) -> Outcome:
    """Return a small landscape in a built-in style."""
    image = models.get(MethodRequest(options={})).stylize(landscape(), built_in(header["style"]), on_step=progress)
    return Outcome(encode_picture(image, "JPEG", quality=88), "image/jpeg")


def shrink(reader: Reader, header: Mapping[str, Any], blobs: Sequence[bytes], progress: Progress) -> Outcome:
    """A photo as the page shows it: of a size, or of a longer side."""
    picture = reader.picture(blobs[0], "content")
    height, width = header["size"] or fit(*picture.size, header["longer"])
    return Outcome(encode_picture(resize(picture.color, height, width), "JPEG", quality=QUALITY), "image/jpeg")


def find_brushed(reader: Reader, header: Mapping[str, Any], blobs: Sequence[bytes], progress: Progress) -> Outcome:
    """The alpha of a layer as a grey picture; nothing if it is empty."""
    alpha = reader.picture(blobs[0], "mask").alpha
    if alpha is None or float(alpha.max()) == 0:
        return Outcome(b"", "image/png")
    return Outcome(encode_picture(alpha.expand(1, 3, -1, -1), "PNG"), "image/png")
