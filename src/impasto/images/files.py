"""Picture files: reads them as tensors, with their transparency; writes them whole or not at all, PNG fast.

A stylized picture has fine strokes everywhere. In its PNG, zlib finds few repetitions, and searching for them takes
half as long as painting. So one filter is used for all rows, and ISA-L compresses them. Without ISA-L, zlib searches
for runs of equal bytes only: the file is as small, but takes three times as long.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin
from torch import Tensor

from impasto.errors import ImageError
from impasto.files import replace_file
from impasto.images.decoding import Floats, srgb
from impasto.images.opening import opened, read_pixels, reason_of
from impasto.images.tensors import check_sides, is_finite, resize
from impasto.images.transparency import fill_hidden, resize_covered, visible_part
from impasto.options import MAX_PIXELS

TRUSTED = ("JPEG", "PNG", "WEBP")
"""Formats that the server decodes; a client may send anything."""

WRITABLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

_KINDS = {".jpg": "JPEG", ".tif": "TIFF"}
_buffer_lock = threading.Lock()
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}

Location = str | os.PathLike[str]


@dataclass(frozen=True)
class Picture:
    """A picture as read from a file.

    stored: (H, W, 3) uint8, or (1, 3, H, W) float32 in [0, 1] if the file has more than 8 bits; sRGB, not
    premultiplied, without the file's colours under full transparency. alpha: (1, 1, H, W) in [0, 1], or None if opaque.
    """

    stored: Tensor
    alpha: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        shape = self.stored.shape
        return (shape[0], shape[1]) if self.stored.dtype == torch.uint8 else (shape[2], shape[3])

    @property
    def color(self) -> Tensor:
        """(1, 3, H, W) float32 in [0, 1], a new tensor at each access."""
        if self.stored.dtype != torch.uint8:
            return self.stored
        return self.stored.permute(2, 0, 1)[None].to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    def resized(self, height: int, width: int) -> Picture:
        """Return the picture at another size; colours are weighted by their alpha. At the same size, return itself."""
        if self.size == (height, width):
            return self
        if self.alpha is None:
            return Picture(resize(self.color, height, width), None)
        check_sides(height, width)
        return Picture(*resize_covered(self.color, self.alpha, height, width))

    def painting(self, name: str) -> Tensor:
        """Return the visible part of a painting, (1, 3, H, W). Raises ImageError if all of it is transparent."""
        return self.color if self.alpha is None else visible_part(self.color, self.alpha, name)


def open_picture(path: Location | io.BytesIO, *, max_pixels: int = MAX_PIXELS, name: str = "") -> Picture:
    """Read a picture from a file or from its bytes: upright, in sRGB, with its transparency.

    JPEG, PNG, WebP, TIFF, GIF, BMP and AVIF are read, and HEIC with the extra ``heif``; the suffix does not matter. Of
    an animation, the first frame is read.
    TIFF and PNG keep more than 8 bits up to 25 megapixels of colour; floats are in [0, 1]. The size is checked before
    anything is decoded.
    name: what errors call it. Raises ImageError if there is no such picture, if it is damaged or if it has more than
    max_pixels.
    """
    return to_picture(*read_pixels(path, max_pixels, name))


def decode_picture(data: bytes, name: str, *, max_pixels: int, max_side: int) -> Picture:
    """Read the bytes of a JPEG, PNG or WebP that a client sent, like `open_picture`; name: for errors.

    Raises ImageError also for another format, a longer side than max_side, an animation, or a JPEG of so many scans
    that reading them all would take minutes.
    """
    check = functools.partial(_check_foreign, name, max_side)
    return to_picture(*read_pixels(io.BytesIO(data), max_pixels, name, TRUSTED, check))


def peek_size(data: bytes, name: str, *, max_pixels: int, max_side: int) -> tuple[int, int]:
    """Return the stored size (height, width) of what `decode_picture` would read, from the header alone.

    Raises ImageError as `decode_picture` does.
    """
    with opened(io.BytesIO(data), max_pixels, name, TRUSTED) as image:
        _check_foreign(name, max_side, image)
        return image.height, image.width


def _check_foreign(name: str, max_side: int, image: Image.Image) -> None:
    """Raise ImageError for a client's picture that is too long or an animation."""
    if max(image.size) > max_side:
        raise ImageError(f"{name} is {image.width}x{image.height}; no side may be longer than {max_side} pixels")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a photo with its depth map or the like
        raise ImageError(f"{name} is an animation; send a single picture")


