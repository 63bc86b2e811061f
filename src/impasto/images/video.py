"""Videos on disk: reads upright frames with their times, writes results with all tracks of the source.

Needs the extra ``video`` (PyAV, which brings FFmpeg). The same frames make the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import ImageError, ImpastoError
from impasto.files import replacing
from impasto.images.video_color import UNKNOWN, Colors
from impasto.images.video_source import Frame, Source, exactly, load_av, opened
from impasto.images.video_survey import Survey, VideoInfo, probe_video, survey_video
from impasto.images.video_tracks import Tracks, about_track

__all__ = [
    "ENCODERS",
    "Frame",
    "Survey",
    "VideoInfo",
    "check_target",
    "default_ending",
    "probe_video",
    "read_frames",
    "survey_video",
    "write_video",
]
ENCODERS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
ALPHA_ENCODERS = {".mov": "prores_ks", ".mkv": "libvpx-vp9", ".webm": "libvpx-vp9"}
QUALITY = {
    "libx264": {"crf": "17", "preset": "medium", "x264-params": "mbtree=0"},  # its tree differs from run to run
    "libvpx-vp9": {"crf": "24", "b": "0"},
    "prores_ks": {"profile": "4444"},
}
PIXELS = {("libx264", False): "yuv420p", ("libvpx-vp9", False): "yuv420p", ("libvpx-vp9", True): "yuva420p"}
THREADS = 4
"""Threads of an encoder: a fixed number, because the result may depend on it."""
LIMITED = 1
LONGEST_SIDE = 16384


def read_frames(path: Path, survey: Survey | None = None) -> Iterator[Frame]:
    """Read all frames in their order, as `survey` found them; raises ImpastoError if there is no video.

    Undecodable frames are skipped; `survey_video` reports them.
    """
    survey = survey or survey_video(path)
    with opened(path) as source:
        for frame in source.frames(lambda *_: None, deinterlace=survey.interlaced):
            yield frame if survey.alpha else Frame(frame.image, frame.start, frame.duration, frame.time_base)


def write_video(
    results: Iterable[Tensor], times: Sequence[Frame], source: Path, target: Path, colors: Colors | None = None
) -> None:
    """Encode `results` at `times`, with the sound, subtitles, chapters and titles of `source`; whole or not at all.

    results: (1, 3, H, W) in [0, 1], or (1, 4, H, W) with alpha; times: frames whose images don't matter; colors: the
    source's, for the result's tags. Tracks are copied, not encoded again. Odd sides are made even by repeating an edge.
    Raises ImpastoError.
    """
    try:
        with opened(source) as read, replacing(target) as file:
            _assemble(read, results, times, file, target, colors)
    except OSError as error:
        raise ImageError(f"{target} can't be written: {error.strerror or error}") from None


def check_target(source: Path, target: Path, survey: Survey, size: tuple[int, int] | None = None) -> list[str]:
    """Try to begin a result of `size`, (height, width), called `target`; returns what it can't hold, a line each.

    Raises ImpastoError if its name, its format, its encoder or the sound of `source` won't do.
    """
    suffix = target.suffix.lower()
    if suffix not in ENCODERS:
        raise ImpastoError(f"{target}: the name must end in one of {', '.join(ENCODERS)}")
    if survey.alpha and suffix not in ALPHA_ENCODERS:
        raise ImpastoError(
            f"{target}: {source.name} has transparency, which {suffix} can't hold: write a "
            f"{', '.join(ALPHA_ENCODERS)} file"
        )
    height, width = size or survey.size
    if max(height, width) > LONGEST_SIDE:
        raise ImpastoError(f"a video of {width}x{height} can't be encoded: give a --size of at most {LONGEST_SIDE}")
    first = torch.zeros(1, 4 if survey.alpha else 3, height, width)
    with opened(source) as read:
        start = Frame(first, 0, 1, read.stream.time_base)
        left_out = _assemble(read, [first], [start], io.BytesIO(), target, survey.colors, whole=False)
    return [f"{track} can't be kept in {suffix}" for track in left_out]


def default_ending(source: Path, survey: Survey) -> str:
    """Return the ending of a result whose name is not given: .mp4 if it holds everything, else what does."""
    own = source.suffix.lower()
    best: tuple[int, str] | None = None
    for ending in dict.fromkeys([".mp4", *([own] if own in ENCODERS else []), ".mkv", ".mov"]):
        try:
            lost = len(check_target(source, Path(f"a{ending}"), survey, (64, 64)))
        except ImpastoError:
            continue
        if best is None or lost < best[0]:
            best = lost, ending
    return best[1] if best else ".mp4"


def _format(target: Path) -> str:
    return {".mkv": "matroska", ".m4v": "mp4"}.get(target.suffix.lower(), target.suffix.lower()[1:])


def _assemble(
    source: Source,
    results: Iterable[Tensor],
    times: Sequence[Frame],
    file: Any,
    target: Path,
    colors: Colors | None,
    *,
    whole: bool = True,
) -> list[str]:
    """Encode and copy at the same time, so that nothing piles up in memory; returns what the format can't hold.

    whole: copy all of the tracks, not only what begins before the last frame.
    """
    av = load_av()
    try:
        with av.open(file, "w", format=_format(target)) as output:
            if output.format.name in ("matroska", "webm"):
                output.flags |= av.container.Flags.bitexact.value  # no random names for tracks
            video, tracks = None, None
            for result, time in zip(results, times, strict=True):
                pixels = _even(result)
                if video is None or tracks is None:
                    video = _Video(output, source, time, pixels, target, colors)
                    tracks = Tracks(source, output, target.suffix.lower())
                tracks.copy_until(time.start * time.time_base)
                video.add(pixels, time)
            if video is None or tracks is None:
                raise ImageError(f"{target.name}: there is no frame to write")
            video.finish()
            if whole:
                tracks.copy_until(None)
            return tracks.left_out
    except av.error.FFmpegError as error:
        raise ImageError(f"{target} can't be written: {error.strerror}; try a .mkv file") from None


class _Video:
    """The encoded frames."""

    def __init__(
        self, output: Any, source: Source, first: Frame, pixels: Any, target: Path, colors: Colors | None
    ) -> None:
        height, width, channels = pixels.shape
        suffix, alpha = target.suffix.lower(), channels == 4
        encoder = ALPHA_ENCODERS[suffix] if alpha else ENCODERS[suffix]
        self.output = output
        self.colors = (colors or Colors(UNKNOWN, UNKNOWN, UNKNOWN)).written(height, width)
        self.stream = output.add_stream(encoder, rate=source.rate, options=dict(QUALITY[encoder]))
        self.stream.height, self.stream.width = height, width
        self.format = self.stream.pix_fmt = PIXELS.get((encoder, alpha), "yuva444p10le")
        self.stream.metadata.update(about_track(source.stream.metadata, output.format.name))
        context = self.stream.codec_context
        context.thread_count = THREADS
        context.time_base = first.time_base
        context.colorspace, context.color_range = self.colors.matrix, LIMITED
        context.color_primaries, context.color_trc = self.colors.primaries, self.colors.transfer

    def add(self, pixels: Any, time: Frame) -> None:
        """Encode (H, W, 3 or 4) bytes."""
        av = load_av()
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if pixels.shape[2] == 4 else "rgb24")
        matrix = self.colors.read_matrix(*pixels.shape[:2])
        frame = frame.reformat(
            format=self.format, dst_colorspace=matrix, dst_color_range=LIMITED, interpolation=exactly(), threads=1
        )
        frame.color_primaries, frame.color_trc = self.colors.primaries, self.colors.transfer
        frame.pts, frame.time_base, frame.duration = time.start, time.time_base, time.duration
        self.output.mux(self.stream.encode(frame))

    def finish(self) -> None:
        """Encode what the encoder still holds."""
        self.output.mux(self.stream.encode(None))


def _even(image: Tensor) -> Any:
    """Return (1, C, H, W) in [0, 1] as bytes (H, W, C), of even sides."""
    odd = image.shape[-1] % 2, image.shape[-2] % 2
    padded = functional.pad(image, (0, odd[0], 0, odd[1]), mode="replicate") if any(odd) else image
    return np.ascontiguousarray(padded[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().byte().cpu().numpy())
