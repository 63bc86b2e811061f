"""PNG with 16 bits a channel: every bit is kept, with transparency, profile, orientation and interlacing."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.errors import ImageError
from impasto.images import opening
from impasto.images.decoding import srgb
from impasto.images.files import encode_png, open_picture, read_image, write_image

HEIGHT, WIDTH = 9, 13
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def noise(channels: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, channels), np.uint16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray[Any, Any], kind: int, *more: bytes, laced: bool = False) -> bytes:
    """A PNG of 16-bit values, without filters."""
    passes = [values[top::down, left::right] for top, left, down, right in ADAM7] if laced else [values]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, kind, 0, 0, int(laced))
    body = chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def read(data: bytes) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Colours (H, W, 3) and alpha (H, W) in 16 bits."""
    found = open_picture(io.BytesIO(data), name="it")
    color = (found.color[0].permute(1, 2, 0).double().numpy() * 65535).round()
    return color, None if found.alpha is None else (found.alpha[0, 0].double().numpy() * 65535).round()


@pytest.mark.parametrize("laced", [False, True])
def test_colours(laced: bool) -> None:
    values = noise(3)
    color, alpha = read(png(values, 2, laced=laced))
    np.testing.assert_array_equal(color, values)
    assert alpha is None


@pytest.mark.parametrize("kind", [4, 6])
def test_alpha(kind: int) -> None:
    values = noise({4: 2, 6: 4}[kind])
    values[..., -1] |= 1  # what is fully transparent has no colour
    color, alpha = read(png(values, kind))
    np.testing.assert_array_equal(alpha, values[..., -1])
    grey = np.broadcast_to(values[..., :1], color.shape)
    wanted = grey if kind == 4 else values[..., :3]
    np.testing.assert_allclose(color, wanted, atol=1)  # grey goes through the curve of its profile


def test_a_colour_that_stands_for_transparency() -> None:
    values = noise(3)
    values[0, 0] = values[2, 3]
    key = struct.pack(">3H", *(int(value) for value in values[0, 0]))
    _, alpha = read(png(values, 2, chunk(b"tRNS", key)))
    wanted = np.full((HEIGHT, WIDTH), 65535.0)
    wanted[0, 0] = wanted[2, 3] = 0
    np.testing.assert_array_equal(alpha, wanted)


def test_orientation() -> None:
    values = noise(3)
    exif = Image.Exif()
    exif[0x112] = 6
    color, _ = read(png(values, 2, chunk(b"eXIf", exif.tobytes()[6:])))
    np.testing.assert_array_equal(color, np.rot90(values, -1))


def test_what_is_written_is_read(tmp_path: Any) -> None:
    values = noise(4)
    np.testing.assert_array_equal(read(encode_png(values[..., :3], srgb().tobytes(), {}))[0], values[..., :3])
    image = torch.rand(1, 3, 20, 30)
    write_image(image, tmp_path / "a.png", bits=16)
    assert float((read_image(tmp_path / "a.png") - image).abs().max()) <= 0.51 / 65535


def test_damage_is_reported() -> None:
    data = png(noise(3), 2)
    with pytest.raises(ImageError, match="damaged"):
        read(data[:-60])


def test_what_is_too_large_for_floats_has_8_bits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "MOST_FLOATS", 3 * HEIGHT * WIDTH - 1)
    values = noise(3)
    with caplog.at_level(logging.WARNING):
        found = open_picture(io.BytesIO(png(values, 2)), name="it")
    assert found.stored.dtype == torch.uint8
    np.testing.assert_array_equal(found.stored.numpy(), values >> 8)
    assert "more than 116 pixels: it is read with 8" in caplog.text
