"""Weights files: finding, checking, reading and writing them."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from impasto.errors import WeightsError
from impasto.files import write_atomically
from impasto.weights.reading import read_config, read_tensors
from impasto.weights.unfilled import Unfilled

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
            raise WeightsError(f"{self.path} was made by `impasto train {str(method)[:40]}`, not {maker}")
        if self.digest not in _shipped():  # these need no check, and a sketch makes torch load for a second
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


LARGEST = 1 << 16
"""Largest number in a network's configuration; sizes and counts are smaller."""
NOTES = frozenset({"steps", "seed", "styles", "networks", "info", "textures", "seconds", "loss"})
"""Keys of a configuration that are not sizes of the network."""


class ImpossibleError(Exception):
    """A configuration that no network of the file can have."""


def sketch(make: Callable[[dict[str, Any]], Network], config: dict[str, Any], parameters: int) -> Network:
    """Return the network that `make` makes of a configuration, without parameters.

    Raises ImpossibleError if it can't be made, or has more parameters than `parameters`.
    """
    if not _is_sane({key: value for key, value in config.items() if key not in NOTES}):
        raise ImpossibleError
    try:
        with torch.device("meta"), _at_most(parameters):
            return make(config)
    except Exception:  # any configuration may come from a stranger
        raise ImpossibleError from None


def _is_sane(value: Any) -> bool:
    """Return whether all numbers are small enough to be sizes."""
    if isinstance(value, Mapping):
        return all(_is_sane(part) for key, part in value.items() if key not in NOTES)
    if isinstance(value, list):
        return all(map(_is_sane, value))
    return not isinstance(value, int | float) or abs(value) <= LARGEST


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Limit the number of parameters of modules that this thread makes."""
    here, count = threading.get_ident(), 0

    def register(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        if threading.get_ident() == here:
            count += 1
            if count > parameters:
                raise ImpossibleError

    handle = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()


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
