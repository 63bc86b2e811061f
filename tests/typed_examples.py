"""What type checkers are to find of the public functions: mypy checks this file, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import impasto


def check(tensor: Tensor, array: NDArray[Any], image: Image.Image) -> None:
    """Every form of photo gives its own form back."""
    model = impasto.load("swift")
    assert_type(model.encode_style("painting.jpg"), impasto.Style)
    assert_type(model.stylize(tensor, "starry-night", image), Tensor)
    assert_type(model.stylize(array, tensor, strength=0.5, size=512), NDArray[Any])
    assert_type(model.stylize(image, array, masks=image, keep_color="lab"), Image.Image)
    assert_type(model.stylize("photo.jpg", Path("painting.jpg"), size="640x480"), Image.Image)
    assert_type(impasto.stylize(tensor, image, method="gatys", steps=50), Tensor)
    assert_type(impasto.stylize(array, "starry-night"), NDArray[Any])
    assert_type(impasto.stylize(Path("photo.jpg"), impasto.load_style("great-wave")), Image.Image)
