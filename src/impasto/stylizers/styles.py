"""Styles: what a method needs to know of a painting, how styles mix, and style cards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impasto.errors import OptionError, WeightsError, no_card, no_style
from impasto.images.tensors import resize
from impasto.ops.moments import Moments, moments
from impasto.options import check_weights
from impasto.weights import Weights, load_weights, save_weights
from impasto.weights.files import FOLDER

BUILT_IN = FOLDER / "styles"
CARD = ".safetensors"
"""Suffix of style cards."""

COARSE = "half."
NAMED = "name"
"""The kind of a style of which only the name is known."""

MOST_KINDS, LONGEST_KIND = 64, 1000
"""Largest size of a card's content."""
MAPS, NETWORK, PLACES = "maps/", "network/", "places/"
"""Prefixes of kinds in which no method is linear: feature maps, whole networks, single places."""


class Style(dict[str, Tensor]):
    """All that one method needs to know of a painting: named tensors in which the method is linear.

    Args:
        values: the tensors.
        kind: what the numbers are and which network measured them, such as ``moments/vgg19-slim/3f2a...``. Styles of
            different kinds can't be mixed.
        info: title, artist and the like, for people.
        others: the same painting in other kinds, so that one card serves several methods.
        convert: `Stylizer.accept_style` of the method that made the style, so that it can be mixed with styles of other
            kinds; not saved.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        kind: str,
        info: Mapping[str, Any] | None = None,
        others: Iterable[Style] = (),
        *,
        convert: Callable[[Style], Style] | None = None,
    ) -> None:
        super().__init__(values)
        self.kind = kind
        self.info: dict[str, Any] = dict(info or {})
        self.others = tuple(others)
        self.convert = convert
        self.foreign = False
        """Whether it came from a file, which may hold anything."""

    def __repr__(self) -> str:
        """Return its description without the numbers."""
        about = ", ".join(str(self.info[key]) for key in ("title", "artist") if self.info.get(key))
        about = about or str(self.info.get(NAMED, "")) or ("a mixture" if "mixed" in self.info else "")
        more = f", {len(self.others)} other kinds" if self.others else ""
        return f"<Style{about and ' '}{about}: {self.kind}, {len(self)} tensors{more}>"

    @property
    def kinds(self) -> dict[str, Style]:
        """The style and its others by kind."""
        return {style.kind: style for style in (self, *self.others)}


def mix(styles: Sequence[Style], weights: Sequence[float] | None = None) -> Style:
    """Return the weighted sum of `styles`, in every kind that all of them have.

    weights are divided by their sum (all equal if None). A style that a model has encoded mixes with every style that
    this model can paint in, such as the built-in ones. Raises OptionError.
    """
    if not styles:
        raise OptionError("there is no style to mix: give at least one")
    shares = check_weights(weights, len(styles))
    if len(styles) == 1:
        return styles[0]
    mixed = _mix_kinds(styles, shares)
    for convert in (style.convert for style in styles):
        if not mixed and convert is not None:
            with contextlib.suppress(OptionError):
                mixed = _mix_kinds([convert(style) for style in styles], shares)
    if not mixed:
        kinds = " and ".join(dict.fromkeys(style.kind for style in styles))
        raise OptionError(
            f"styles of different kinds don't mix: {kinds}; give all of them to model.stylize(photo, ...) instead"
        )
    maker = next((style.convert for style in styles if style.convert), None)
    return Style(mixed[0], mixed[0].kind, mixed[0].info, mixed[1:], convert=maker)


def _mix_kinds(styles: Sequence[Style], shares: Sequence[float]) -> list[Style]:
    """Return the mixture in every kind that all have, with the same names."""
    info = {"mixed": [style.info for style in styles], "weights": list(shares)}
    mixed = []
    for kind, one in styles[0].kinds.items():
        same = [style.kinds[kind] for style in styles if kind in style.kinds]
        if len(same) < len(styles):
            continue
        if kind.startswith((MAPS, NETWORK, PLACES)):
            mixed.append(Style(_keep_side_by_side(same, shares), kind, info))
        elif all(style.keys() == one.keys() for style in same):
            mixed.append(Style({n: sum_weighted([s[n] for s in same], shares) for n in one}, kind, info))
    return mixed


def _keep_side_by_side(styles: Sequence[Style], shares: Sequence[float]) -> dict[str, Tensor]:
    found = [(own * share, part) for style, share in zip(styles, shares, strict=True) for own, part in parts(style)]
    values = {f"{i}.{name}": tensor for i, (_, part) in enumerate(found) for name, tensor in part.items()}
    return values | {f"{i}.share": torch.tensor(share, dtype=torch.float64) for i, (share, _) in enumerate(found)}


def parts(style: Style) -> list[tuple[float, Style]]:
    """Return the styles of feature maps, or networks, in the mixture `style`, with their shares; or `style` itself.

    A method's results are not linear in these, so that its results are mixed, not the styles.
    """
    if "0.share" not in style:
        return [(1.0, style)]
    grouped: dict[int, dict[str, Tensor]] = {}
    for name, tensor in style.items():
        number, rest = name.split(".", 1)
        grouped.setdefault(int(number), {})[rest] = tensor
    return [(float(part.pop("share")), Style(part, style.kind)) for _, part in sorted(grouped.items())]


def sum_weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum of tensors times weights."""
    return torch.stack([tensor * weight for tensor, weight in zip(tensors, weights, strict=True)]).sum(0)


