"""Styles: what a method needs to know of a painting, how styles mix, and style cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import OptionError, WeightsError
from impasto.image import resize
from impasto.statistics import Moments, moments
from impasto.weights import load_weights, save_weights

COARSE = "half."
MAPS = "maps/"


class Style(dict[str, Tensor]):
    """All that one method needs to know of a style: named tensors in which the method is linear.

    kind: what the numbers are and which network they were measured with, such as ``moments/vgg19-slim/3f2a...``;
    styles of different kinds don't mix. info: title, artist and the like, for people.
    """

    def __init__(self, values: Mapping[str, Tensor], kind: str, info: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.kind = kind
        self.info: dict[str, Any] = dict(info or {})


def mix(styles: Sequence[Style], weights: Sequence[float] | None = None) -> Style:
    """The weighted sum of `styles`; weights are divided by their sum (all equal if None). Raises OptionError."""
    if not styles:
        raise OptionError("there is no style to mix: give at least one")
    shares = check_weights(weights, len(styles))
    first = styles[0]
    side_by_side = first.kind.startswith(MAPS)
    for other in styles[1:]:
        if other.kind != first.kind or (other.keys() != first.keys() and not side_by_side):
            raise OptionError(f"styles of different kinds don't mix: {first.kind} and {other.kind}")
    if len(styles) == 1:
        return first
    if side_by_side:
        values = _keep_side_by_side(styles, shares)
    else:
        values = {name: sum_weighted([style[name] for style in styles], shares) for name in first}
    return Style(values, first.kind, {"mixed": [style.info for style in styles], "weights": list(shares)})


def _keep_side_by_side(styles: Sequence[Style], shares: Sequence[float]) -> dict[str, Tensor]:
    found = [(own * share, part) for style, share in zip(styles, shares, strict=True) for own, part in parts(style)]
    values = {f"{i}.{name}": tensor for i, (_, part) in enumerate(found) for name, tensor in part.items()}
    return values | {f"{i}.share": torch.tensor(share, dtype=torch.float64) for i, (share, _) in enumerate(found)}


def parts(style: Style) -> list[tuple[float, Style]]:
    """The styles of feature maps that were mixed into `style`, each with its share; if none were, `style` itself.

    What a method makes of feature maps is not linear in them, so that they are mixed after its work, not before.
    """
    if "0.share" not in style:
        return [(1.0, style)]
    grouped: dict[int, dict[str, Tensor]] = {}
    for name, tensor in style.items():
        number, rest = name.split(".", 1)
        grouped.setdefault(int(number), {})[rest] = tensor
    return [(float(part.pop("share")), Style(part, style.kind)) for _, part in sorted(grouped.items())]


def check_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """`weights` divided by their sum, one for each of `count` styles; raises OptionError."""
    if count == 0:
        raise OptionError("there is no style: give at least one painting or style card")
    if weights is None:
        return (1 / count,) * count
    if len(weights) != count:
        raise OptionError(f"{count} styles need {count} weights, not {len(weights)}")
    total = sum(weights)
    if min(weights) < 0 or not 0 < total < float("inf"):
        raise OptionError(f"style weights are at least 0 and not all 0, not {', '.join(f'{w:g}' for w in weights)}")
    return tuple(weight / total for weight in weights)


def sum_weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The sum of tensors times weights."""
    return torch.stack([tensor * weight for tensor, weight in zip(tensors, weights, strict=True)]).sum(0)


def pack(matrix: Tensor) -> Tensor:
    """The upper triangle of a symmetric matrix, (C, C), as a vector of C (C + 1) / 2."""
    rows, columns = torch.triu_indices(*matrix.shape)
    return matrix[rows, columns]


def unpack(vector: Tensor, size: int) -> Tensor:
    """The symmetric matrix, (size, size), of which `vector` is the upper triangle."""
    rows, columns = torch.triu_indices(size, size)
    matrix = vector.new_zeros(size, size)
    matrix[rows, columns] = vector
    matrix[columns, rows] = vector
    return matrix


def moments_kind(backbone: nn.Module) -> str:
    """The kind of a style that is made of moments of `backbone`'s features."""
    pooling = "/average" if any(isinstance(module, nn.AvgPool2d) for module in backbone.modules()) else ""
    return f"moments/{backbone.name}/{str(backbone.digest)[:12]}{pooling}"


def maps_kind(backbone: nn.Module) -> str:
    """The kind of a style that is made of `backbone`'s feature maps."""
    return MAPS + moments_kind(backbone).split("/", 1)[1]


@torch.no_grad()
def measure(backbone: nn.Module, image: Tensor, layers: Iterable[str], *, coarse: bool = True) -> Style:
    """The moments of `image`, (1, 3, H, W), at `layers`: ``LAYER.mean`` (C,) and ``LAYER.second`` (C (C + 1) / 2,).

    coarse: also at half the size, as ``half.LAYER.mean`` ..., for the coarse stages of an optimisation.
    """
    layers = tuple(layers)
    values: dict[str, Tensor] = {}
    height, width = image.shape[-2:]
    least = getattr(backbone, "least_side", 1)
    for prefix in ("", COARSE) if coarse else ("",):
        if prefix and min(height, width) >= 2 * least:
            image = resize(image, round(height / 2), round(width / 2))
        for layer, features in backbone(image, layers).items():
            values |= note(moments(features), f"{prefix}{layer}")
    return Style(values, moments_kind(backbone))


def note(found: Moments, name: str) -> dict[str, Tensor]:
    """One layer's moments as a style holds them."""
    return {f"{name}.mean": found.mean[0].contiguous(), f"{name}.second": pack(found.second[0])}


def recall(style: Mapping[str, Tensor], layer: str, *, coarse: bool = False) -> Moments:
    """The moments of `layer` that `style` holds, as of one position; raises OptionError if it lacks them."""
    prefix = COARSE if coarse and f"{COARSE}{layer}.mean" in style else ""
    try:
        mean, second = style[f"{prefix}{layer}.mean"], style[f"{prefix}{layer}.second"]
    except KeyError:
        there = sorted({name.rsplit(".", 1)[0] for name in style if not name.startswith(COARSE)})
        raise OptionError(f"this style knows nothing of {layer}; it was made from {', '.join(there)}") from None
    return Moments(1.0, mean[None], unpack(second, len(mean))[None])


def save_style(style: Style, path: str | Path) -> None:
    """Write `style` as a style card, a small safetensors file; atomically. Raises WeightsError.

    Pictures in its info, such as the painting of ``--start style``, are left out.
    """
    save_weights(style, path, {"style": style.kind, "info": _without_tensors(style.info)}, half=False)


def _without_tensors(info: Any) -> Any:
    if isinstance(info, dict):
        return {key: _without_tensors(value) for key, value in info.items() if not isinstance(value, Tensor)}
    return [_without_tensors(item) for item in info] if isinstance(info, list) else info


def load_style(path: str | Path) -> Style:
    """Read a style card. Raises WeightsError in one line if it is damaged or no style card."""
    file = load_weights(path)
    kind = file.config.get("style")
    if not isinstance(kind, str):
        raise WeightsError(f"{path} is no style card: make one with `impasto style extract painting.jpg`")
    info = file.config.get("info")
    return Style(file.tensors, kind, info if isinstance(info, dict) else {})
