"""Opens picture files of any origin: recognises their format, limits what Pillow reads, explains failures."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, _imaging, features

from impasto.errors import ImageError
from impasto.files import open_regular, size_of
from impasto.images.decoding import MOST_FLOATS, Floats, decode, finish_deep, orientation_of, profile_of

READABLE = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")
HEIF = "HEIF"
MOST_SCANS = 100
SLACK, BYTES_A_PIXEL = 1 << 26, 40
"""Most bytes that are read of a file: a constant, and more per pixel."""

Location = str | os.PathLike[str]
Pixels = tuple[NDArray[np.uint8] | Floats, Floats | None]
_pillow_lock = threading.Lock()
log, _pillow_log = logging.getLogger(__name__), logging.getLogger("PIL")


def read_pixels(
    source: Location | io.BytesIO,
    max_pixels: int,
    name: str,
    formats: tuple[str, ...] = READABLE,
    check: Callable[[Image.Image], None] = lambda image: None,
) -> Pixels:
    """Return upright sRGB colours (H, W, 3), bytes or floats in [0, 1], and alpha (H, W) or None. Raises ImageError.

    check: called with the opened image before it is decoded; may raise ImageError.
    """
    name = name or _name_of(source)
    with _explained(source, name, max_pixels, formats), _file(source) as file, _pillow_settings(max_pixels):
        head = file.read(HEAD)
        file.seek(0)
        if kind_of(head) == "TIFF" and "TIFF" in formats:
            return _read_tiff(file, max_pixels, name)
        with _opened(file, head, max_pixels, name, formats) as image:
            check(image)
            if not _has_deep_colors(image):
                return decode(image, head, name)
            from impasto.images.deep_png import join, low_mode, unpack_as

            low = low_mode(image)
            if low is None or not _fits_floats(image.height, image.width, name):
                return decode(image, head, name)
            high = np.asarray(image)
            profile, orientation = profile_of(image, head, name), orientation_of(image)
        file.seek(0)
        with _opened(file, head, max_pixels, name, formats) as image:
            color, alpha = join(high, unpack_as(image, low), low, image.info.get("transparency"))
        return finish_deep(color, alpha, profile, orientation)


def _has_deep_colors(image: Image.Image) -> bool:
    """Return whether an opened picture is a PNG of 16 bits a channel, of which Pillow keeps the high bytes only."""
    tiles = getattr(image, "tile", [])
    return image.format == "PNG" and len(tiles) == 1 and str(tiles[0][3]).endswith(";16B")


@contextmanager
def opened(
    source: Location | io.BytesIO, max_pixels: int, name: str = "", formats: tuple[str, ...] = READABLE
) -> Iterator[Image.Image]:
    """Open a picture with Pillow, with its size checked; failures until the end of the block are ImageErrors."""
    name = name or _name_of(source)
    with _explained(source, name, max_pixels, formats), _file(source) as file, _pillow_settings(max_pixels):
        head = file.read(HEAD)
        file.seek(0)
        with _opened(file, head, max_pixels, name, formats) as image:
            yield image


def _name_of(source: Location | io.BytesIO) -> str:
    return "the picture" if isinstance(source, io.BytesIO) else os.fspath(source)


@contextmanager
def _file(source: Location | io.BytesIO) -> Iterator[BinaryIO]:
    if isinstance(source, io.BytesIO):
        yield source
        return
    with open_regular(source) as file:
        yield file


@contextmanager
def _opened(file: BinaryIO, head: bytes, max_pixels: int, name: str, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    kind = kind_of(head)
    if kind == HEIF and "TIFF" in formats:
        _add_heif(name)
        formats = (*formats, HEIF)
    if kind == "AVIF" and "AVIF" in formats and not features.check("avif"):
        raise ImageError(f"{name} is AVIF, which this Pillow does not read; install a newer one, or save it as PNG")
    if kind == "GIF" and "GIF" in formats:
        from impasto.images.gif import first_gif_frame

        frame = first_gif_frame(file)
        if frame is None:
            raise OSError("no frame")
        file = frame
    bounded = Budgeted(file, SLACK + BYTES_A_PIXEL * min(pixels_of(head, kind), max_pixels))
    with Image.open(bounded, formats=formats) as image:  # type: ignore[arg-type]  # all of a file that Pillow asks for
        pixels = image.width * image.height
        if pixels > max_pixels:
            raise Image.DecompressionBombError(f"Image size ({pixels} pixels)")
        bounded.left = max(bounded.left, SLACK + BYTES_A_PIXEL * pixels)
        if image.format in ("JPEG", "MPO"):
            _check_scans(bounded, name)
        yield image


def _check_scans(file: Budgeted, name: str) -> None:
    """Raise ImageError for a JPEG with so many scans that reading them would take minutes."""
    before = file.tell()
    file.seek(0)
    scans = file.read().count(b"\xff\xda")
    file.seek(before)
    if scans > MOST_SCANS:
        raise ImageError(f"{name} has more than {MOST_SCANS} scans; save it as a plain JPEG")


def _fits_floats(height: int, width: int, name: str) -> bool:
    """Whether the colours of a deep picture are kept as floats; says so if not."""
    if 3 * height * width <= MOST_FLOATS:
        return True
    log.warning("%s has more than 8 bits, and more than %d pixels: it is read with 8", name, MOST_FLOATS // 3)
    return False


@functools.cache
def _quiet_libtiff() -> None:
    """Keep libtiff from writing to stderr; a damaged file is reported once, as an error."""
    with contextlib.suppress(Exception):  # if Pillow hides its symbols, it still writes
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _read_tiff(file: BinaryIO, max_pixels: int, name: str) -> Pixels:
    from impasto.images.tiff import ORIENTATION, alone, check_codec, check_page, is_common, read_page
    from impasto.images.tiff_samples import read_samples, tiff_profile, to_colors

    page = read_page(file, name)
    check_page(page, name)
    check_codec(page, name)
    height, width = page.size
    if height * width > max_pixels:
        raise Image.DecompressionBombError(f"Image size ({height * width} pixels)")
    profile = tiff_profile(page)
    if is_common(page):
        single = alone(page, file, SLACK + BYTES_A_PIXEL * height * width)
        if single is None:
            raise OverBudget
        with Image.open(single, formats=("TIFF",)) as image:
            return decode(image, b"", name, profile)
    if height * width * page.samples * max(page.bits) > 8 * (SLACK + BYTES_A_PIXEL * height * width):
        raise ImageError(f"{name} has {page.samples} samples of {max(page.bits)} bits a pixel; save it as RGB")
    if page.channels > 1 and max(page.bits) > 8:
        _fits_floats(height, width, name)
    Image.MAX_IMAGE_PIXELS = None  # until the settings are put back: chunks are expanded as pictures of bytes
    color, alpha = to_colors(page, read_samples(page, file, name), name)
    return finish_deep(color, alpha, profile, page.one(ORIENTATION, 1))


@functools.cache
def _heif_opener() -> Callable[[], None] | None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return None
    opener: Callable[[], None] = register_heif_opener
    return opener


def _add_heif(name: str) -> None:
    register = _heif_opener()
    if register is None:
        raise ImageError(f"{name} is HEIC: pip install 'impasto[heif]' to read it, or save it as JPEG")
    register()


@contextmanager
def _explained(source: Location | io.BytesIO, name: str, max_pixels: int, formats: tuple[str, ...]) -> Iterator[None]:
    """Turn any failure into an ImageError: decoders' exceptions have no common base."""
    try:
        yield
    except ImageError:
        raise
    except OverBudget:
        raise ImageError(f"{name} has far more bytes than its picture needs; save the picture again") from None
    except Exception as error:
        raise ImageError(_explain(source, name, error, max_pixels, formats)) from None


