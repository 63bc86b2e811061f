"""Videos on disk: upright frames as image tensors with their times, and results with the source's sound.

Needs the extra ``video`` (PyAV, which brings FFmpeg).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from impasto.errors import ImageError, ImpastoError
from impasto.images.tensors import MAX_PIXELS

ENCODERS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
QUALITY = {"libx264": {"crf": "17", "preset": "medium"}, "libvpx-vp9": {"crf": "24", "b": "0"}}
BT601, BT709 = 5, 1
LIMITED = 1


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its video: frames, which may be a guess, frames a second, whether there is sound."""

    frames: int
    rate: Fraction
    sound: bool


@dataclass(frozen=True)
class Frame:
    """One frame, upright, (1, 3, H, W) in [0, 1], and when it is shown: start and duration in units of time_base."""

    image: Tensor
    start: int
    duration: int
    time_base: Fraction


def probe_video(path: Path) -> VideoInfo:
    """What can be said of a video before it is decoded; raises ImpastoError if it is none."""
    with _opened(path) as (container, stream):
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        frames = stream.frames
        if not frames:
            seconds = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
            frames = max(1, round(float(seconds * rate)))
        return VideoInfo(frames, rate, bool(container.streams.audio))


def read_frames(path: Path) -> Iterator[Frame]:
    """All frames in their order; raises ImpastoError if there is no video or where it is damaged."""
    with _opened(path) as (container, stream):
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        usual = max(1, round(1 / (rate * stream.time_base)))
        following = 0
        for frame in container.decode(stream):
            start = following if frame.pts is None else max(frame.pts, following)
            following = start + 1
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float() / 255
            yield Frame(image, start, frame.duration or usual, stream.time_base)


def write_video(results: Iterable[Tensor], times: Sequence[Frame], source: Path, target: Path) -> None:
    """Encode `results`, (1, 3, H, W) in [0, 1], at `times`, with the sound of `source`; whole or not at all.

    times: frames whose images don't matter. The sound is copied as it is, not encoded again. Odd sides are made even by
    repeating an edge. Raises ImpastoError.
    """
    temporary = target.with_name(f".impasto-{secrets.token_hex(8)}{target.suffix}")
    try:
        with _opened(source) as (container, stream):
            try:
                _assemble(container, stream, results, times, temporary)
            except _av().error.FFmpegError as error:
                raise ImageError(f"{target} can't be written: {error.strerror}") from None
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise ImageError(f"{target} can't be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_target(source: Path, target: Path) -> None:
    """Raise ImpastoError if `target` names no kind of video that can be written or can't hold the sound of `source`."""
    av = _av()
    if target.suffix.lower() not in ENCODERS:
        raise ImpastoError(f"{target}: the name must end in one of {', '.join(ENCODERS)}")
    with _opened(source) as (container, _):
        names = {stream.codec_context.name for stream in container.streams.audio}
    with av.open(os.devnull, "w", format=_format(target)) as empty:
        refused = sorted(names - set(empty.supported_codecs))
    if refused:
        raise ImpastoError(f"{target}: {target.suffix} can't hold sound in {refused[0]}; write a .mkv file")


def _format(target: Path) -> str:
    return {".mkv": "matroska", ".m4v": "mp4"}.get(target.suffix.lower(), target.suffix.lower()[1:])


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise ImpastoError("videos need PyAV: pip install 'impasto[video]'") from None
    return av


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The file and its first video; whatever FFmpeg has against it until the block ends is told in a line."""
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            if stream.width * stream.height > MAX_PIXELS:
                raise ImageError(f"{path}: {stream.width}x{stream.height} exceeds the limit of {MAX_PIXELS} pixels")
            yield container, stream
    except av.error.FFmpegError as error:
        if path.is_file() and not isinstance(error, PermissionError):
            raise ImageError(f"{path} is damaged or no video ({error.strerror})") from None
        raise ImageError(f"{path} can't be opened: {error.strerror}; check its name and permissions") from None


def _assemble(container: Any, stream: Any, results: Iterable[Tensor], times: Sequence[Frame], target: Path) -> None:
    """Encode and copy side by side, so that neither waits in memory for the other."""
    av = _av()
    with av.open(str(target), "w", format=_format(target)) as output:
        video, sound = None, _Sound(container, output)
        for result, time in zip(results, times, strict=True):
            pixels = _even(result)
            if video is None:
                video = _add_video(output, stream, time, pixels.shape[:2], target.suffix.lower())
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            space = BT709 if pixels.shape[0] >= 720 else BT601
            frame = frame.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=LIMITED)
            frame.pts, frame.time_base, frame.duration = time.start, time.time_base, time.duration
            sound.copy_until(time.start * time.time_base)
            output.mux(video.encode(frame))
        if video is None:
            raise ImageError(f"{target.name}: there is no frame to write")
        output.mux(video.encode(None))
        sound.copy_until(None)


def _add_video(output: Any, source: Any, first: Frame, size: tuple[int, int], suffix: str) -> Any:
    encoder = ENCODERS[suffix]
    rate = source.average_rate or source.guessed_rate or 25
    video = output.add_stream(encoder, rate=rate, options=dict(QUALITY[encoder]))
    video.height, video.width = size
    video.pix_fmt = "yuv420p"
    context = video.codec_context
    context.time_base = first.time_base
    context.colorspace = BT709 if size[0] >= 720 else BT601
    context.color_range = LIMITED
    return video


class _Sound:
    """The packets of all sound, copied in time with the frames."""

    def __init__(self, container: Any, output: Any) -> None:
        self.output = output
        self.streams = {audio.index: output.add_stream_from_template(audio) for audio in container.streams.audio}
        self.packets = container.demux(*container.streams.audio) if self.streams else iter(())
        self.next: Any = None

    def copy_until(self, seconds: Fraction | None) -> None:
        """Copy what begins before `seconds`; None: all that is left."""
        while True:
            packet = self.next or next(self.packets, None)
            self.next = packet
            if packet is None:
                return
            if packet.dts is not None:
                if seconds is not None and packet.dts * packet.time_base > seconds:
                    return
                packet.stream = self.streams[packet.stream.index]
                self.output.mux(packet)
            self.next = None


def _even(image: Tensor) -> Any:
    """(1, 3, H, W) in [0, 1] as bytes (H, W, 3), of even sides."""
    odd = image.shape[-1] % 2, image.shape[-2] % 2
    padded = functional.pad(image, (0, odd[0], 0, odd[1]), mode="replicate") if any(odd) else image
    return np.ascontiguousarray(padded[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().byte().cpu().numpy())
