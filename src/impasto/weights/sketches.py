"""Networks without parameters, to check whether a file of a stranger can hold the network that it announces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

Network = TypeVar("Network", bound=nn.Module)

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
