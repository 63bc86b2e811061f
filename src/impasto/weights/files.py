"""Weights files: finding, checking, reading and writing them."""

from __future__ import annotations

import functools
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from impasto.atomic import write_atomically
from impasto.errors import WeightsError

FOLDER = Path(__file__).parent
HEADER_KEY = "impasto"
ALIGNMENT = 64
"""Bytes: where torch's own tensors begin on a CPU."""
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Weights:
    """The tensors of one weights file, its configuration from the header, and the SHA-256 of its bytes."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    digest: str

    def fill(self, module: nn.Module, *, ignore: tuple[str, ...] = ()) -> None:
        """Copy the tensors into `module`, in its own precision; every name and shape must fit.

        ignore: prefixes of names in the file that the module may do without. Raises WeightsError.
        """
        own = module.state_dict()
        given = {k: v for k, v in self.tensors.items() if k in own or not k.startswith(ignore or ("\0",))}
        odd = sorted(set(own) ^ set(given)) or [k for k in own if own[k].shape != given[k].shape]
        if odd:
            raise WeightsError(
                f"{self.path} does not hold this network: {odd[0]} is missing, left over or of another shape"
            )
        module.load_state_dict({k: v.to(own[k].dtype) for k, v in given.items()})

    def build(self, make: Callable[[dict[str, Any]], Network], maker: str) -> Network:
        """The network that `make` makes of the configuration, filled.

        maker: whose training writes such files, as `impasto train` knows it. Raises WeightsError if this is none.
        """
        try:
            network = make(self.config)
        except (KeyError, TypeError):
            raise WeightsError(f"{self.path} was not made by `impasto train {maker}`") from None
        self.fill(network)
        return network


@functools.cache
def manifest() -> dict[str, dict[str, Any]]:
    """The shipped files' entries by name: file, sha256, bytes, licence, data, command, quality."""
    with (FOLDER / "manifest.toml").open("rb") as file:
        return tomllib.load(file)


def resolve(name: str) -> Path:
    """The file of the shipped weights called `name`; raises WeightsError if the package has none."""
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
    try:
        blob = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            tensors = {name: _aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        config = json.loads(header.get(HEADER_KEY, "{}"))
        if not isinstance(config, dict):
            raise ValueError("its configuration is no table")
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is no readable safetensors file: {reason}") from None
    check_finite(tensors, path)
    return Weights(path, tensors, config, hashlib.sha256(blob).hexdigest())


def _aligned(tensor: Tensor) -> Tensor:
    """`tensor` where memory is aligned as torch aligns it: in a file it lies anywhere, and last bits of sums differ."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def digest_numbers(modules: Iterable[nn.Module]) -> str:
    """SHA-256 of all that `modules` have learned, as it is kept in files: in half precision."""
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

    Raises WeightsError if a tensor is not finite, or no longer in fp16, or if the file can't be written; nothing is
    left behind then.
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