@contextmanager
def _pillow_settings(max_pixels: int) -> Iterator[None]:
    """Let Pillow read max_pixels, silently, and restore its settings, which are global: one reader at a time."""
    _quiet_libtiff()
    with _pillow_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        before, level = Image.MAX_IMAGE_PIXELS, _pillow_log.level
        _pillow_log.setLevel(logging.CRITICAL)  # a file's problems are reported once, as an error
        Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # Pillow warns above it and refuses above twice it
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
            _pillow_log.setLevel(level)


def reason_of(error: Exception) -> str:
    """Return what went wrong, in the system's or the decoder's words, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _explain(
    source: Location | io.BytesIO, name: str, error: Exception, max_pixels: int, formats: tuple[str, ...]
) -> str:
    """Return a line on why a file can't be read and what to do."""
    if not isinstance(source, io.BytesIO) and os.path.isdir(source):
        return f"{name} is a folder; name a picture in it"
    if isinstance(error, UnidentifiedImageError):
        with _file(source) as file:
            file.seek(0)
            return no_picture(file.read(256), name, formats)
    if isinstance(error, Image.DecompressionBombError):
        size = reason_of(error).split(" exceeds")[0]
        return f"{name}: {size} exceeds the limit of {max_pixels} pixels; make it smaller first"
    if isinstance(error, MemoryError):
        return f"{name}: not enough memory to decode it; make it smaller first"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} can't be opened: {reason_of(error)}; check its name and permissions"
    return f"{name} is damaged or incomplete ({reason_of(error)}); get it again"


