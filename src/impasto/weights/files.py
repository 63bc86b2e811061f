"""Weights files: finding, checking, reading and writing them, and building the networks that they hold.

A safetensors file is 8 bytes with the length of a JSON header, the header, then the tensors' bytes without gaps. Every
claim of the header is checked before memory is allocated for it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import struct
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from impasto.errors import WeightsError, other_maker
from impasto.files import open_regular, size_of, write_atomically

FOLDER = Path(__file__).parent
HEADER_KEY = "impasto"
NAMED = "name"
"""Key of a style's name in a file's header."""
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Weights:
    """The tensors of one weights file, its configuration from the header, and the SHA-256 of its bytes."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    digest: str

    def fill(self, module: nn.Module, *, ignore: tuple[str, ...] = ()) -> None:
        """Copy the tensors into `module`, in its precision; every name and shape must fit.

        ignore: prefixes of names that need not be in the module. Raises WeightsError.
        """
        own = module.state_dict()
        given = {k: v for k, v in self.tensors.items() if k in own or not k.startswith(ignore or ("\0",))}
        self._check(own, given)
        module.load_state_dict({k: v.to(own[k].dtype) for k, v in given.items()})

    def _check(self, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
        misfit = first_misfit(own, given)
        if misfit:
            raise WeightsError(f"{self.path} does not hold this network: {misfit}")

    def build(self, make: Callable[[dict[str, Any]], Network], maker: str) -> Network:
        """Return the network that `make` makes of the configuration, filled.

        maker: the training that writes such files, a name for `impasto train`. Raises WeightsError for other files.
        """
        method = self.config.get("method", maker)
        if method != maker:
            raise WeightsError(other_maker(self.path, method, maker))
        if self.digest not in _shipped():  # these need no check, and a sketch makes torch load for a second
            from impasto.weights.sketches import ImpossibleError, sketch

            try:
                drawn = sketch(make, self.config, 4 * len(self.tensors) + 256)
            except ImpossibleError:
                raise WeightsError(f"{self.path} was not made by `impasto train {maker}`") from None
            self._check(drawn.state_dict(), self.tensors)
        with Unfilled():
            network = make(self.config)
        self.fill(network)
        return network

    def infos(self, key: str) -> list[dict[str, Any]]:
        """Return the configuration's info on each style, ``name`` at least; raises WeightsError if there is none."""
        found = self.config.get(key)
        named = isinstance(found, list) and all(isinstance(info, dict) for info in found)
        names = [info.get(NAMED) for info in found] if named and found is not None else []
        if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise WeightsError(f"{self.path} does not say which styles it holds ({key})")
        return list(found or ())


@functools.cache
def manifest() -> dict[str, dict[str, Any]]:
    """Return the shipped files' entries by name: file, sha256, bytes, licence, data, command, quality."""
    with (FOLDER / "manifest.toml").open("rb") as file:
        return tomllib.load(file)


@functools.cache
def _shipped() -> frozenset[str]:
    """Return the digests of the files that come with impasto."""
    return frozenset(str(entry["sha256"]) for entry in manifest().values())


def resolve(name: str) -> Path:
    """Return the file of the shipped weights called `name`; raises WeightsError if the package has none."""
    entry = manifest().get(name)
    if entry is None:
        raise WeightsError(
            f"{name} has no shipped weights yet: train some with `impasto train {name}` and name them with "
            f"--weights FILE (shipped: {', '.join(manifest()) or 'none'})"
        )
    path = FOLDER / str(entry["file"])
    if not path.is_file():
        raise WeightsError(f"{path.name} is missing from the installed package: install impasto again")
    return path


def load_weights(path: str | Path) -> Weights:
    """Read a safetensors file, checking that it is whole and finite. Raises WeightsError in one line."""
    path = Path(path)
    tensors, texts, digest = read_tensors(path)
    config = read_config(texts, HEADER_KEY, path)
    check_finite(tensors, path)
    return Weights(path, tensors, config, digest)


def digest_numbers(modules: Iterable[nn.Module]) -> str:
    """Return the SHA-256 of the parameters of `modules`, in half precision as in files."""
    found = hashlib.sha256()
    for module in modules:
        for tensor in module.state_dict().values():
            found.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return found.hexdigest()


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError if one of the tensors read from `path` holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{path} holds NaN or infinity in {name}: it is damaged or its training diverged")


def save_weights(
    tensors: Mapping[str, Tensor], path: str | Path, config: Mapping[str, Any], *, half: bool = True
) -> None:
    """Write tensors and configuration as one safetensors file, atomically; floating point as fp16 if `half`.

    Raises WeightsError, and leaves nothing behind, if a tensor is not finite (in fp16) or the file can't be written.
    """
    path = Path(path)
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if half and value.is_floating_point():
            value = value.half()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{name} is not finite{' in fp16' if half else ''}: {path.name} was not written")
        out[name] = value.clone(memory_format=torch.contiguous_format)  # the format has no shared memory
    write_atomically(path, save(out, {HEADER_KEY: json.dumps(dict(config))}))


def first_misfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Return how a file's tensors differ from the network's, in words; None if they fit."""
    odd = sorted(set(own) ^ set(given))
    if odd:
        return f"{odd[0]} is {'missing' if odd[0] in own else 'left over'}"
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            shapes = ("x".join(map(str, one.shape)) or "a number" for one in (given[name], tensor))
            return "{} is {} instead of {}".format(name, *shapes)
        if tensor.is_floating_point() != given[name].is_floating_point():
            return f"{name} holds numbers of another kind"
    return None


# --- networks whose random initial weights nobody needs, because a file is about to fill them

RANDOM: frozenset[Callable[..., Any]] = frozenset(
    {
        nn.init.kaiming_uniform_,
        nn.init.uniform_,
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.xavier_uniform_,
        Tensor.uniform_,
        Tensor.normal_,
    }
)


class Unfilled(TorchFunctionMode):
    """While it is active, random weights are not drawn; loading a network takes a third of the time."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, unless it draws numbers into a tensor."""
        given = kwargs or {}
        return given.get("tensor", args[0] if args else None) if func in RANDOM else func(*args, **given)


# --- safetensors files of any origin

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
