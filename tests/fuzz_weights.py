"""Weights files and style cards that somebody made to do harm, each drawn by a seed: headers that lie, odd numbers."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

Make = Callable[[random.Random], bytes]
TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
ODD_TYPES = ("F8_E4M3", "F8_E5M2", "C64", "U64", "F4", "", "f32", "\x1b[2J", "F32\n", 7, None, ["F32"])
NAMES = (
    "relu1_1.mean",
    "relu1_1.second",
    "relu1_1.root",
    "half.relu1_1.mean",
    "0.share",
    "0.relu1_1.mean",
    "1:x",
    "9:",
)
ODD_NAMES = (
    "",
    "\n",
    "\x1b]0;a\x07",
    "\u202e",
    "\ud800",
    "ü" * 70_000,
    "__proto__",
    "conv0.weight",
    "a.b.c",
    "1:",
    "-1.share",
)
KINDS = (
    "moments/vgg19-slim/x",
    "maps/vgg19-slim/x",
    "network/johnson",
    "places/vgg19-slim/x",
    "name",
    "",
    "x" * 9999,
    7,
    None,
)


def file_of(header: bytes | Any, data: bytes = b"") -> bytes:
    """A file of a header, as JSON if it is none, and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


def texts(draw: random.Random) -> dict[str, Any]:
    """What a header says of itself: a card's configuration, or nonsense."""
    config: Any = {"style": draw.choice(KINDS), "info": draw.choice([{}, [], {"title": "\x1b[31m", "width": 1e999}])}
    if draw.random() < 0.5:
        config["others"] = draw.choice([["name"], ["x"] * 5000, {}, "moments", [None], [["x"]]])
    if draw.random() < 0.3:
        config |= {"method": draw.choice(["wct", 7, [], "x" * 999]), "width": draw.choice([1, -1, 10**30, 1e9, "8"])}
    text = json.dumps(config)
    odd = ["{", "[" * 100_000, "NaN", '{"a":1e999}', "{}" * 3, '{"style":1,"style":"name"}', "\0", text * 2, "9" * 5000]
    return {"impasto": draw.choice([text, text, text, text, draw.choice(odd)])}


def table(draw: random.Random) -> bytes:
    """Tensors whose bytes fill the file, of any type, rank and value, a few of them false in one point."""
    header: dict[str, Any] = {"__metadata__": texts(draw)}
    data = b""
    for _ in range(draw.randint(0, 6)):
        kind = draw.choice(sorted(TYPES))
        shape = [draw.choice([0, 1, 2, 3, 5]) for _ in range(draw.choice([0, 1, 1, 2, 4, 8, 9]))]
        size = TYPES[kind]
        for side in shape:
            size *= side
        fill = draw.choice([b"\0", b"\xff", b"\x3c", b"\x7f", b"\x7c"])
        begin, data = len(data), data + fill * size
        header[draw.choice(NAMES if draw.random() < 0.8 else ODD_NAMES)] = {
            "dtype": kind if draw.random() < 0.9 else draw.choice(ODD_TYPES),
            "shape": shape if draw.random() < 0.9 else draw.choice([[2**40], [-1], [1.0], None, "3", [True], [[1]]]),
            "data_offsets": [begin, len(data)] if draw.random() < 0.9 else draw.choice([[0, 2**63], [5, 1], [0], None]),
        }
    return file_of(header, data + bytes(draw.choice([0, 0, 0, 1])))


def huge_shapes(draw: random.Random) -> bytes:
    """Shapes that would take all memory, with next to no data."""
    shape = [draw.choice([0, 1, 2**16, 2**31, 2**40]) for _ in range(draw.randint(1, 8))]
    row = {
        "dtype": draw.choice(["F32", "F64", "BOOL"]),
        "shape": shape,
        "data_offsets": [0, draw.choice([0, 4, 2**40])],
    }
    return file_of({"__metadata__": texts(draw), draw.choice(NAMES): row}, bytes(4))


def deep_headers(draw: random.Random) -> bytes:
    """JSON that is deep, long, doubled, padded, of other encodings, or of huge numbers."""
    odd = [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"{" + b'"a":{},' * 300_000 + b'"a":{}}',
        b"[" + b"0," * 1_000_000 + b"0]",
        b" " * 4_000_000 + b"{}",
        b'{"a":' + b"9" * 100_000 + b"}",
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"ä":1}'.encode("utf-16"),
        b'{"\xff":1}',
        b'{"a":NaN}',
        b'{"__metadata__":7}',
        b'{"__metadata__":{"impasto":7}}',
        json.dumps({f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}).encode(),
    ]
    return file_of(draw.choice(odd), bytes(draw.choice([0, 4])))


def no_headers(draw: random.Random) -> bytes:
    """Lengths that lie, and files of other formats."""
    length = struct.pack("<Q", draw.choice([0, 1, 2, 2**24 + 1, 2**32, 2**63, 2**64 - 1]))
    zipped = b"PK\3\4" + bytes(200)
    pickled = b"\x80\x02}q\x00." + bytes(90)
    return draw.choice([b"", length, length + b"{}", length + bytes(5000), zipped, pickled, b"\x89PNG\r\n\x1a\n"])


MADE: dict[str, Make] = {make.__name__: make for make in (table, huge_shapes, deep_headers, no_headers)}
