"""Photo and painting to picture in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.images.exchange import AnyPicture, Image, Location, take_photo
from impasto.methods import load, method_for
from impasto.runs.painting import pick_device
from impasto.stylizers.arguments import AnyStyle, HowToPaint, take_size
from impasto.stylizers.styles import CARD, Style, built_in_styles


@overload
def stylize(content: Tensor, *styles: AnyStyle, method: str | None = ..., **options: Any) -> Tensor: ...
@overload
def stylize(content: NDArray[Any], *styles: AnyStyle, method: str | None = ..., **options: Any) -> NDArray[Any]: ...
@overload
def stylize(content: Image | Location, *styles: AnyStyle, method: str | None = ..., **options: Any) -> Image: ...


def stylize(
    content: AnyPicture,
    *styles: AnyStyle,
    method: str | None = None,
    preset: str = "default",
    device: str | torch.device = "auto",
    runtime: str = "torch",
    **options: Any,
) -> Tensor | NDArray[Any] | Image:
    """Repaint a photo in the style of a painting: ``stylize("photo.jpg", "painting.jpg").save("out.png")``.

    Takes and returns pictures in the forms of `Stylizer.stylize`. For many photos load a model once.

    Args:
        content: the photo.
        styles: paintings, style cards, or names of built-in styles.
        method: one of `list_methods`; None: johnson or conditional_norm for built-in styles that they paint well,
            nnst_d for all others and for paintings, swift for style cards.
        preset, runtime: as for `load`.
        device: "auto" is the fastest one available.
        options: the keyword arguments of `Stylizer.stylize`, such as size or strength, and options of the method.
            Without a size, methods that optimise paint at 512 pixels on a CPU and 1024 on a GPU.

    Raises:
        ImpastoError: if a picture can't be read or a value does not fit.
    """
    how: Any = {name: options.pop(name) for name in HowToPaint.__annotations__ if name in options}
    place = pick_device(device, runtime) if isinstance(device, str) else device
    if method is None:
        method = method_for(map(_name_of, styles), preset=preset, options=options, runtime=runtime)
    model = load(method, preset=preset, device=place, runtime=runtime, **options)
    photo: Any = take_photo(content)
    height, width = photo.size
    photo = photo.resized(*model.working_size(height, width, take_size(how.pop("size", None))))
    result: Tensor | NDArray[Any] | Image = model.stylize(photo, *styles, **how)
    return result


def _name_of(style: AnyStyle) -> str | None:
    """Return the name of a built-in style or of a style card, None for a painting."""
    if isinstance(style, Style):
        return style.kind
    if isinstance(style, str | Path) and (Path(style).suffix.lower() == CARD or str(style) in built_in_styles()):
        return str(style)
    return None
