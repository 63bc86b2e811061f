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
    from impasto.image import read_image, write_image
    from impasto.styles import Style, load_style, mix, save_style
    from impasto.stylizer import Stylizer, list_methods, load

__version__ = "0.1.0"
__all__ = [
    "ImpastoError",
    "Style",
    "Stylizer",
    "list_methods",
    "load",
    "load_style",
    "mix",
    "read_image",
    "save_style",
    "write_image",
]
_HOMES = {
    "ImpastoError": "errors",
    "Style": "styles",
    "Stylizer": "stylizer",
    "list_methods": "stylizer",
    "load": "stylizer",
    "load_style": "styles",
    "mix": "styles",
    "read_image": "image",
    "save_style": "styles",
    "write_image": "image",
}


def __getattr__(name: str) -> Any:
    """Fetch a public name from its module on first use, so that importing impasto stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'impasto' has no attribute {name!r}")
    return getattr(importlib.import_module(f"impasto.{_HOMES[name]}"), name)
