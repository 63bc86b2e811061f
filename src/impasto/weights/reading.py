"""Reads safetensors files of any origin: checks every claim of the header before allocating memory for it.

The format: 8 bytes with the length of a JSON header, the header, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from impasto.errors import WeightsError
from impasto.files import open_regular, size_of

MOST_BYTES, MOST_HEADER, MOST_TENSORS, MOST_SIDES = 1 << 31, 1 << 24, 20_000, 8
MOST_DEPTH, MOST_VALUES = 32, 200_000

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Row = tuple[int, int, str, torch.dtype, tuple[int, ...]]
"""A tensor in the header: begin, end, name, type, shape."""


class _Malformed(Exception):
    """A damaged file; the text says what is wrong."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Return the tensors of a safetensors file, the texts of its header, and its SHA-256. Raises WeightsError.

    Tensors are copied to memory that torch aligns: at a file's offsets, the last bits of sums would differ.
    """
    try:
        with open_regular(path) as file:
            return _read(file)
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise WeightsError(f"{path} is a folder; name a safetensors file in it") from None
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror or error}") from None
    except _Malformed as error:
        raise WeightsError(f"{path} is no readable safetensors file: {error}") from None


def _read(file: BinaryIO) -> tuple[dict[str, Tensor], dict[str, str], str]:
    size = size_of(file)
    if size > MOST_BYTES:
        raise _Malformed(f"it has {size} bytes, more than {MOST_BYTES}")
    head = file.read(8)
    if len(head) < 8:
        raise _Malformed("it is too short")
    (length,) = struct.unpack("<Q", head)
    if length > min(MOST_HEADER, size - 8):
        raise _Malformed("its header is longer than the file, or huge")
    text = file.read(length)
    rows, texts = _parse(text, size - 8 - length)
    digest = hashlib.sha256(head + text)
    tensors: dict[str, Tensor] = {}
    for begin, end, name, dtype, shape in rows:
        tensor = torch.empty(shape, dtype=dtype)
        if end > begin:
            data = memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
            if file.readinto(data) != end - begin:  # type: ignore[attr-defined]  # every file has it
                raise _Malformed("it is cut off")
            digest.update(data)
        tensors[name] = tensor
    return tensors, texts, digest.hexdigest()


def _parse(text: bytes, size: int) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of a header, in the order of the file, and its texts; size: the bytes of all tensors."""
    header = parse_json(text)
    if not isinstance(header, dict) or len(header) > MOST_TENSORS:
        raise _Malformed("its header is no table of tensors, or one of too many")
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        raise _Malformed("its header's texts are no texts")
    rows = sorted((_row(name, entry) for name, entry in header.items()), key=lambda row: row[:2])
    ends = [0, *(end for _, end, *_ in rows)]
    if any(begin != before for before, (begin, *_) in zip(ends, rows, strict=False)) or ends[-1] != size:
        raise _Malformed("its tensors don't fill the file: it is damaged or cut off")
    return rows, texts


def _row(name: str, entry: Any) -> Row:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise _Malformed(f"its header does not say what {name[:80]} is") from None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _Malformed(f"{name[:80]} holds numbers of the type {str(dtype)[:20]}, which are not read")
    if not isinstance(shape, list) or len(shape) > MOST_SIDES or not all(map(_is_count, [*shape, begin, end])):
        raise _Malformed(f"{name[:80]} has no possible shape")
    if math.prod(shape) * DTYPES[dtype].itemsize != end - begin:
        raise _Malformed(f"{name[:80]} has another shape than its bytes")
    return begin, end, name, DTYPES[dtype], tuple(shape)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_BYTES


def parse_json(text: bytes | str) -> Any:
    """Return the value of JSON text; raises _Malformed if it is no JSON, or nested or long beyond reason."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _Malformed("its header is no JSON") from None
    depth = count = 0
    level: list[Any] = [value]
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > MOST_DEPTH or count > MOST_VALUES:
            raise _Malformed("its header is nested or long beyond reason")
        level = [part for whole in level for part in _parts(whole)]
    return value


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def read_config(texts: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    """Return the table that a header holds as JSON under `key`, empty if there is none. Raises WeightsError."""
    try:
        config = parse_json(texts.get(key, "{}"))
    except _Malformed as error:
        raise WeightsError(f"{path} is no readable safetensors file: {error}") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is no readable safetensors file: its configuration is no table")
    return config
