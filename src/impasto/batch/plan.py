"""The plan of `impasto batch`: photos and styles from files, folders and patterns, and the names of results."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from impasto.errors import ImpastoError, OptionError, nearest, no_style
from impasto.files import is_remote, real_path, url_of
from impasto.images.files import WRITABLE
from impasto.runs.record import Recipe, check_recipe, choose_method, file_stem, sidecar
from impasto.runs.remote_files import find_remote, has_pattern, to_path
from impasto.stylizers.styles import CARD, built_in_styles

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".avif", ".heic", ".heif")

StyleSet = tuple[Path, ...]
"""The styles of one picture: one style, or the mixture of a recorded run."""


@dataclass(frozen=True)
class Item:
    """One picture to paint: its recipe and the file to write."""

    recipe: Recipe
    target: Path

    @property
    def content(self) -> Path:
        """The photo."""
        assert self.recipe.content is not None
        return self.recipe.content

    def is_in(self, names: Collection[str], record: bool) -> bool:
        """Return whether the picture is among `names`, and its record if it should have one."""
        beside = sidecar(self.target)
        return self.target.name in names and (not record or beside is None or beside.name in names)


@dataclass(frozen=True)
class BatchPlan:
    """All pictures to paint. words: where photos are searched, again for each round."""

    base: Recipe
    words: tuple[str, ...]
    styles: tuple[StyleSet, ...]
    output: Path
    suffix: str
    pairs: bool
    record: bool
    force: bool

    def items(self) -> list[Item]:
        """Return the pictures to paint from the photos that exist now, photo by photo; raises ImpastoError."""
        contents = self.contents()
        if self.pairs and len(contents) != len(self.styles):
            raise ImpastoError(f"--pairs needs as many styles as photos, not {len(self.styles)} for {len(contents)}")
        every = [(content, style) for content in contents for style in self.styles]
        couples = list(zip(contents, self.styles, strict=True)) if self.pairs else every
        photos, paintings = short_names(contents), short_names([path for style in self.styles for path in style])
        items = []
        for content, style in couples:
            stem = file_stem(photos[content], *(paintings[path] for path in style))
            recipe = self.base.model_copy(update={"content": content, "styles": style})
            items.append(Item(recipe, self.output / f"{stem}{self.suffix}"))
        _refuse_same_names(items)
        return items

    def with_method(self, runtime: str) -> BatchPlan:
        """Return the plan of a run that names no method, with the method that paints all of its styles."""
        styles = [path for style in self.styles for path in style]
        return replace(self, base=choose_method(self.base, styles, options=self.base.options, runtime=runtime))

    def contents(self) -> list[Path]:
        """Return the photos that exist now, without results."""
        found = [path for word in self.words for path in find_files(word, PICTURES)]
        home = real_path(self.output)
        return _once(path for path in found if real_path(path).parent != home)


def make_plan(
    base: Recipe,
    words: Sequence[str],
    named: Sequence[str],
    output: Path | None,
    *,
    suffix: str = ".png",
    pairs: bool = False,
    record: bool = True,
    force: bool = False,
    watch: bool = False,
) -> BatchPlan:
    """Check what can be checked before anything is painted; raises ImpastoError.

    base: common settings, with the styles of a recorded run; words: photos, and styles in the last one if nothing else
    names them; named: the values of ``--style``.
    """
    if output is None:
        raise ImpastoError("name a folder for the results: impasto batch photos/ paintings/ -o results")
    if not is_remote(output) and output.exists() and not output.is_dir():
        raise ImpastoError(f"{output} is a file; name a folder for the results")
    if suffix.lower() not in WRITABLE:
        endings = [known[1:] for known in WRITABLE]
        near = nearest(suffix[1:], endings)
        raise OptionError(f"--format is one of {', '.join(endings)}, not {suffix[1:]!r}{near}")
    if watch and pairs:
        raise OptionError("--watch goes with every photo by every style, not with --pairs")
    if watch and any(is_remote(to_path(word)) for word in words):
        raise OptionError("--watch looks at folders of this machine, not at URLs")
    photos = list(words)
    named = list(named) or ([] if base.styles else [photos.pop()] if photos else [])
    found = _once(path for word in named for path in find_styles(word))
    styles: list[StyleSet] = [(path,) for path in found] or [base.styles]
    if found:
        base = base.model_copy(update={"style_weights": None})
    if not photos or not styles[0]:
        raise ImpastoError("name photos and styles: impasto batch photos/ paintings/ -o results")
    if any(real_path(to_path(word)) == real_path(output) for word in photos):
        raise ImpastoError(f"{url_of(output)} holds the photos; name another folder for the results")
    plan = BatchPlan(base, tuple(photos), tuple(styles), output, suffix, pairs, record, force)
    if not plan.items() and not watch:
        raise ImpastoError(_why_none(photos, output))
    for style in styles:
        check_recipe(base.model_copy(update={"content": output, "styles": style}))
    return plan


def _why_none(words: Sequence[str], output: Path) -> str:
    """Return why there is nothing to paint, and what to do."""
    there = [path for word in words for path in find_files(word, PICTURES)]
    if there:
        return f"{there[0]} lies in {output}, where results go and are not painted again; name another folder with -o"
    left = _in_words(count_left_out(words, output))
    return f"there is no picture in {', '.join(words)}" + (f" ({left})" if left else "")


def count_left_out(words: Sequence[str], output: Path) -> dict[str, int]:
    """Return how many files of the named folders are not painted, by reason: their ending, or where they are."""
    found: Counter[str] = Counter()
    home = None if is_remote(output) else real_path(output)
    for word in words:
        path = to_path(word)
        if is_remote(path) or not path.is_dir():
            continue
        for file in path.iterdir():
            if file.is_dir() or (real_path(file).parent == home and _is_wanted(file, PICTURES)):
                continue
            if file.name.startswith("."):
                found["hidden"] += 1
            elif file.suffix.lower() not in PICTURES:
                found[file.suffix.lower() or "without an ending"] += 1
            elif not file.is_file():
                found["no regular files"] += 1
    return dict(found.most_common())


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {why}" for why, number in counts.items())


def tell_left_out(words: Sequence[str], output: Path) -> str:
    """Return a line on what is left out; empty if nothing is."""
    counts = count_left_out(words, output)
    if not counts:
        return ""
    return f"left out {sum(counts.values())} files that are no pictures: {_in_words(counts)}"


def find_files(word: str, suffixes: Sequence[str]) -> list[Path]:
    """Return the files that a word names: itself, those in a folder, those of a pattern. Raises ImpastoError."""
    path = to_path(word)
    if is_remote(path):
        return find_remote(path, suffixes)
    word = str(path)
    if path.is_dir():
        return [file for file in sorted(path.iterdir()) if _is_wanted(file, suffixes)]
    if path.is_file():
        return [path]
    if not has_pattern(word):
        raise ImpastoError(f"{word} does not exist")
    return [file for file in map(Path, sorted(glob.glob(word, recursive=True))) if _is_wanted(file, suffixes)]


def find_styles(word: str) -> list[Path]:
    """Return the paintings and cards that a word names, or the built-in style of that name; raises ImpastoError."""
    cards, path = built_in_styles(), to_path(word)
    if word in cards and not path.exists():
        return [cards[word]]
    if not is_remote(path) and not path.exists() and not has_pattern(word):
        raise ImpastoError(no_style(word, cards))
    found = find_files(word, (*PICTURES, CARD))
    if not found:
        raise ImpastoError(f"there is no painting and no style card in {word}")
    return found


def _is_wanted(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def _once(paths: Iterator[Path]) -> list[Path]:
    """Return each file once, under its first name."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(real_path(path), path)
    return list(first.values())


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return each file's part of the results' names: its stem, or as much more as makes it unique."""
    forms: list[Callable[[Path], str]] = [
        lambda path: path.stem,
        lambda path: path.name.replace(".", "_"),
        lambda path: f"{real_path(path).parent.name}-{path.stem}",
        lambda path: "-".join(_own_parts(path)).replace(".", "_"),
    ]
    names: dict[Path, str] = {}
    left = list(dict.fromkeys(paths))
    for form in forms:
        taken = Counter(form(path).casefold() for path in left)
        names |= {path: form(path) for path in left if taken[form(path).casefold()] == 1}
        left = [path for path in left if path not in names]
    return names | {path: path.stem for path in left}


def _own_parts(path: Path) -> Sequence[str]:
    """Return the folders and the name of a file, on its machine or anywhere."""
    return [part.rstrip(":") for part in path.parts] if is_remote(path) else real_path(path).parts[1:]


def _refuse_same_names(items: Sequence[Item]) -> None:
    taken: dict[str, Item] = {}
    for item in items:
        other = taken.setdefault(item.target.name.casefold(), item)
        if other is not item:
            two = f"{url_of(item.content)} and {url_of(other.content)}"
            raise ImpastoError(f"{two} would both give {item.target.name}: rename one of the files")