def to_picture(color: NDArray[Any], alpha: Floats | None) -> Picture:
    """Return decoded colours, (H, W, 3), and alpha, (H, W), as a picture."""
    if alpha is not None:
        color = fill_hidden(color, alpha)
    if color.dtype != np.uint8:
        stored = _to_tensor(color.astype(np.float32, copy=False))
    else:
        stored = torch.from_numpy(color if color.flags.writeable else color.copy())
    return Picture(stored, None if alpha is None else _to_tensor(alpha[..., None]))


def read_image(path: Location, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a picture's colours without its transparency: (1, 3, H, W) float32, sRGB in [0, 1]. As open_picture.

    Hidden parts have the colours of visible parts beside them.
    """
    return open_picture(path, max_pixels=max_pixels).color


def read_painting(path: Location) -> Tensor:
    """Read what is visible of a painting: (1, 3, H, W) float32, sRGB in [0, 1], cropped to that. As open_picture.

    Raises ImageError also if all of it is transparent.
    """
    return open_picture(path).painting(str(path))


def read_metadata(path: Location, *, max_pixels: int = MAX_PIXELS) -> dict[str, str]:
    """Return the text in a PNG; {} for other formats. Raises ImageError as open_picture does."""
    with opened(path, max_pixels) as image:
        text = image.text if isinstance(image, PngImagePlugin.PngImageFile) else {}
    return {key: str(value) for key, value in text.items()}


def write_image(
    image: Tensor,
    path: Location,
    *,
    alpha: Tensor | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = True,
    quality: int = 95,
    bits: int = 8,
) -> None:
    """Write a picture in the format that the name's suffix says, whole or not at all.

    image: (3, H, W) or (1, 3, H, W), sRGB, clipped to [0, 1] and rounded, or (H, W, 3) uint8; alpha: (H, W),
    (1, H, W) or (1, 1, H, W), kept in PNG, WebP and TIFF, laid on white in JPEG and BMP. metadata goes into PNG text.
    quality: 1 to 100, for JPEG and WebP; WebP is lossless at 100. bits: 8, or 16 for PNG.
    Raises ImageError, and leaves no file behind, if the values are not finite or the file can't be written.
    """
    target = Path(os.path.realpath(path))
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise ImageError(f"{path}: the name must end in one of {', '.join(WRITABLE)}")
    kind = _KINDS.get(suffix, suffix[1:].upper())
    if bits != 8 and (bits != 16 or kind != "PNG"):
        raise ImageError(f"{path}: can't be written with {bits} bits; use 8, or 16 with .png")
    if not 1 <= quality <= 100:
        raise ImageError(f"{path}: quality must be from 1 to 100, not {quality}")
    pixels = _to_pixels(image, alpha, bits, opaque=kind in ("JPEG", "BMP"))
    try:
        _check_target(target, kind, max(pixels.shape), overwrite)
        replace_file(target, _encode(pixels, kind, quality, metadata or {}), overwrite=overwrite)
    except FileExistsError:
        raise ImageError(f"{path} exists already; use --force to overwrite it") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} can't be written: {reason_of(error)}; write it elsewhere") from None


def encode_picture(image: Tensor, kind: str, *, alpha: Tensor | None = None, quality: int = 95) -> bytes:
    """Return the bytes of a file of `kind`, JPEG, PNG or WEBP, as `write_image` writes it.

    Raises ImageError if the values are not finite or a side is too long for `kind`.
    """
    pixels = _to_pixels(image, alpha, 8, opaque=kind == "JPEG")
    longest = _LONGEST_SIDE.get(kind, max(pixels.shape))
    if max(pixels.shape) > longest:
        raise ImageError(f"{kind} holds at most {longest} pixels a side, not {max(pixels.shape)}; take PNG")
    return _encode(pixels, kind, quality, {})


def _to_tensor(pixels: Floats) -> Tensor:
    """Convert (H, W, C) to (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]


def _to_pixels(image: Tensor, alpha: Tensor | None, bits: int, *, opaque: bool) -> NDArray[Any]:
    """Check, clip and round to (H, W, 3), or (H, W, 4) with alpha, of uint8 or uint16."""
    if image.dtype == torch.uint8 and image.dim() == 3 and image.shape[2] == 3:
        if alpha is None and bits == 8:
            return image.numpy()
        image = Picture(image, None).color
    color = _checked(image, 3, "an image")
    if alpha is not None:
        cover = _checked(alpha[None] if alpha.dim() == 2 else alpha, 1, "an alpha channel")
        if cover.shape[1:] != color.shape[1:]:
            raise ImageError("the alpha channel and the image differ in size; resize one of them first")
        color = color * cover + (1 - cover) if opaque else torch.cat([color, cover])
    levels = color.mul(2**bits - 1).round_()
    if bits == 8:
        return levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()  # moving bytes is faster than floats
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy(), np.uint16)