def no_picture(head: bytes, name: str, formats: tuple[str, ...] = READABLE) -> str:
    """Return what a file seems to be that no decoder reads, from its first bytes."""
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        return f"{name} is empty; get it again"
    if head.startswith(b"<"):
        return f"{name} is a web page or drawing (HTML, SVG, XML), not a picture; get the picture itself"
    return f"{name} is damaged or no picture; it must be one of {', '.join(formats)}"


# --- the budget of bytes

LEAST_COST = 1024
"""Least number of bytes that a read counts for: files of many tiny parts take as long as large ones."""


class OverBudget(Exception):
    """More bytes of a file were requested than its content needs."""


class Budgeted(io.RawIOBase):
    """A file that allows reading `budget` bytes in all; then reading raises OverBudget."""

    def __init__(self, file: BinaryIO, budget: int) -> None:
        self.file, self.left = file, budget
        self.size = size_of(file)

    def read(self, size: int | None = -1) -> bytes:
        """Read like a file; raises OverBudget instead of reading more than is left."""
        rest = max(0, self.size - self.file.tell())
        wanted = rest if size is None or size < 0 else min(size, rest)
        if wanted > self.left:
            raise OverBudget
        data = self.file.read(wanted)
        self.left -= max(len(data), LEAST_COST)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek like a file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self.file.tell()

    def seekable(self) -> bool:
        """Say that one can seek in it."""
        return True

    def readable(self) -> bool:
        """Say that one can read it."""
        return True


# --- format and size, from the first bytes of a file

HEAD = 1 << 16
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


def kind_of(head: bytes) -> str:
    """Return the format of a file by its first bytes: TIFF, GIF, AVIF, HEIF, PNG, JPEG, WEBP, BMP, or empty."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM":
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(_box_end(head), 128), 4))]
        if any(brand in AVIF_BRANDS for brand in brands):
            return "AVIF"
        return "HEIF" if any(brand in HEIF_BRANDS for brand in brands) else ""
    return ""


def _box_end(head: bytes) -> int:
    return int(struct.unpack(">I", head[:4])[0])


def pixels_of(head: bytes, kind: str) -> int:
    """Return how many pixels a file's first bytes announce; 0 if they don't show it."""
    try:
        if kind == "PNG":
            width, height = struct.unpack(">II", head[16:24])
        elif kind == "BMP":
            width, height = struct.unpack("<ii", head[18:26])
        elif kind == "WEBP":
            width, height = _webp_size(head)
        elif kind in ("AVIF", "HEIF"):
            found = [struct.unpack(">II", head[at + 8 : at + 16]) for at in _occurrences(head, b"ispe")]
            width, height = max(found, key=lambda size: size[0] * size[1])
        else:
            return 0
    except (struct.error, ValueError, IndexError):
        return 0
    return int(abs(width * height))


def _occurrences(head: bytes, word: bytes) -> list[int]:
    found, at = [], head.find(word)
    while at >= 0:
        found.append(at)
        at = head.find(word, at + 4)
    return found


def _webp_size(head: bytes) -> tuple[int, int]:
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF
