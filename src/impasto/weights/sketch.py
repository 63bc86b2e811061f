"""Networks sketched before they are built: without memory, to see whether a file's tensors are theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

LARGEST = 1 << 16
"""A number in a configuration that makes a network; sizes and counts are smaller."""
NOTES = frozenset({"steps", "seed", "styles", "networks", "info", "textures", "seconds", "loss"})
"""What a configuration tells of besides the network's sizes."""

Network = TypeVar("Network", bound=nn.Module)


class ImpossibleError(Exception):
    """A configuration that no network of the file can have."""


def sketch(make: Callable[[dict[str, Any]], Network], config: dict[str, Any], parameters: int) -> Network:
    """Return the network that `make` makes of a configuration, without numbers.

    Raises ImpossibleError if it can't be made, or has more parameters than `parameters`.
    """
    if not _is_sane({key: value for key, value in config.items() if key not in NOTES}):
        raise ImpossibleError
    try:
        with torch.device("meta"), _at_most(parameters):
            return make(config)
    except Exception:  # whatever a stranger's configuration leads to
        raise ImpossibleError from None


def _is_sane(value: Any) -> bool:
    """Whether all numbers are small enough to be sizes."""
    if isinstance(value, Mapping):
        return all(_is_sane(part) for key, part in value.items() if key not in NOTES)
    if isinstance(value, list):
        return all(map(_is_sane, value))
    return not isinstance(value, int | float) or abs(value) <= LARGEST


@contextmanager
def _at_most(parameters: int) -> Iterator[None]:
    """Let modules that this thread makes have that many parameters and no more."""
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
    """Return what is wrong with the tensors of a file for a network's, in words; None if nothing is."""
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
