"""An open video file: its packets on one clock, its frames upright, with square pixels, in sRGB.

Respects what players respect: sample aspect, display matrix, colour tags, transparency, interlacing, start time.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from impasto.errors import ImageError, ImpastoError
from impasto.images.tensors import resize
from impasto.images.transparency import fill_hidden, resize_covered
from impasto.images.video_color import RGB, Colors, to_srgb
from impasto.images.video_lengths import missing_bytes
from impasto.options import MAX_PIXELS

MOST_STRETCH = 20
ATTACHED = 0x400
"""FFmpeg's flag for an attached picture, such as an album's cover."""
JUMP = 10
"""Gap between packets, in seconds, that means a jump of an unreliable clock."""
EXACT = "BICUBIC", "FULL_CHR_H_INT", "FULL_CHR_H_INP", "ACCURATE_RND", "BITEXACT"
"""swscale's flags: the same bits on all processors, and half-size chroma in its exact place."""

OnDamage = Callable[[str, Any], None]


@dataclass(frozen=True)
class Frame:
    """One frame, upright, (1, 3, H, W) in [0, 1], with start and duration in units of time_base.

    alpha: (1, 1, H, W) in [0, 1], or None if the video is opaque.
    """

    image: Tensor
    start: int
    duration: int
    time_base: Fraction
    alpha: Tensor | None = None


def load_av() -> Any:
    """Return the module `av`; raises ImpastoError if it is not installed."""
    try:
        import av
    except ImportError:
        raise ImpastoError("videos need PyAV: pip install 'impasto[video]'") from None
    return av


@dataclass
class Source:
    """An open file and its video.

    aspect: width of a pixel by its height, as stored; jumps: times, in seconds, at which the file's clock was
    unreliable.
    """

    path: Path
    container: Any
    stream: Any
    aspect: Fraction
    jumps: list[float] = field(default_factory=list)

    @property
    def rate(self) -> Fraction:
        """Frames a second, by the header."""
        return Fraction(self.stream.average_rate or self.stream.guessed_rate or 25)

    @property
    def shift(self) -> Fraction:
        """Start of the file, in seconds; results begin at 0."""
        return Fraction(max(self.container.start_time or 0, 0), 1_000_000)

    @property
    def unreliable(self) -> bool:
        """Whether it is a recorded broadcast, whose clocks jump and whose damage marks are often wrong."""
        return bool(int(self.container.format.flags) & 512)  # AVFMT_TS_DISCONT

    def packets(self, *streams: Any) -> Iterator[Any]:
        """Yield the packets of `streams` in the order of the file, their times from 0 on."""
        ends: dict[int, int] = {}
        moved: dict[int, int] = {}
        for packet in self.container.demux(*streams):
            if packet.time_base and (packet.dts is not None or packet.pts is not None):
                index, base = packet.stream_index, packet.time_base
                moved.setdefault(index, -round(self.shift / base))
                time = packet.pts if packet.dts is None else packet.dts
                end = ends.get(index)
                if self.unreliable and end is not None and abs((time + moved[index] - end) * base) > JUMP:
                    moved[index] = end - time
                    self.jumps.append(float(end * base))
                ends[index] = time + moved[index] + (packet.duration or 0)
                packet.pts = None if packet.pts is None else packet.pts + moved[index]
                packet.dts = None if packet.dts is None else packet.dts + moved[index]
            yield packet

    def decoded(self, on_damage: OnDamage) -> Iterator[Any]:
        """Yield all frames as FFmpeg gives them; undecodable packets or frames go to `on_damage`."""
        errors = load_av().error
        decoder = _decoder(self.stream)
        try:
            for packet in self.packets(self.stream):
                if packet.is_corrupt and not self.unreliable:
                    on_damage("packet", packet)
                try:
                    frames = decoder.decode(packet if packet.size else None)
                except errors.EOFError:
                    return
                except errors.FFmpegError:
                    on_damage("packet", packet)
                    continue
                yield from frames
        except errors.FFmpegError:
            on_damage("file", None)

    def frames(self, on_damage: OnDamage, *, deinterlace: bool = False) -> Iterator[Frame]:
        """Yield all frames in their order, of one size."""
        usual = max(1, round(1 / (self.rate * self.stream.time_base)))
        following, size = 0, None
        decoded = self.decoded(on_damage)
        for frame in _deinterlaced(decoded, self.stream) if deinterlace else decoded:
            base = frame.time_base or self.stream.time_base
            duration = frame.duration or usual
            start = following if frame.pts is None else max(frame.pts, following)
            following = start + (duration if frame.pts is None else 1)
            image, alpha = self._upright(frame)
            size = size or image.shape[-2:]
            if image.shape[-2:] != size:
                image, alpha = _resized(image, alpha, *size)
            yield Frame(image, start, duration, base, alpha)

    def _upright(self, frame: Any) -> tuple[Tensor, Tensor | None]:
        """Return a frame's colours in sRGB and its alpha, of square pixels, as its display matrix turns it."""
        pixels = read_pixels(frame)
        image, alpha = to_srgb(pixels[:, :3], colors_of(frame)), pixels[:, 3:] if pixels.shape[1] == 4 else None
        if alpha is not None:
            filled = fill_hidden(image[0].permute(1, 2, 0).contiguous().numpy(), alpha[0, 0].numpy())
            image = torch.from_numpy(filled).permute(2, 0, 1)[None]
        size = square(frame.height, frame.width, self.aspect)
        if size != (frame.height, frame.width):
            image, alpha = _resized(image, alpha, *size)
        matrix = matrix_of(frame)
        return turn(image, matrix), None if alpha is None else turn(alpha, matrix)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open the file and find its video; errors of FFmpeg until the block ends become one line.

    The file is opened here, so that FFmpeg never takes its name for an address.
    """
    av = load_av()
    with _open_file(path) as file:
        try:
            with av.open(
                _File(path, file), options={"protocol_whitelist": "file"}, metadata_errors="replace"
            ) as container:
                streams = pictures_of(container)
                if not streams:
                    raise ImageError(f"{path} holds no video")
                yield _open_stream(path, container, streams[0])
        except av.error.FFmpegError as error:
            raise ImageError(f"{path} {_what_is_wrong(path, error)}; get it again") from None


class _File:
    """A file for FFmpeg, which may seek to impossible places if it is damaged."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.name, self.tell = path, file, path.name, file.tell

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; raises ImageError."""
        try:
            return self.file.read(size)
        except OSError as error:
            raise ImageError(f"{self.path} can't be read: {error.strerror}") from None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek to a position and return it, or a negative number if it is impossible."""
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL


