"""What the nodes ask of impasto: batches in ComfyUI's layout are painted picture by picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import impasto
from impasto.images.color import MATCHING_MODES
from impasto.images.tensors import resize
from impasto.methods import find_method
from impasto.stylizers.styles import built_in_styles

STYLES = tuple(built_in_styles())
METHODS = ("swift", *(name for name in impasto.list_methods() if name != "swift"))
"""The default method first."""
MOST_MODELS = 2
_models: dict[tuple[Any, ...], Any] = {}


@dataclass(frozen=True)
class Request:
    """How to paint. options: the method's own, as text by name; size: the result's longer side, None: the picture's."""

    method: str
    options: dict[str, str]
    strength: float
    size: int | None
    keep_color: str
    seed: int


def parse_options(method: str, text: str) -> dict[str, str]:
    """Read ``steps=200, detail=0.6``; a value with commas stands in parentheses. Raises ImpastoError."""
    found = {}
    for part in split_outside_parentheses(text):
        name, equals, value = part.partition("=")
        if not equals:
            raise impasto.ImpastoError(f"options: {part!r} has no value; write NAME=VALUE, NAME=VALUE")
        found[name.strip().lstrip("-").replace("-", "_")] = value.strip().strip("()")
    find_method(method).Options.parse(dict(found), method)
    return found


def split_outside_parentheses(text: str) -> list[str]:
    """Split text at commas and line ends that stand in no parentheses; empty parts are left out."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        if sign in ",\n" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def load_model(method: str, options: dict[str, str], device: str) -> Any:
    """Return the method, loaded once; the last few stay in memory."""
    key = (method, device, *sorted(options.items()))
    model = _models.pop(key, None) or impasto.load(method, device=device, **options)
    _models[key] = model
    while len(_models) > MOST_MODELS:
        del _models[next(iter(_models))]
    return model


def paint(
    image: Tensor, styles: Any, mask: Tensor | None, request: Request, device: str, follow: Callable[[Any], None]
) -> Tensor:
    """Paint `image`, (B, H, W, C), with C 1, 3 or 4; an alpha channel is kept. Returns (B, H', W', 3 or 4) on the CPU.

    mask: (B or 1, H, W) or (H, W). ComfyUI runs nodes in inference mode, in which nothing can be optimised: it is off
    in here.
    """
    with torch.inference_mode(False), torch.enable_grad():
        model = load_model(request.method, request.options, device)
        given = [(weight, own_copy(style)) for weight, style in styles]
        known = Styles(model, given, request)
        painted = []
        for number, one in enumerate(image):
            picture = own_copy(one[None])
            area = None if mask is None else pick_mask(mask, number)
            painted.append(paint_one(model, picture, known, area, request, follow))
            follow.finish_picture()
        return torch.cat(painted)


class Styles:
    """The listed styles for one model: encoded once, unless each picture's colours go into them.

    given: (weight, picture (1, H, W, C) or built-in name).
    """

    def __init__(self, model: Any, given: list[tuple[float, Any]], request: Request) -> None:
        self.model, self.request = model, request
        self.weights = [weight for weight, _ in given]
        self.items = [
            impasto.load_style(style) if isinstance(style, str) else to_channels(style)[0] for _, style in given
        ]
        self._encoded: tuple[int, list[Any]] | None = None

    def for_picture(self, content: Tensor) -> list[Any]:
        """Return the styles with which `content`, (1, 3, H, W), is painted."""
        longer = max(content.shape[-2:])
        if self.request.keep_color in MATCHING_MODES:
            return self.items
        if self._encoded is None or self._encoded[0] != longer:
            self._encoded = longer, self.model.encode_styles(self.items, longer)
        return self._encoded[1]


def paint_one(
    model: Any, picture: Tensor, styles: Styles, mask: Tensor | None, request: Request, follow: Callable[[Any], None]
) -> Tensor:
    """Paint one picture, (1, H, W, C); returns (1, H', W', 3 or 4)."""
    content, alpha = to_channels(picture)
    size = model.working_size(*content.shape[-2:], request.size)
    content = resize(content, *size)
    result = model.stylize(
        content,
        *styles.for_picture(content),
        weights=styles.weights,
        strength=request.strength,
        keep_color=request.keep_color,
        masks=() if mask is None else (mask,),
        seed=request.seed,
        on_step=follow,
    )
    result = result.detach().cpu()
    if alpha is not None:
        result = torch.cat([result, resize(alpha.cpu(), *size)], dim=1)
    return result.movedim(1, -1).float().contiguous()


def own_copy(value: Any) -> Any:
    """Copy a tensor that was made in inference mode, so that it can take part in an optimisation."""
    return value.clone() if isinstance(value, Tensor) else value


def to_channels(picture: Tensor) -> tuple[Tensor, Tensor | None]:
    """Turn (1, H, W, C) into colours, (1, 3, H, W) in [0, 1], and alpha, (1, 1, H, W) or None."""
    planes = picture.movedim(-1, 1).float().clamp(0, 1)
    if planes.shape[1] not in (1, 3, 4):
        raise impasto.ImpastoError(f"a picture has 1, 3 or 4 channels, not {planes.shape[1]}")
    colour = planes[:, :3] if planes.shape[1] > 1 else planes.expand(-1, 3, -1, -1)
    return colour.contiguous(), planes[:, 3:] if planes.shape[1] == 4 else None


def pick_mask(mask: Tensor, number: int) -> Tensor:
    """Return the mask of picture `number`, (1, 1, H, W); a batch that is too short repeats its last one."""
    masks = mask[None] if mask.dim() == 2 else mask
    return masks[min(number, len(masks) - 1)][None, None].clone().float().clamp(0, 1)
