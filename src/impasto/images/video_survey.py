"""Checks a whole video before it is painted: its properties, what a result can't keep, damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from impasto.errors import ImageError
from impasto.images.video_color import Colors
from impasto.images.video_lengths import missing_bytes
from impasto.images.video_source import (
    Source,
    colors_of,
    has_alpha,
    is_oblique,
    matrix_of,
    opened,
    read_pixels,
    side_data_of,
    square,
    turn,
)

SPECIAL = {
    "A53_CC": "closed captions are not kept",
    "SPHERICAL": "it is a 360 degree video: the result is not marked as one",
    "STEREO3D": "it is stereoscopic: the result is not marked as such",
}
SHORT = 1.0
"""Seconds that may be missing at the end: tracks seldom end together."""


@dataclass(frozen=True)
class VideoInfo:
    """A video's properties by its header: frames, which may be a guess, frames a second, whether there is sound."""

    frames: int
    rate: Fraction
    sound: bool


@dataclass(frozen=True)
class Survey:
    """Properties of a video that was decoded once.

    frames: number of readable frames; size: (height, width) of all, upright and with square pixels; notes: what changes
    or is lost, a line each.
    """

    frames: int
    rate: Fraction
    size: tuple[int, int]
    colors: Colors
    alpha: bool
    interlaced: bool
    notes: tuple[str, ...]


def probe_video(path: Path) -> VideoInfo:
    """Read a video's header; raises ImpastoError if it is no video."""
    with opened(path) as source:
        stream, container = source.stream, source.container
        frames = stream.frames
        if not frames:
            seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
            frames = max(1, round(float(seconds * source.rate)))
        return VideoInfo(frames, source.rate, bool(container.streams.audio))


def survey_video(path: Path, *, salvage: bool = False, on_frame: Callable[[], None] = lambda: None) -> Survey:
    """Decode all frames once; raises ImpastoError for what can't be painted, and for damage unless `salvage` is set."""
    with opened(path) as source:
        look = _Look(source)
        for frame in source.decoded(look.note_damage):
            look.add(frame)
            on_frame()
        problem = look.problem()
        if problem and not salvage:
            raise ImageError(f"{problem}; get it again, or paint what can be read with --salvage")
        return look.result(problem)


class _Look:
    """Collects the properties of a video, frame by frame."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.frames = 0
        self.end = Fraction(0)
        self.damaged: list[float] = []
        self.cut = False
        self.colors = Colors(2, 2, 2)
        self.size = self.stored = (0, 0)
        self.alpha = self.interlaced = False
        self.notes: dict[str, None] = {}

    def note_damage(self, kind: str, found: Any) -> None:
        """Remember an undecodable packet, or that the file is cut off; broadcasts may begin with incomplete frames."""
        if kind == "file":
            self.cut = True
        elif self.frames:
            self.damaged.append(float(self.end if found.pts is None else found.pts * found.time_base))

    def add(self, frame: Any) -> None:
        """Add a frame."""
        stored = frame.height, frame.width
        if not self.frames:
            self._begin(frame)
        elif stored != self.stored:
            self.notes[f"frames change to {stored[1]}x{stored[0]}: they are resized to the first one's size"] = None
        self.stored = stored
        self.frames += 1
        base = frame.time_base or self.source.stream.time_base
        if frame.pts is not None:
            self.end = (frame.pts + (frame.duration or 0)) * base
        if frame.is_corrupt:
            self.damaged.append(float(self.end))
        self.interlaced = self.interlaced or frame.interlaced_frame
        if not self.alpha and has_alpha(frame):
            self.alpha = bool(read_pixels(frame)[:, 3:].lt(1).any())
        for kind in side_data_of(frame) & SPECIAL.keys() if self.frames <= 100 else ():
            self.notes[SPECIAL[kind]] = None

    def _begin(self, frame: Any) -> None:
        source, matrix = self.source, matrix_of(frame)
        self.colors = colors_of(frame)
        dolby = "DOVI_METADATA" in side_data_of(frame)
        if dolby and self.colors.transfer == 2:
            raise ImageError(f"{source.path} has Dolby Vision colours of profile 5; convert it to HDR10 or SDR first")
        for note in self.colors.check(str(source.path)):
            self.notes[note] = None
        if is_oblique(matrix):
            self.notes["its display matrix is oblique: the nearest quarter turn is taken"] = None
        pixels = turn(read_pixels(frame)[:, :1], matrix)
        height, width = square(frame.height, frame.width, source.aspect)
        sideways = tuple(pixels.shape[-2:]) != (frame.height, frame.width)
        self.size = (width, height) if sideways else (height, width)

    def problem(self) -> str:
        """Return what is wrong with the file, in words; empty if nothing is."""
        path = self.source.path
        with path.open("rb") as file:
            lacking = missing_bytes(file)
        length = length_of(self.source)
        if lacking or self.cut or float(length - self.end) > max(SHORT, 0.02 * float(length)):
            of = f" of {clock(length)}" if length else ""
            more = f", {lacking} bytes are missing" if lacking else ""
            return f"{path} is cut off: its video ends at {clock(self.end)}{of}{more}"
        if self.damaged:
            places = "1 place" if len(self.damaged) == 1 else f"{len(self.damaged)} places"
            return f"{path} is damaged in {places}, first at {clock(self.damaged[0])}"
        return ""

    def result(self, problem: str) -> Survey:
        """Return the survey."""
        if not self.frames:
            raise ImageError(f"{self.source.path} holds no frame that can be read")
        notes = [*([f"{problem}: what can be read is painted"] if problem else []), *self.notes]
        if self.interlaced:
            notes.append("it is interlaced: frames are made whole")
        if self.source.jumps:
            notes.append(f"its times jump at {clock(self.source.jumps[0])}: the result goes on without a gap")
        made = self.size, self.colors, self.alpha, bool(self.interlaced)
        return Survey(self.frames, self.source.rate, *made, tuple(notes))


def clock(seconds: Fraction | float) -> str:
    """Return a time as players show it: 1:02:03.4."""
    tenths = round(float(seconds) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}" if hours else f"{minutes}") + f":{rest / 10:04.1f}"


def length_of(source: Source) -> Fraction:
    """Return the seconds of video according to the header; 0 if unreliable."""
    stream = source.stream
    tag = stream.metadata.get("DURATION", "")
    try:
        hours, minutes, seconds = tag.split(":")
        return Fraction(3600 * int(hours) + 60 * int(minutes)) + Fraction(seconds) - source.shift
    except ValueError:
        pass
    if source.container.format.name.startswith("mov") and stream.duration:
        return Fraction(stream.duration * stream.time_base)
    return Fraction(0)
