"""Methods of neural style transfer, one file per paper, and their registry: a file in this folder is a method."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any

import torch

from impasto.errors import OptionError, nearest, no_method
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import built_in_styles
from impasto.training.loop import Training
from impasto.weights import manifest

DEFAULT_METHOD = "swift"
STILL_METHOD = "nnst_d"
"""The method that paints any painting's style best in one pass; from frame to frame of a video it is not steady."""
TRAINED_METHODS = "johnson", "conditional_norm"
"""Methods with networks trained for built-in styles, which look more painted than the default's, best first."""


def list_methods() -> list[str]:
    """Return the names of all methods: a module in `impasto.methods` is a method."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_method(name: str | None = None) -> type[Stylizer]:
    """Return the class of the method called `name` (None: the default one); raises OptionError."""
    name = name or DEFAULT_METHOD
    if name not in list_methods():
        raise OptionError(no_method(name, list_methods()))
    module = _import(name)
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Stylizer) and found.__module__ == module.__name__:
            return found
    raise OptionError(f"impasto/methods/{name}.py defines no Stylizer")


def method_for(
    styles: Iterable[str | None],
    *,
    preset: str = "default",
    options: Collection[str] = (),
    runtime: str = "torch",
    still: bool = True,
) -> str:
    """Return the method that paints these styles if no method is named.

    styles: names of built-in styles, None for a painting, any other name for a style card. still: no video. The first
    of `TRAINED_METHODS` that paints all of them well, as the manifest says, is returned; else `STILL_METHOD`, unless it
    is a video or a card is among the styles. A preset, options or another runtime are meant for the default method.
    """
    if preset != "default" or options or runtime != "torch":
        return DEFAULT_METHOD
    names = list(styles)
    lists = ("styles",) if still else ("styles", "video_styles")
    entries = {method: manifest().get(method, {}) for method in TRAINED_METHODS}
    learned = {method: [name for key in lists for name in entry.get(key, ())] for method, entry in entries.items()}
    able = (method for method, known in learned.items() if names and all(name in known for name in names))
    pictures = names and all(name is None or name in built_in_styles() for name in names)
    return next(able, STILL_METHOD if pictures and still else DEFAULT_METHOD)


def find_training(name: str) -> Training | None:
    """Return the training of the method called `name`: the TRAINING of its file, None if it has none."""
    return getattr(_import(name), "TRAINING", None)


def _import(name: str) -> ModuleType:
    return importlib.import_module(f"impasto.methods.{name}")


def load(
    method: str | None = None,
    *,
    preset: str = "default",
    device: str | torch.device = "cpu",
    runtime: str = "torch",
    **options: Any,
) -> Stylizer:
    """Return the method called `method` (None: the default one), ready to use.

    preset: one of the method's presets; runtime: one of `impasto.feedforward.runtimes.RUNTIMES`; options: the method's
    options, over those of the preset. Raises OptionError for an unknown or out-of-range value, WeightsError if its
    weights are not available.
    """
    found = find_method(method)
    if preset not in found.presets:
        near = nearest(preset, found.presets)
        raise OptionError(f"{found.name} has no preset {preset!r}{near}; it has: {', '.join(found.presets)}")
    values = {**found.presets[preset], **options}
    model = found(found.Options.parse(values, found.name), device=device, preset=preset)
    if runtime != model.runtime:
        model.use_runtime(runtime)
    return model