def _open_file(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():
        raise ImageError(f"{path} is no file; name a video")
    try:
        return path.open("rb")
    except OSError as error:
        raise ImageError(f"{path} can't be opened: {error.strerror}; check its name and permissions") from None


def _what_is_wrong(path: Path, error: Any) -> str:
    with path.open("rb") as file:
        lacking = missing_bytes(file)
    if lacking:
        return f"is cut off: {lacking} bytes are missing, and with them what is needed to read it"
    return f"is damaged or no video ({error.strerror})"


def pictures_of(container: Any) -> list[Any]:
    """Return the video streams of a file except cover pictures, the default one first."""
    streams = [stream for stream in container.streams.video if not int(stream.disposition) & ATTACHED]
    best = container.streams.best("video")
    return sorted(streams, key=lambda stream: best is None or stream.index != best.index)


def _open_stream(path: Path, container: Any, stream: Any) -> Source:
    if stream.codec_context is None:
        raise ImageError(f"{path} is in a codec that FFmpeg can't read here; convert it to H.264 first")
    stream.thread_type = "AUTO"
    return Source(path, container, stream, _check_size(path, stream))


def _check_size(path: Path, stream: Any) -> Fraction:
    """Return the sample aspect; raises ImageError if it is absurd or frames are too large."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if not Fraction(1, MOST_STRETCH) <= aspect <= MOST_STRETCH:
        raise ImageError(f"{path}: its pixels are said to be {aspect.numerator}:{aspect.denominator}; convert it first")
    if not stream.width or not stream.height:
        raise ImageError(f"{path} is damaged or no video (it has no size); get it again")
    height, width = square(stream.height, stream.width, aspect)
    if height * width > MAX_PIXELS:
        raise ImageError(f"{path}: {width}x{height} exceeds the limit of {MAX_PIXELS} pixels")
    return aspect


def square(height: int, width: int, aspect: Fraction) -> tuple[int, int]:
    """Return the size at which pixels of `aspect` are square, no side smaller; a side that grows becomes even."""
    if aspect > 1:
        grown = round(width * aspect)
        return height, width if grown == width else 2 * round(width * aspect / 2)
    grown = round(height / aspect)
    return height if grown == height else 2 * round(height / aspect / 2), width


def matrix_of(frame: Any) -> tuple[int, ...]:
    """Return the upper left of a frame's display matrix: directions of right and down, (right x, y, down x, y)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    return (a, b, c, d) if any((a, b, c, d)) else (1, 0, 0, 1)


def side_data_of(frame: Any) -> set[str]:
    """Return the names of a frame's side data."""
    return {data.type.name for data in frame.side_data}


def is_oblique(matrix: tuple[int, ...]) -> bool:
    """Return whether a display matrix turns by anything but quarters of a circle."""
    a, b, c, d = map(abs, matrix)
    return 10 * min(a + d, b + c) > max(a + d, b + c)


def turn(image: Tensor, matrix: tuple[int, ...]) -> Tensor:
    """Turn and mirror (B, C, H, W) as the display matrix says, to the nearest quarter of a circle."""
    a, b, c, d = matrix
    across, down = (c, b) if abs(b) + abs(c) > abs(a) + abs(d) else (a, d)
    if (across, down) == (c, b):
        image = image.transpose(2, 3)
    axes = [axis for axis, sign in ((3, across), (2, down)) if sign < 0]
    return image.flip(axes).contiguous() if axes else image.contiguous()


def colors_of(frame: Any) -> Colors:
    """Return the colour codes of a frame; a matrix that does not fit its samples counts as none."""
    matrix = int(frame.colorspace)
    if frame.format.is_rgb:
        matrix = RGB
    elif matrix == RGB:
        matrix = 2
    return Colors(matrix, int(frame.color_primaries), int(frame.color_trc))


def has_alpha(frame: Any) -> bool:
    """Return whether a frame's samples include transparency."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def read_pixels(frame: Any) -> Tensor:
    """Return a frame's samples as RGB or RGBA, (1, C, H, W) in [0, 1]; raises ImageError if unreadable."""
    av = load_av()
    deep = any(component.bits > 8 for component in frame.format.components)
    kind = ("rgba" if has_alpha(frame) else "rgb") + {(0, 0): "24", (0, 1): "", (1, 0): "48le", (1, 1): "64le"}[
        deep, has_alpha(frame)
    ]
    given: dict[str, Any] = {}
    if not frame.format.is_rgb:
        given["src_colorspace"] = colors_of(frame).read_matrix(frame.height, frame.width)
    try:
        pixels = frame.to_ndarray(format=kind, interpolation=exactly(), threads=1, **given)
    except (ValueError, av.error.FFmpegError) as error:
        raise ImageError(f"pixels in {frame.format.name} can't be read ({error}); convert the video first") from None
    most = 65535 if deep else 255
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / most)[None]


