"""Copies a video's other tracks: sound, subtitles, fonts and covers, chapters, titles.

Text subtitles are converted to the kind of the result's format. Places and devices are left out, as for photos.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from impasto.errors import ImpastoError
from impasto.images.video_source import ATTACHED, Source

KEPT = frozenset(
    {"title", "artist", "author", "album", "album_artist", "composer", "performer", "date", "year", "creation_time"}
    | {"comment", "description", "synopsis", "copyright", "license", "genre", "show", "episode_id", "season_number"}
    | {"network", "publisher", "subject", "keywords", "grouping", "track", "disc"}
)
"""Titles and dates that a result keeps; no places, no devices."""
KEPT_OF_TRACKS = frozenset({"title", "language", "filename", "mimetype", "comment"})
QUICKTIME_WORDS = {"deu": "ger", "nld": "dut", "swe": "sve", "zho": "chi", "isl": "ice", "fas": "per", "ell": "gre"}
"""Languages that QuickTime files call by older codes."""
TEXT = ("subrip", "ass", "ssa", "mov_text", "webvtt", "text")
TEXT_OF = {"matroska": "subrip", "webm": "webvtt", "mp4": "mov_text", "mov": "mov_text"}


def kept(metadata: dict[str, str], keys: frozenset[str] = KEPT) -> dict[str, str]:
    """Return those entries of `metadata` that a result keeps; "title-eng" is a title."""
    return {key: value for key, value in metadata.items() if key.lower().split("-")[0] in keys}


def about_track(metadata: dict[str, str], form: str) -> dict[str, str]:
    """Return a track's title and language, as a file of the format `form` calls them."""
    about = kept(metadata, KEPT_OF_TRACKS)
    if "name" in metadata and "title" not in about:
        about["title"] = metadata["name"]
    if form == "mov" and about.get("language") in QUICKTIME_WORDS:
        about["language"] = QUICKTIME_WORDS[about["language"]]
    return about


def chapters_of(source: Source) -> list[dict[str, Any]]:
    """Return the chapters, with times from the beginning of the video."""
    found = []
    for chapter in source.container.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        moved = round(source.shift / base)
        start, end = max(0, chapter["start"] - moved), chapter["end"] - moved
        found.append({**chapter, "time_base": base, "start": start, "end": max(start, end)})
    return found


class Tracks:
    """The tracks of `source` in `output`, and their packets, copied in time with the frames.

    Create it after the video has been added to `output` and before the first packet. Raises ImpastoError if the format
    can't hold the sound.
    """

    def __init__(self, source: Source, output: Any, suffix: str) -> None:
        self.output = output
        self.left_out: list[str] = []
        """What the format can't hold, in words."""
        self._streams: dict[int, Any] = {}
        self._converted: set[int] = set()
        self._format = output.format.name
        has_chapters = bool(source.container.chapters())
        for stream in source.container.streams:
            if stream.index != source.stream.index:
                self._add(stream, suffix, has_chapters)
        output.metadata.update(kept(source.container.metadata))
        if has_chapters and self._format != "webm":
            output.set_chapters(chapters_of(source))
        elif has_chapters:
            self.left_out.append("chapters")
        with_packets = [source.container.streams[i] for i in self._streams if _has_packets(source.container.streams[i])]
        self._packets: Iterator[Any] = source.packets(*with_packets) if with_packets else iter(())
        self._next: Any = None

    def _add(self, stream: Any, suffix: str, has_chapters: bool) -> None:
        made = None
        if stream.type in ("audio", "subtitle", "attachment") or int(stream.disposition) & ATTACHED:
            made = self._copy(stream)
        if made is None and stream.type == "audio":
            raise ImpastoError(f"{suffix} can't hold sound in {codec_of(stream)}; write a .mkv file")
        if made is None and codec_of(stream) in TEXT:
            made = self._convert(stream)
        if made is None:
            if not (has_chapters and stream.type == "data" and codec_of(stream) in ("bin_data", "text", "")):
                self.left_out.append(describe(stream))
            return
        made.metadata.update(about_track(stream.metadata, self._format))
        made.disposition = stream.disposition
        self._streams[stream.index] = made

    def _copy(self, stream: Any) -> Any | None:
        """Return a track for unchanged packets of `stream`, or None if the format can't hold them."""
        if stream.type == "attachment" and self._format != "matroska":
            return None
        try:
            return self.output.add_stream_from_template(stream, opaque=True)
        except ValueError:
            return None

    def _convert(self, stream: Any) -> Any | None:
        """Return a track for subtitles of another kind."""
        decoder = stream.codec_context
        try:
            made = self.output.add_stream(TEXT_OF[self._format])
        except ValueError:
            return None
        made.codec_context.subtitle_header = decoder.subtitle_header or ASS_HEADER
        made.codec_context.time_base = made.time_base = Fraction(1, 1000)
        self._converted.add(stream.index)
        return made

    def copy_until(self, seconds: Fraction | None) -> None:
        """Copy everything that begins before `seconds`; None: the rest."""
        while True:
            packet = self._next or next(self._packets, None)
            self._next = packet
            if packet is None:
                return
            time = packet.pts if packet.dts is None else packet.dts
            if time is None and int(packet.stream.disposition) & ATTACHED:
                time = packet.pts = packet.dts = 0
            if time is not None and packet.size:
                if seconds is not None and time * packet.time_base > seconds:
                    return
                self.output.mux(list(self._made(packet)))
            self._next = None

    def _made(self, packet: Any) -> Iterable[Any]:
        target = self._streams[packet.stream_index]
        if packet.stream_index not in self._converted:
            packet.stream = target
            return [packet]
        found = packet.stream.codec_context.decode2(packet)
        if found is None or not len(found):
            return []
        text = target.codec_context.encode_subtitle(found)
        text.stream, text.time_base = target, packet.time_base
        text.pts = text.dts = packet.pts
        text.duration = packet.duration
        return [text]


ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def codec_of(stream: Any) -> str:
    """Return the name of a track's codec, "" if it is unknown."""
    context = stream.codec_context
    return "" if context is None else str(context.codec.canonical_name)


def describe(stream: Any) -> str:
    """Return a track in words: its kind, language and codec."""
    kind = {"video": "a second video", "subtitle": "subtitles", "audio": "sound"}.get(stream.type, stream.type)
    kind = "a cover" if int(stream.disposition) & ATTACHED else kind
    about = [word for word in (stream.metadata.get("language"), codec_of(stream)) if word and word != "und"]
    return f"{kind} ({', '.join(about)})" if about else kind


def _has_packets(stream: Any) -> bool:
    return stream.type in ("audio", "subtitle", "video")
