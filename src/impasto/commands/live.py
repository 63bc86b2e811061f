"""The work of `impasto live`: paints frames of a camera or a video in a window."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from impasto.commands import terminal
from impasto.commands.arguments import name_target
from impasto.commands.live_devices import VIEW, LatestFrame, Pixels, in_time
from impasto.errors import ImpastoError, OptionError, not_live
from impasto.images.color import MATCHING_MODES
from impasto.images.tensors import LEAST_SIDE, fit
from impasto.images.video_source import opened
from impasto.methods import find_method, list_methods
from impasto.runs.painting import load_model, pick_device, read_style
from impasto.runs.record import Recipe, file_stem, find_painting, make_record, write_recorded
from impasto.stylizers.base import Stylizer
from impasto.stylizers.fixed_styles import LearnedStyles
from impasto.stylizers.styles import Style, built_in_styles
from impasto.stylizers.video_coherence import Coherence

MEMORY = 0.8
"""Decay of earlier frames' moments."""
STYLE_SIDE = 512
TARGET = 1 / 12
"""Seconds for a frame: a little more than ten frames a second."""
LEAST, FIRST = 96, 320
TOO_SLOW = 0.93
"""Below this ratio of the sides a frame takes a tenth of a second or more."""
CALM = 0.7
STEP = 0.1
ESCAPE = "\x1b"
KEYS = "keys: n p style, + - strength, o original, m mirror, s save, q quit"

log = logging.getLogger(__name__)


class Screen(Protocol):
    """Shows frames."""

    def show(self, pixels: Pixels, title: str) -> str:
        """Show a picture; returns the key that was pressed, "" for none."""


@dataclass
class Governor:
    """Chooses the longer side of the frames so that each takes TARGET seconds.

    Time grows with the square of the side. The side changes only if it is clearly wrong, because every change is
    visible.
    """

    longer: int = FIRST
    spent: float = TARGET

    def learn(self, seconds: float, most: int) -> None:
        """Note the time of a frame; most: the largest useful longer side."""
        self.spent = CALM * self.spent + (1 - CALM) * seconds
        ratio = math.sqrt(TARGET / max(self.spent, 1e-4))
        if TOO_SLOW < ratio < 1.2:
            return
        side = int(self.longer * min(1.4, max(0.6, ratio))) // 32 * 32
        self.longer, self.spent = max(LEAST, min(most, side)), TARGET


@dataclass
class Painting:
    """The model, the styles, and the settings that keys change."""

    model: Stylizer
    recipe: Recipe
    styles: Sequence[Path]
    strength: float
    mirrored: bool
    number: int = 0
    original: bool = False
    _known: dict[Path, Style] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.choose(0)

    @property
    def name(self) -> str:
        """The name of the current style."""
        return self.styles[self.number].stem

    @property
    def title(self) -> str:
        """The window's title."""
        return "original" if self.original else f"{self.name} {self.strength:.0%}"

    @property
    def style(self) -> Style:
        """The current style, encoded at its first use; raises ImpastoError."""
        path = self.styles[self.number]
        if path not in self._known:
            self._known[path] = self.model.encode_styles([read_style(path)], self._style_size)[0]
        return self._known[path]

    @property
    def _style_size(self) -> int:
        return self.recipe.style_size or STYLE_SIDE

    def choose(self, by: int) -> None:
        """Step through the styles, and forget the moments of earlier frames, which differ between styles."""
        self.number = (self.number + by) % len(self.styles)
        self.coherence = Coherence(self.model, memory=MEMORY)

    def frame(self, photo: Tensor) -> Tensor:
        """Paint one of many frames, (1, 3, H, W): its moments are smoothed."""
        return self.coherence.paint(photo, lambda: self.still(photo))

    def still(self, photo: Tensor) -> Tensor:
        """Paint a picture by itself."""
        how = self.recipe
        return self.model.stylize(
            photo, self.style, strength=self.strength, keep_color=how.keep_color, seed=how.seed
        ).cpu()

    def press(self, key: str) -> None:
        """Handle a key that changes the picture."""
        if key in ("n", "p"):
            self.choose(1 if key == "n" else -1)
        elif key in ("+", "=", "-", "_"):
            step = STEP if key in "+=" else -STEP
            self.strength = min(1.0, max(0.0, round(self.strength + step, 6)))
        elif key == "o":
            self.original = not self.original
        elif key == "m":
            self.mirrored = not self.mirrored

    def save(self, pixels: Pixels, folder: Path) -> Path:
        """Paint the frame at its full size, and write it with its record."""
        photo = as_photo(pixels)
        path = name_target(None, folder / f"{file_stem('live', self.name)}.png", force=False)
        how = {"styles": (self.styles[self.number],), "strength": self.strength, "style_size": self._style_size}
        recipe = self.recipe.model_copy(update=how)
        image = self.still(photo)
        size = image.shape[-2], image.shape[-1]
        write_recorded(image, path, make_record(recipe, self.model, size, folder))
        return path


