"""Finds the photo and painting of each picture, and makes the protocol's pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.errors import ImpastoError
from impasto.evaluation.lanczos import resize_lanczos
from impasto.images.files import read_image, read_metadata, write_image
from impasto.images.tensors import fit
from impasto.progress import OnPart, ignore_part
from impasto.stylizers.base import Stylizer

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
SEPARATORS = ("__", "-")
OFFSETS = (0, 13, 26)
RECORD = "impasto-pair"

Size = int | tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A photo, a painting, and the file of the picture made from them."""

    content: Path
    style: Path
    stylized: Path


def list_pictures(folder: str | Path) -> dict[str, Path]:
    """Return the pictures of `folder` by their names without suffix, sorted. Raises ImpastoError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ImpastoError(f"{folder} is no folder; name one that holds pictures")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            if path.stem in found:
                raise ImpastoError(f"{found[path.stem]} and {path.name} have the same name; move one of them away")
            found[path.stem] = path
    if not found:
        raise ImpastoError(f"{folder} holds no pictures")
    return found


def find_pairs(contents: str | Path, styles: str | Path, stylized: str | Path) -> list[Pair]:
    """Return the pairs that the files of `stylized`, CONTENT__STYLE.png or CONTENT-STYLE.png, name, sorted.

    Raises ImpastoError for a file whose name has no photo or painting, or an unknown one.
    """
    photos, paintings = list_pictures(contents), list_pictures(styles)
    pairs: dict[tuple[str, str], Pair] = {}
    for stem, path in list_pictures(stylized).items():
        names = _part(stem, path, photos, paintings)
        if names in pairs:
            raise ImpastoError(f"{pairs[names].stylized} and {path.name} are of the same pair; move one of them away")
        pairs[names] = Pair(photos[names[0]], paintings[names[1]], path)
    return [pairs[names] for names in sorted(pairs)]


def _part(stem: str, path: Path, photos: dict[str, Path], paintings: dict[str, Path]) -> tuple[str, str]:
    """Return the names of the photo and the painting that `stem` is made of."""
    splits = [names for separator in SEPARATORS for names in _splits(stem, separator)]
    fitting = [names for names in splits if names[0] in photos and names[1] in paintings]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ImpastoError(f"{path} may stand for {' or '.join(map(' and '.join, fitting))}; rename the pictures")
    if not splits:
        raise ImpastoError(f"{path} is not named CONTENT__STYLE{path.suffix}, so it is not known what to compare it to")
    content, style = splits[0]
    role, missing = ("painting", style) if content in photos else ("photo", content)
    raise ImpastoError(f"{path}: there is no {role} called {missing}; put it with the others or move {path.name} away")


def _splits(stem: str, separator: str) -> Iterator[tuple[str, str]]:
    """Yield all ways to split `stem` at `separator` into two names, the longest first name last."""
    at = stem.find(separator)
    while at != -1:
        before, after = stem[:at], stem[at + len(separator) :]
        if before and after:
            yield before, after
        at = stem.find(separator, at + 1)


def pair_up(
    contents: str | Path, styles: str | Path, *, offsets: Sequence[int] = OFFSETS, count: int | None = None
) -> list[tuple[Path, Path]]:
    """Return the protocol's pairs: photo number i, sorted and from 0, with the paintings i + each of `offsets`.

    The paintings' numbers wrap around. count: only the first pairs, all photos with their first painting before any
    with its second. Raises ImpastoError if there are not so many.
    """
    photos, paintings = list(list_pictures(contents).values()), list(list_pictures(styles).values())
    chosen = [(photo, paintings[(i + offset) % len(paintings)]) for offset in offsets for i, photo in enumerate(photos)]
    pairs = list(dict.fromkeys(chosen))
    if count is not None and not 1 <= count <= len(pairs):
        raise ImpastoError(f"there are {len(pairs)} pairs of {contents} and {styles}, not {count}; give more --offsets")
    return pairs[:count]


def read_sized(path: Path, size: Size) -> Tensor:
    """Return a picture, (1, 3, H, W): of exactly (height, width), or with this longer side in its own proportions."""
    image = read_image(path)
    height, width = fit(image.shape[-2], image.shape[-1], size, enlarge=True) if isinstance(size, int) else size
    return resize_lanczos(image, height, width)


def stylize_pairs(
    stylizer: Stylizer,
    pairs: Sequence[tuple[Path, Path]],
    folder: str | Path,
    size: Size,
    *,
    strength: float = 1.0,
    seed: int = 0,
    on_pair: OnPart = ignore_part,
) -> list[Pair]:
    """Paint each photo of `pairs` in its painting's style into `folder`, as CONTENT__STYLE.png; both read at `size`.

    Existing files are kept, so that an interrupted run continues; each is written whole or not at all. Raises
    ImpastoError if one was made in another way.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps(_how(stylizer, size, strength, seed), sort_keys=True)
    done = [Pair(content, style, folder / f"{content.stem}__{style.stem}.png") for content, style in pairs]
    for number, pair in enumerate(done, start=1):
        if pair.stylized.exists():
            _check_record(pair.stylized, record)
        else:
            content, style = read_sized(pair.content, size), read_sized(pair.style, size)
            image = stylizer.stylize(content, style, strength=strength, seed=seed)
            if stylizer.interrupted:
                raise KeyboardInterrupt
            write_image(image, pair.stylized, metadata={RECORD: record})
        on_pair(number, len(done))
    return done


def _how(stylizer: Stylizer, size: Size, strength: float, seed: int) -> dict[str, Any]:
    """Return everything that a picture depends on besides its pair."""
    return {
        "method": stylizer.name,
        "options": stylizer.options.model_dump(mode="json"),
        "weights": stylizer.digests,
        "size": show_size(size),
        "strength": strength,
        "seed": seed,
    }


def show_size(size: Size) -> str:
    """Return `size` as on the command line."""
    return str(size) if isinstance(size, int) else f"{size[1]}x{size[0]}"


def _check_record(path: Path, record: str) -> None:
    """Raise ImpastoError for a picture whose record says that it was made in another way."""
    before = read_metadata(path).get(RECORD)
    if before is None or before == record:
        return
    try:
        old, new = dict(json.loads(before)), json.loads(record)
    except (ValueError, TypeError):
        raise ImpastoError(f"{path} does not say how it was made; remove it") from None
    changed = ", ".join(name for name in new if old.get(name) != new[name])
    raise ImpastoError(f"{path} was made with another {changed}; remove it or make the pictures in another folder")
