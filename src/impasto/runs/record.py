"""The run record: settings and versions of a run, from which its picture can be made again.

A record is a JSON object: in a PNG's text under ``impasto``, beside other pictures as ``PICTURE.json``. Files are
recorded by name only; on request relative to the record's own folder, with their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from impasto import __version__
from impasto.errors import ImpastoError, OptionError, nearest, no_recolouring, no_style, to_json, wrong_masks
from impasto.files import is_remote, real_path, url_of, write_atomically
from impasto.images.color import COLOR_MODES, MATCHING_MODES
from impasto.images.files import read_metadata, write_image
from impasto.methods import DEFAULT_METHOD, find_method, list_methods, method_for
from impasto.options import Options, check_weights, parse_size
from impasto.stylizers.base import Stylizer
from impasto.stylizers.fixed_styles import LearnedStyles
from impasto.stylizers.styles import CARD, built_in_styles, find_card

LONGEST_STEM = 200
"""Bytes; file systems allow names of 255, and endings are added."""

KEY = "impasto"
FILES = ("content", "styles", "masks")
FILE_OPTIONS = ("weights", "backbone_weights", "start")
"""Options of methods that may name a file."""
RARE = ("vary", "smooth", "flow", "flow_by", "temporal_weight")
LARGEST_RECORD = 10_000_000

log = logging.getLogger(__name__)


class Recipe(Options):
    """The settings of a run.

    size: see `parse_size`; None: the method's default. weights: digests of the weights of a recorded run; vary: the
    axes of a contact sheet; smooth, flow, flow_by, temporal_weight: for a video, see `Coherence`: memory, carried
    share, estimator of the flow, weight of the difference from the last result.
    """

    method: str = DEFAULT_METHOD
    preset: str = "default"
    options: dict[str, Any] = Field({})
    content: Path | None = None
    styles: tuple[Path, ...] = ()
    style_weights: tuple[float, ...] | None = None
    masks: tuple[Path, ...] = ()
    size: str | None = None
    style_size: int | None = Field(None, ge=16, le=100_000)
    strength: float = Field(1.0, ge=0, le=1)
    keep_color: str = "off"
    seed: int = Field(0, ge=0, lt=2**63)
    vary: dict[str, tuple[str, ...]] = Field({})
    smooth: float | None = Field(None, ge=0, lt=1)
    flow: float | None = Field(None, ge=0, lt=1)
    flow_by: Literal["dis", "raft"] | None = None
    temporal_weight: float | None = Field(None, ge=0)
    weights: dict[str, str] = Field({})

    @field_validator("size", mode="before")
    @classmethod
    def _check_size(cls, value: Any) -> str | None:
        if value is not None:
            parse_size(str(value))
        return None if value is None else str(value)

    @field_validator("keep_color")
    @classmethod
    def _check_color(cls, value: str) -> str:
        if value not in COLOR_MODES:
            near = nearest(value, COLOR_MODES)
            raise OptionError(f"--keep-color is one of {', '.join(COLOR_MODES)}, not {value!r}{near}")
        return value


def sidecar(path: Path) -> Path | None:
    """Return the file for the record of a picture that can't hold it itself."""
    return None if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.json")


def file_stem(*parts: str) -> str:
    """Join parts to the name of a result, at most LONGEST_STEM bytes; a digest keeps cut names unique."""
    whole = "-".join(parts)
    data = os.fsencode(whole)
    if len(data) <= LONGEST_STEM:
        return whole
    mark = hashlib.sha256(data).hexdigest()[:12]
    kept = data[: LONGEST_STEM - len(mark) - 1]
    while kept and data[len(kept)] & 0xC0 == 0x80:  # not within a character
        kept = kept[:-1]
    return f"{os.fsdecode(kept)}-{mark}"


def find_style(name: str, *, learned: bool = False) -> Path:
    """Return the style card or painting called `name`: a file or a built-in style; raises ImpastoError.

    learned: also accept the bare name of a style that only the method knows.
    """
    path = find_card(name)
    if path.is_file() or (learned and is_bare(path)):
        return path
    raise ImpastoError(no_style(name, built_in_styles()))


def find_painting(word: str, *, learned: bool = False) -> Path:
    """Return the painting or card that `word` names: a file, a URL, or a style by its name; raises ImpastoError.

    learned: see `find_style`.
    """
    path = Path(word)
    is_name = not path.suffix and path == Path(path.name) and not path.exists()
    return find_style(word, learned=learned) if is_name else path


