"""Entry points of torch.hub: ``torch.hub.load(REPOSITORY, "stylizer", method="gatys")``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

dependencies = ["torch", "numpy", "PIL", "safetensors", "pydantic"]
sys.path.insert(0, str(Path(__file__).parent / "src"))


def stylizer(method: str = "gatys", *, preset: str = "default", device: str = "cpu", **options: Any) -> Any:
    """A method of neural style transfer, ready to use, as `impasto.load` gives it.

    ``stylizer().stylize(content, style)`` repaints `content` in the style of `style`, float32 (1, 3, H, W) in [0, 1].
    """
    import impasto

    return impasto.load(method, preset=preset, device=device, **options)