def pack(matrix: Tensor) -> Tensor:
    """Return the upper triangle of a symmetric matrix, (C, C), as a vector of C (C + 1) / 2."""
    rows, columns = torch.triu_indices(*matrix.shape)
    return matrix[rows, columns]


def unpack(vector: Tensor, size: int) -> Tensor:
    """Return the symmetric matrix, (size, size), with the upper triangle `vector`; raises OptionError."""
    if vector.numel() != size * (size + 1) // 2:
        raise OptionError(f"{vector.numel()} numbers are no triangle of a matrix with {size} rows")
    rows, columns = torch.triu_indices(size, size)
    matrix = vector.new_zeros(size, size)
    matrix[rows, columns] = vector
    matrix[columns, rows] = vector
    return matrix


def moments_kind(backbone: nn.Module) -> str:
    """Return the kind of a style that is made of moments of `backbone`'s features."""
    pooling = "/average" if any(isinstance(module, nn.AvgPool2d) for module in backbone.modules()) else ""
    return f"moments/{backbone.name}/{str(backbone.digest)[:12]}{pooling}"


def maps_kind(backbone: nn.Module) -> str:
    """Return the kind of a style that is made of `backbone`'s feature maps."""
    return MAPS + moments_kind(backbone).split("/", 1)[1]


def network_kind(shape: Mapping[str, Any]) -> str:
    """Return the kind of a style that is a whole network of this shape."""
    return NETWORK + "-".join(str(value) for value in shape.values())


@torch.no_grad()
def measure(
    backbone: nn.Module,
    image: Tensor,
    layers: Iterable[str],
    *,
    coarse: bool = True,
    look: Callable[[Tensor, tuple[str, ...]], Mapping[str, Moments]] | None = None,
) -> Style:
    """Return the moments of `image`, (1, 3, H, W), at `layers`: ``LAYER.mean`` (C,), ``LAYER.second`` (C (C + 1) / 2,).

    coarse: also at half the size, as ``half.LAYER.mean`` ..., for the coarse stages of an optimisation. look: a
    function for the moments of a picture at layers; default: the whole picture at once.
    """
    layers = tuple(layers)
    look = look or (lambda image, layers: {name: moments(found) for name, found in backbone(image, layers).items()})
    values: dict[str, Tensor] = {}
    height, width = image.shape[-2:]
    least = getattr(backbone, "least_side", 1)
    for prefix in ("", COARSE) if coarse else ("",):
        if prefix and min(height, width) >= 2 * least:
            image = resize(image, round(height / 2), round(width / 2))
        for layer, found in look(image, layers).items():
            values |= note(found, f"{prefix}{layer}")
    return Style(values, moments_kind(backbone))


def note(found: Moments, name: str) -> dict[str, Tensor]:
    """Return one layer's moments in the form of a style."""
    return {f"{name}.mean": found.mean[0].contiguous(), f"{name}.second": pack(found.second[0])}


def recall(style: Mapping[str, Tensor], layer: str, *, coarse: bool = False) -> Moments:
    """Return the moments of `layer` in `style`, with a count of 1; raises OptionError if it lacks them."""
    prefix = COARSE if coarse and f"{COARSE}{layer}.mean" in style else ""
    try:
        mean, second = style[f"{prefix}{layer}.mean"], style[f"{prefix}{layer}.second"]
    except KeyError:
        there = sorted({name.rsplit(".", 1)[0] for name in style if not name.startswith(COARSE)})
        raise OptionError(f"this style knows nothing of {layer}; it was made from {', '.join(there)}") from None
    return Moments(1.0, mean[None], unpack(second, len(mean))[None])