def is_bare(path: Path) -> bool:
    """Return whether `path` is only a name, without a suffix or a file."""
    return not path.suffix and path == Path(path.name) and not path.exists()


def make_record(
    recipe: Recipe, model: Stylizer, size: tuple[int, int], folder: Path, known: Mapping[Path, str] | None = None
) -> dict[str, Any]:
    """Return the record of a run of `recipe` by `model` at `size`, (height, width), for a picture in `folder`.

    known: digests of files that need not be read again, or can't be read here.
    """
    known = known or {}
    record = recipe.model_dump(mode="json", exclude={*FILES, *RARE, "weights"})
    cut = model.cut
    record |= {
        "options": model.options.model_dump(mode="json"),
        "size": recipe.size or _implied_size(model, size),
        "content": None if recipe.content is None else _describe(recipe.content, folder, known),
        "styles": [_describe(path, folder, known) for path in recipe.styles],
        "masks": [_describe(path, folder, known) for path in recipe.masks],
        "width": size[1],
        "height": size[0],
        "weights": model.digests,
        "device": model.device.type,
        "runtime": model.runtime,
        "statistics": "live" if cut is None else "exact",
        "tile": None if cut is None else cut.tile,
        "versions": {"impasto": __version__, "torch": torch.__version__},
    }
    rare = recipe.model_dump(mode="json", include=set(RARE))
    return record | {name: value for name, value in rare.items() if value not in (None, {})}


def _implied_size(model: Stylizer, size: tuple[int, int]) -> str | None:
    """Return the --size that gives the same size on any device; None if the method or its recipe fixes it."""
    own = getattr(model.options, "size", "")
    return None if model.one_pass or own else str(max(size))


def _describe(path: Path, folder: Path, known: Mapping[Path, str]) -> dict[str, str]:
    if is_bare(path):
        return {"style": path.name}
    sha256 = known.get(path) or digest(path)
    if built_in_styles().get(path.stem) == path:
        return {"style": path.stem, "sha256": sha256}
    if is_remote(path):
        return {"file": url_of(path), "sha256": sha256}
    try:
        file = real_path(path) if is_remote(folder) else Path(os.path.relpath(real_path(path), real_path(folder)))
    except ValueError:  # on another drive
        file = real_path(path)
    return {"file": file.as_posix(), "sha256": sha256}


_paths_kept = False


def keep_paths(wanted: bool) -> None:
    """Keep folders and digests of the user's files in records from now on, or only their names."""
    global _paths_kept
    _paths_kept = wanted


def shareable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as it is written: files by name only, unless `keep_paths` allows more.

    Folders can reveal who made a picture, and a digest which photo was used.
    """
    return dict(record) if _paths_kept else {key: _without_places(value, key) for key, value in record.items()}


def _without_places(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        if isinstance(value.get("file"), str):
            return {"file": _name_of(value["file"])}
        return {name: _without_places(part, name) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(part) for part in value]
    return _name_of(value) if key in FILE_OPTIONS and isinstance(value, str) else value


def _name_of(file: str) -> str:
    return file.rstrip("/").rsplit("/", 1)[-1].rsplit("\\", 1)[-1] or file


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; raises ImpastoError if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ImpastoError(f"{path} can't be read: {error.strerror}") from None


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def write_recorded(
    image: Tensor, path: Path, record: Mapping[str, Any] | None, *, alpha: Tensor | None = None, overwrite: bool = False
) -> None:
    """Write a picture with its record, in it or beside it. Raises ImpastoError."""
    text = "" if record is None else to_json(shareable(record))
    beside = sidecar(path)
    write_image(image, path, alpha=alpha, metadata={KEY: text} if text and not beside else None, overwrite=overwrite)
    if text and beside:
        write_atomically(beside, (text + "\n").encode())


def interrupted_picture(default: Path) -> Path | None:
    """Return the picture that an interrupted run has left: the last one called `default`, maybe with a number."""
    numbered = re.compile(rf"{re.escape(default.stem)}(-\d+)?")
    for path in sorted(default.parent.glob(f"*{default.suffix}"), reverse=True):
        if numbered.fullmatch(path.stem) is None:
            continue
        try:
            text = read_metadata(path).get(KEY, "")
        except ImpastoError:
            continue
        if '"interrupted"' in text:
            return path
    return None


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a picture, beside it, or in a JSON file. Raises ImpastoError; warns of changed files."""
    record = _read_record(path)
    given: dict[str, Any] = {name: record[name] for name in Recipe.model_fields if record.get(name) is not None}
    for name in FILES:
        sources = given.pop(name, [])
        sources = [sources] if name == "content" and sources else sources
        if not isinstance(sources, list):
            raise ImpastoError(f"{path}: {name} is no list of files")
        found = tuple(_find(source, path, learned=_has_learned(record)) for source in sources)
        given[name] = (found[0] if found else None) if name == "content" else found
    return Recipe.parse(given, str(path))


