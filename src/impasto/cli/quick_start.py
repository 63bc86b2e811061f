"""What makes a short command quick: how torch is loaded, and how the process ends.

Python's collector of cyclic garbage goes through all objects again and again while torch makes hundreds of thousands of
them, which stay, and once more when the process ends: a third of the time that `import torch` alone takes. Unloading
torch's libraries takes time, too.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def collect_nothing_while_loading(name: str) -> None:
    """Let the collector rest while the module `name` is loaded, and never look at what that made.

    Does nothing until the module is imported. This applies to the whole process, so programs call it, not the library.
    """
    sys.meta_path.insert(0, _Watch(name))


class _Watch:
    """Finds one module as Python does, once, and prepares its loader."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            _rest_while_it_runs(spec.loader)
        return spec


def _rest_while_it_runs(loader: Any) -> None:
    """Let `loader` load its module without the collector; afterwards it is as it was."""

    def load(module: ModuleType) -> None:
        del loader.exec_module
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            loader.exec_module(module)
        finally:
            gc.freeze()
            if was_enabled:
                gc.enable()

    loader.exec_module = load


class QuickEnd:
    """Ends the process without unloading its libraries; the operating system frees what it had.

    Register it with `atexit` before everything else, so that it runs when other threads have ended and all other
    functions that were registered have run. Unless `code` is set by then, and if what was printed can't be written,
    the process ends as usual.
    """

    code: int | None = None

    def __call__(self) -> None:
        """End the process with `code`."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):  # no such stream; a full disk: Python reports it
            return
        if self.code is not None:
            os._exit(self.code)