def _checked(image: Tensor, channels: int, what: str) -> Tensor:
    """Return (1, C, H, W) or (C, H, W) of floats as a finite (C, H, W) in [0, 1] on the CPU."""
    if image.dim() == 4 and image.shape[0] == 1:
        image = image[0]
    if image.dim() != 3 or image.shape[0] != channels or image.numel() == 0 or not image.is_floating_point():
        shape = "x".join(map(str, image.shape))
        raise ImageError(f"{what} must be floats of shape 1x{channels}xHxW, not {image.dtype} of {shape}")
    image = image.detach().to("cpu", torch.float32)
    if not is_finite(image):
        raise ImageError(f"{what} has values that are not finite (NaN or infinity), so nothing was written")
    return image.clamp(0, 1)


def _check_target(target: Path, kind: str, side: int, overwrite: bool) -> None:
    """Raise an error before encoding if writing can't succeed."""
    longest = _LONGEST_SIDE.get(kind, side)
    if side > longest:
        raise ImageError(f"{target}: {kind} holds at most {longest} pixels a side, not {side}; write .png or .tif")
    if not target.parent.is_dir():
        raise ImageError(f"{target}: its folder does not exist; make it first")
    if target.is_dir():
        raise ImageError(f"{target} is a folder; name a file in it")
    if target.exists() and not overwrite:
        raise FileExistsError


def _encode(pixels: NDArray[Any], kind: str, quality: int, metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a file of the given kind."""
    if kind == "PNG":
        return encode_png(pixels, srgb().tobytes(), metadata)
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": quality, "subsampling": "4:4:4", "optimize": True},
        "WEBP": {"quality": quality, "lossless": quality == 100, "exact": True},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }
    buffer = io.BytesIO()
    with _room_for(pixels.size):
        Image.fromarray(pixels).save(buffer, kind, icc_profile=srgb().tobytes(), **options.get(kind, {}))
    return buffer.getvalue()


@contextmanager
def _room_for(size: int) -> Iterator[None]:
    """Enlarge Pillow's global buffer: the JPEG of a picture of noise has more bytes than pixels."""
    with _buffer_lock:
        before = ImageFile.MAXBLOCK
        ImageFile.MAXBLOCK = max(before, 2 * size + (1 << 16))
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = before


# --- PNG

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {3: 2, 4: 6}
AVERAGE = 3
BAND = 128
"""Rows that are filtered and compressed at a time."""


def encode_png(pixels: NDArray[Any], profile: bytes, text: Mapping[str, str]) -> bytes:
    """Return a PNG of (H, W, 3) or, with alpha, (H, W, 4) pixels of uint8 or uint16, with a colour profile and texts.

    text: by keywords; those are of 1 to 79 characters of Latin-1. Pillow would not write 16 bits.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, COLOR_TYPES[channels], 0, 0, 0)
    chunks = [SIGNATURE, _chunk(b"IHDR", header), _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(profile))]
    for key, value in text.items():
        chunks.append(_chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + value.encode()))
    squeeze = _compressor()
    chunks += (_chunk(b"IDAT", squeeze.compress(rows.data)) for rows in _filter(pixels))
    return b"".join([*chunks, _chunk(b"IDAT", squeeze.flush()), _chunk(b"IEND", b"")])


def _compressor() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:  # there is no wheel for this kind of machine
        return zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return isal_zlib.compressobj(1)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _filter(pixels: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield bands of filtered rows: the filter's number, then each byte minus the mean of the left and upper one."""
    step = pixels.shape[2] * pixels.itemsize
    above = np.zeros((1, pixels.shape[1] * step), np.uint8)
    for start in range(0, len(pixels), BAND):
        band = pixels[start : start + BAND]
        rows = np.ascontiguousarray(band, band.dtype.newbyteorder(">")).view(np.uint8).reshape(len(band), -1)
        left = np.zeros_like(rows)
        left[:, step:] = rows[:, :-step]
        over = np.concatenate([above, rows[:-1]])
        filtered = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
        filtered[:, 0] = AVERAGE
        np.subtract(rows, (left & over) + ((left ^ over) >> 1), out=filtered[:, 1:])
        above = rows[-1:]
        yield filtered