def _read_record(path: Path) -> dict[str, Any]:
    try:
        text = _read_text(path)
        record = json.loads(text)
    except OSError as error:
        raise ImpastoError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ImpastoError(f"{path} holds no run record that can be read: it is no JSON") from None
    if not isinstance(record, dict):
        raise ImpastoError(f"{path} holds no run record: it is no JSON object")
    if not record.keys() & Recipe.model_fields.keys():
        raise ImpastoError(f"{path} holds no run record: none of its names is one of a run's settings")
    return record


def _read_text(path: Path) -> str:
    if path.suffix.lower() != ".json":
        text = read_metadata(path).get(KEY)
        beside = path.with_name(f"{path.name}.json")
        if text is not None:
            return text
        if not beside.is_file():
            raise ImpastoError(f"{path} holds no run record; it is in pictures that impasto wrote without --no-record")
        path = beside
    with path.open("rb") as file:
        data = file.read(LARGEST_RECORD + 1)
    if len(data) > LARGEST_RECORD:
        raise ImpastoError(f"{path} is too large for a run record")
    return data.decode()


def _has_learned(record: Mapping[str, Any]) -> bool:
    """Return whether the recorded method has its own styles."""
    name = record.get("method")
    return name in list_methods() and issubclass(find_method(name), LearnedStyles)


def _find(source: Any, record: Path, *, learned: bool) -> Path:
    """Return the file that a record names: beside the record or here. A missing file is reported when it is read."""
    source = {"file": source} if isinstance(source, str) else source
    if not isinstance(source, dict) or not isinstance(source.get("file", source.get("style")), str):
        raise ImpastoError(f"{record}: {source!r} names no file")
    if "file" in source:
        near, here = record.parent / source["file"], Path(Path(source["file"]).name)
        if is_remote(near):  # a record from elsewhere must not open connections
            log.warning(
                "%s names %s: recipes open no connections; name it on the command line", record.name, url_of(near)
            )
            near = near.absolute()
        path = here if here.is_file() and not near.is_file() else near
    else:
        path = built_in_styles().get(source["style"]) or find_style(source["style"], learned=learned)
    if source.get("sha256") and path.is_file() and digest(path) != source["sha256"]:
        log.warning("%s has changed since %s was made", source.get("style", path), record.name)
    return path


def choose_method(
    recipe: Recipe, styles: Iterable[Path], *, options: Collection[str], runtime: str, still: bool = True
) -> Recipe:
    """Return the recipe of a run that names no method, with the method that paints these styles; still: no video."""
    built_in = {path: name for name, path in built_in_styles().items()}
    names = (built_in.get(path, path.name if path.suffix.lower() == CARD else None) for path in styles)
    method = method_for(names, preset=recipe.preset, options=options, runtime=runtime, still=still)
    return recipe.model_copy(update={"method": method})


def check_recipe(recipe: Recipe) -> Recipe:
    """Raise ImpastoError for mistakes that can be found before any file is read."""
    if recipe.content is None:
        raise ImpastoError("name a photo and a painting: impasto stylize photo.jpg painting.jpg")
    if not recipe.styles:
        raise ImpastoError("name a painting, a style card, or --style NAME, one of those that `impasto styles` lists")
    check_weights(recipe.style_weights, len(recipe.styles))
    if len(recipe.masks) not in (0, 1, len(recipe.styles)):
        count = len(recipe.styles)
        raise OptionError(wrong_masks(count, len(recipe.masks)))
    cards = [path for path in recipe.styles if path.suffix.lower() == CARD]
    if cards and recipe.keep_color in MATCHING_MODES:
        raise OptionError(no_recolouring(recipe.keep_color, cards[0].name))
    return recipe
