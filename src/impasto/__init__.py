"""Neural style transfer: repaint a photo in a painting's style.

>>> import impasto
>>> model = impasto.load("gatys", steps=5)
>>> model.name
'gatys'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impasto.errors import ImpastoError
    from impasto.images.files import read_image, write_image
    from impasto.methods import list_methods, load
    from impasto.runs.one_call import stylize
    from impasto.runs.pretrained import from_pretrained, push_to_hub, save_pretrained
    from impasto.stylizers.base import Stylizer
    from impasto.stylizers.styles import Style, load_style, mix, save_style

__version__ = "0.1.0"
__all__ = [
    "ImpastoError",
    "Style",
    "Stylizer",
    "from_pretrained",
    "list_methods",
    "load",
    "load_style",
    "mix",
    "push_to_hub",
    "read_image",
    "save_pretrained",
    "save_style",
    "stylize",
    "write_image",
]
_HOMES = {
    "ImpastoError": "errors",
    "Style": "stylizers.styles",
    "Stylizer": "stylizers.base",
    "from_pretrained": "runs.pretrained",
    "list_methods": "methods",
    "load": "methods",
    "load_style": "stylizers.styles",
    "mix": "stylizers.styles",
    "push_to_hub": "runs.pretrained",
    "read_image": "images.files",
    "save_pretrained": "runs.pretrained",
    "save_style": "stylizers.styles",
    "stylize": "runs.one_call",
    "write_image": "images.files",
}


def __getattr__(name: str) -> Any:
    """Fetch a public name from its module on first use, so that importing impasto stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'impasto' has no attribute {name!r}")
    return getattr(importlib.import_module(f"impasto.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, for completion in a shell or a notebook, including those not loaded yet."""
    hidden = (name for name in globals() if name.startswith("__"))
    return sorted({*hidden, *__all__})