def as_photo(pixels: Pixels, longer: int | None = None) -> Tensor:
    """Return a frame as (1, 3, H, W) in [0, 1], with at most that longer side."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    height, width = image.shape[-2:]
    if longer is not None and longer < max(height, width):
        size = [max(LEAST_SIDE, side) for side in fit(height, width, longer)]
        image = functional.interpolate(image, size, mode="bilinear", antialias=True)
    return image.contiguous().float().div(255)


def as_pixels(image: Tensor, height: int, width: int) -> Pixels:
    """Return a result as bytes, at the size at which a frame of height x width is shown."""
    result = image.mul(255).round().clamp(0, 255).byte()
    size = [max(1, side) for side in fit(height, width, min(VIEW, max(height, width)))]
    if max(result.shape[-2:]) < max(size):
        result = functional.interpolate(result, size, mode="bilinear", antialias=True)
    pixels: Pixels = result[0].permute(1, 2, 0).contiguous().numpy()
    return pixels


def run(
    painting: Painting,
    frames: Iterable[Pixels],
    screen: Screen,
    folder: Path,
    longer: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Paint the newest of `frames` until q is pressed or they end; returns how many were painted.

    longer: the side of the frames; None: chosen by the time that they take. s writes into `folder`.
    """
    log.info(KEYS)
    latest = LatestFrame(frames)
    try:
        return _run(painting, latest.take, screen, folder, longer, clock)
    finally:
        latest.close()


def _run(
    painting: Painting,
    take: Callable[[], Pixels | None],
    screen: Screen,
    folder: Path,
    longer: int | None,
    clock: Callable[[], float],
) -> int:
    governor, count, since, rate, painted = Governor(), 0, clock(), "", 0
    while (pixels := take()) is not None:
        begin = clock()
        pixels = pixels[:, ::-1].copy() if painting.mirrored else pixels
        photo = as_photo(pixels, min(longer or governor.longer, max(pixels.shape[:2])))
        image = photo if painting.original else painting.frame(photo)
        height, width = image.shape[-2:]
        title = f"{painting.title}, {width}x{height}{rate}"
        key = screen.show(as_pixels(image, *pixels.shape[:2]), title)
        if key in ("q", ESCAPE):
            return painted
        if key == "s":
            _save(painting, pixels, folder)
        elif key:
            painting.press(key)
        elif not painting.original:
            governor.learn(clock() - begin, max(pixels.shape[:2]))
        count, painted = count + 1, painted + 1
        if clock() - since > 1:
            rate = f", {count / (clock() - since):.1f} a second"
            count, since = 0, clock()
    return painted


def _save(painting: Painting, pixels: Pixels, folder: Path) -> None:
    """Write a picture and print its name; if that fails, say why and go on."""
    try:
        terminal.say_path(painting.save(pixels, folder))
    except ImpastoError as error:
        log.warning("%s", error)


def make_painting(recipe: Recipe, words: Sequence[str], device: str, runtime: str, *, mirrored: bool) -> Painting:
    """Load the model and the first style; raises ImpastoError. words: paintings, cards, names; none: all built-in."""
    method = find_method(recipe.method)
    if not method.one_pass:
        others = ", ".join(name for name in list_methods() if find_method(name).one_pass)
        raise OptionError(f"{method.name} takes seconds or minutes for a frame; live takes one of {others}")
    if recipe.keep_color in MATCHING_MODES:
        raise OptionError(not_live(recipe.keep_color))
    model = load_model(recipe, pick_device(device, runtime), runtime)
    learned = isinstance(model, LearnedStyles)
    names = list(words) or list(model.style_names if learned else built_in_styles())
    paths = [find_painting(word, learned=learned) for word in names]
    painting = Painting(model, recipe, paths, recipe.strength, mirrored)
    for path in paths if words else paths[:1]:  # mistakes are reported before the window opens
        painting.number = paths.index(path)
        assert painting.style
    painting.number = 0
    return painting


def play(path: Path) -> Iterator[Pixels]:
    """Yield the frames of a video at its own speed, in a loop; raises ImpastoError."""
    while True:
        yield from in_time(_decode(path))


def _decode(path: Path) -> Iterator[tuple[float, Pixels]]:
    with opened(path) as source:
        for frame in source.frames(lambda *_: None):
            pixels: Pixels = frame.image[0].mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
            yield float(frame.start * frame.time_base), pixels
