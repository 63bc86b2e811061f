"""What fuzzing tests share: files damaged in ways that a seed decides, and what a reader may do with them."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from impasto.errors import ImpastoError, printable

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF")
DAMAGE = ("cut", "flip", "zero", "double", "insert", "swap")


def damage(data: bytes, kind: str, at: float, size: int, byte: int) -> bytes:
    """`data` damaged at a share `at` of its length, over `size` bytes."""
    place = int(at * len(data))
    part = data[place : place + size]
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + bytes(one ^ (byte or 255) for one in part) + data[place + size :]
    if kind == "zero":
        return data[:place] + bytes(len(part)) + data[place + size :]
    if kind == "double":
        return data[: place + size] + part + data[place + size :]
    if kind == "insert":
        return data[:place] + bytes([byte]) * size + data[place:]
    return data[:place] + part[::-1] + data[place + size :]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` damaged one to three times."""
    for _ in range(draw(st.integers(1, 3))):
        kind, at = draw(st.sampled_from(DAMAGE)), draw(st.floats(0, 1, exclude_max=True))
        data = damage(data, kind, at, draw(st.integers(1, 12)), draw(st.integers(0, 255)))
    return data


def picture_files() -> dict[str, bytes]:
    """A small picture in every format, with what formats have besides pixels."""
    y, x = np.mgrid[:20, :28]
    pixels = np.dstack([9 * x, 12 * y, 255 - 9 * x, np.where(x < 20, 255, 7 * y)]).astype(np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    files = {}
    for kind in FORMATS:
        image = Image.fromarray(pixels) if kind not in ("JPEG", "BMP") else Image.fromarray(pixels[..., :3])
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        files[kind] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(buffer, "TIFF", compression="tiff_lzw")
    files["deep TIFF"] = buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(pixels).quantize(16).save(buffer, "PNG", transparency=3)
    files["palette PNG"] = buffer.getvalue()
    return files


def json_values() -> st.SearchStrategy[Any]:
    """Any JSON, a few levels deep."""
    leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=True) | st.text(max_size=9)
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | named(inner), max_leaves=8)


def named(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A table whose names are likely to mean something."""
    words = ("style", "styles", "info", "others", "shape", "width", "widths", "networks", "method", "name", "levels")
    words += ("content", "masks", "options", "size", "seed", "strength", "vary", "weights", "file", "sha256", "preset")
    return st.dictionaries(st.sampled_from(words) | st.text(max_size=5), inner, max_size=4)


def headers() -> st.SearchStrategy[bytes]:
    """Safetensors files whose header may say anything."""
    row = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BOOL", "I64", "F8", "", "X"]) | json_values(),
            "shape": st.lists(st.integers(-2, 2**40), max_size=9) | json_values(),
            "data_offsets": st.tuples(st.integers(-1, 99), st.integers(-1, 99)).map(list) | json_values(),
        }
    )
    texts = st.fixed_dictionaries({"impasto": st.text(max_size=9) | json_values().map(lambda value: json.dumps(value))})
    table = st.dictionaries(st.text(max_size=6), row | json_values(), max_size=4)
    whole = st.tuples(table, texts | json_values(), st.binary(max_size=64))
    return whole.map(lambda parts: _file({**parts[0], "__metadata__": parts[1]}, parts[2]))


def _file(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def cards() -> st.SearchStrategy[bytes]:
    """Style cards with whole tensors of the wrong names, ranks and sizes."""
    names = st.sampled_from(["relu1_1.mean", "relu1_1.second", "relu1_1.root", "0.share", "1:relu1_1.mean", "a", "9:b"])
    shapes = st.lists(st.integers(0, 5), max_size=4)
    types = st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool])
    tensor = st.tuples(shapes, types).map(lambda pair: torch.ones(pair[0], dtype=pair[1]))
    config = st.fixed_dictionaries(
        {"style": st.sampled_from(["moments/vgg19-slim/x", "maps/x", "network/x", "name", ""]) | json_values()},
        optional={"others": json_values() | st.lists(st.text(max_size=5), max_size=3), "info": json_values()},
    )
    made = st.tuples(st.dictionaries(names, tensor, max_size=4), config)
    return made.map(lambda pair: save(pair[0], {"impasto": json.dumps(pair[1])}))


MOST_SECONDS = 5.0
"""Processor time for one file: five times what it may take on a slow machine."""


def holds_or_says_why(read: Callable[[Path], Any], path: Path) -> Any:
    """What `read` gives, or None after one safe line of why there is nothing; in time."""
    start = time.process_time()
    found = _read_or_say_why(read, path)
    assert time.process_time() - start < MOST_SECONDS
    return found


def _read_or_say_why(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except ImpastoError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert len(text) < 2000
        printable(text)
        return None