def compact(style: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `style` in a form that survives fp16: ``LAYER.root`` instead of second moments, of the same size.

    The root is the upper triangular R with R^T R the covariance: its values span half the orders of magnitude, and R^T
    R stays a covariance after any rounding. `expand` is the inverse.
    """
    values = dict(style)
    for name in [name for name in style if name.endswith(".second")]:
        layer = name.removesuffix(".second")
        mean, second = style[f"{layer}.mean"].cpu().double(), style[name].cpu().double()
        covariance = unpack(second, len(mean)) - torch.outer(mean, mean)
        if not bool(torch.isfinite(covariance).all()):
            continue  # it has no root, and no card can hold it
        variances, axes = torch.linalg.eigh(covariance)
        _, root = torch.linalg.qr((axes * variances.clamp_min(0).sqrt()).T)
        values[f"{layer}.root"] = pack(root).to(values.pop(name).dtype)
    return values


def expand(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the style, in float32, from the `values` of `compact`; others stay unchanged."""
    style = {name: value.float() if value.is_floating_point() else value for name, value in values.items()}
    for name in [name for name in style if name.endswith(".root")]:
        layer = name.removesuffix(".root")
        mean = style[f"{layer}.mean"].double()
        root = unpack(style.pop(name).double(), len(mean)).triu()
        style[f"{layer}.second"] = pack(root.T @ root + torch.outer(mean, mean)).float()
    return style


def save_style(style: Style, path: str | Path, *, half: bool = False) -> None:
    """Write `style` and its other kinds as a style card, a small safetensors file; atomically. Raises WeightsError.

    half: in fp16, as `compact` gives it. Pictures in its info, such as the painting of ``--start style``, are left out.
    """
    config = {"style": style.kind, "info": _without_tensors(style.info)}
    if style.others:
        config["others"] = [other.kind for other in style.others]
    tensors: dict[str, Tensor] = {}
    for number, one in enumerate((style, *style.others)):
        values = compact(one) if half else one
        tensors |= {_prefix(number) + name: value for name, value in values.items()}
    save_weights(tensors, path, config, half=half)


def _prefix(number: int) -> str:
    """Return the prefix of a card's tensors: empty for the style itself, ``1:`` ... for its other kinds."""
    return f"{number}:" if number else ""


def _without_tensors(info: Any) -> Any:
    if isinstance(info, dict):
        return {key: _without_tensors(value) for key, value in info.items() if not isinstance(value, Tensor)}
    return [_without_tensors(item) for item in info] if isinstance(info, list) else info


def load_style(path: str | Path) -> Style:
    """Read a style card: a file, or a built-in style by its name.

    Raises WeightsError in one line if it is damaged or no style card.
    """
    card = find_card(path)
    if not card.exists() and not card.suffix and card == Path(card.name):
        raise WeightsError(no_style(card.name, built_in_styles()))
    file = load_weights(card)
    kinds = [file.config.get("style"), *_listed(file.config.get("others", []))]
    if len(kinds) > MOST_KINDS or not all(isinstance(kind, str) and len(kind) <= LONGEST_KIND for kind in kinds):
        raise WeightsError(no_card(str(path)))
    given = file.config.get("info")
    info = given if isinstance(given, dict) else {}
    try:
        styles = [Style(expand(_part(file, number)), str(kind), info) for number, kind in enumerate(kinds)]
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError, OptionError):
        raise WeightsError(f"{path} is a damaged style card: its tensors don't fit each other") from None
    found = Style(styles[0], styles[0].kind, info, styles[1:])
    for style in (found, *found.others):
        style.foreign = file.path.parent != BUILT_IN
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _part(file: Weights, number: int) -> dict[str, Tensor]:
    """Return the tensors of a card's style of that number, by their own names."""
    prefix = _prefix(number)
    names = [name for name in file.tensors if (name.startswith(prefix) if prefix else ":" not in name)]
    if not names:
        raise KeyError(prefix)
    return {name.removeprefix(prefix): file.tensors[name] for name in names}


def built_in_styles() -> dict[str, Path]:
    """Return the cards of the styles that come with impasto, by name."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.safetensors"))}


def find_card(name: str | Path) -> Path:
    """Return the file `name`, or, if there is none, the card of the built-in style of that name."""
    path = Path(name)
    return path if path.is_file() else built_in_styles().get(str(name), path)


def named_style(name: str) -> Style:
    """Return a style of which only the name is known; a method that has learned it looks it up."""
    return Style({}, NAMED, {NAMED: name})