def exactly() -> int:
    """Return the flags of EXACT for swscale."""
    flags = load_av().video.reformatter.Interpolation
    return sum(int(flags[name]) for name in EXACT)


def _resized(image: Tensor, alpha: Tensor | None, height: int, width: int) -> tuple[Tensor, Tensor | None]:
    return (resize(image, height, width), None) if alpha is None else resize_covered(image, alpha, height, width)


def _decoder(stream: Any) -> Any:
    """Return the stream's decoder, or the one that decodes the transparency of VP8 and VP9."""
    name = stream.codec_context.name
    if stream.metadata.get("alpha_mode") != "1" or name not in ("vp8", "vp9"):
        return stream.codec_context
    av = load_av()
    try:
        return av.CodecContext.create({"vp8": "libvpx", "vp9": "libvpx-vp9"}[name], "r")
    except av.codec.codec.UnknownCodecError:
        raise ImageError(
            "its transparency can't be read with this build of FFmpeg; convert it to ProRes 4444"
        ) from None


def _deinterlaced(frames: Iterator[Any], stream: Any) -> Iterator[Any]:
    """Yield frames, deinterlaced by FFmpeg's bwdif if needed."""
    av = load_av()
    graph: Any = None
    shape: tuple[Any, ...] = ()
    for frame in frames:
        if (frame.width, frame.height, frame.format.name) != shape:
            if graph is not None:
                yield from _drain(graph, None)
            shape = frame.width, frame.height, frame.format.name
            graph = av.filter.Graph()
            base = frame.time_base or stream.time_base
            start = graph.add_buffer(width=shape[0], height=shape[1], format=frame.format, time_base=base)
            graph.link_nodes(start, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
            graph.configure()
        yield from _drain(graph, frame)
    if graph is not None:
        yield from _drain(graph, None)


def _drain(graph: Any, frame: Any) -> Iterator[Any]:
    errors = load_av().error
    graph.vpush(frame)
    while True:
        try:
            yield graph.vpull()
        except (errors.BlockingIOError, errors.EOFError):
            return
