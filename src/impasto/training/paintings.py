"""Training of methods that learn certain paintings: options, the paintings, the initial network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import ImpastoError, WeightsError
from impasto.feedforward.transformation_network import TransformationNetwork, slim_network
from impasto.stylizers.fixed_styles import NAMED, describe_style
from impasto.training.one_pass import MethodOptions
from impasto.training.pictures import Pictures
from impasto.weights import Weights, load_weights

NO_FROM = "say with --from FILE to which network the paintings are to be added"


class PaintingOptions(MethodOptions):
    """Options of a training for certain paintings, with any network."""

    style_weight: float = Field(8.0, ge=0, description="weight of the style")
    gram_weight: float = Field(0.5, ge=0, description="weight of Gram matrices beside means and deviations")
    tv_weight: float = Field(1.0, ge=0, description="weight of total variation")
    style_side: int = Field(448, ge=32, le=4096, description="shorter side to which paintings are shrunk, px")

    @property
    def art_side(self) -> int:
        """Shorter side to which paintings are shrunk when read, px."""
        return self.style_side


class StylesOptions(PaintingOptions):
    """Options of the training of a transformation network for certain paintings."""

    width: int = Field(16, ge=2, le=256, description="channels at full size; the paper's network has 32")
    residuals: int = Field(5, ge=0, le=32, description="residual blocks")
    from_: str = Field("", description="weights file to continue from; for johnson also conditional_norm's")


class ManyStylesOptions(StylesOptions):
    """Further training options for many styles in one network."""

    add: bool = Field(False, description="keep the network of --from as it is and add the paintings to its styles")


def paintings_of(styles: Pictures) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return every painting, (1, 3, H, W) in [0, 1], and its info."""
    infos = [describe_style(name.replace(".", "-")) for name in styles.names]
    return [(item[None].float() / 255, info) for item, info in zip(styles.items, infos, strict=True)]


def only_painting(styles: Pictures, task: str) -> tuple[Tensor, dict[str, Any]]:
    """Return the only painting and its info; raises ImpastoError if there are several."""
    if len(styles.items) != 1:
        raise ImpastoError(f"{task} learns one painting: --style PAINTING, not {len(styles.items)}")
    return paintings_of(styles)[0]


def start_network(options: MethodOptions, name: str | None, shape: Sequence[int] = ()) -> TransformationNetwork:
    """Return a network for one style: random, of width and residuals `shape`, or from `from_`.

    name: a style in that file, by default the first one; None: the mean of all.
    """
    if not options.from_:
        return slim_network(*shape)
    file = load_weights(options.from_)
    found = shape_of(file)
    known = found if "output" in found else slim_network(found["width"], found["residuals"]).shape
    try:
        network = TransformationNetwork(**known)
    except TypeError:
        raise WeightsError(f"{file.path} holds no transformation network") from None
    Weights(file.path, tensors_of(file, name), file.config, file.digest).fill(network)
    return network


def tensors_of(file: Weights, name: str | None) -> dict[str, Tensor]:
    """Return the tensors of one style's network in a file of metastyle, johnson or conditional_norm."""
    method = file.config.get("method")
    if method == "metastyle":
        return dict(file.tensors)
    if method in ("johnson", "texture_network"):
        own = f"{_find(file.config['networks'], name)[1][NAMED]}."
        return {key.removeprefix(own): value for key, value in file.tensors.items() if key.startswith(own)}
    number, _ = _find(file.config.get("styles", []), name)
    return {
        key.removeprefix("shared."): value
        if key.startswith("shared.")
        else (value.mean(0) if name is None else value[number])
        for key, value in file.tensors.items()
    }


def shape_of(file: Weights) -> Mapping[str, Any]:
    """Return the shape of the network in `file`; raises WeightsError if it is no network of styles."""
    shape = file.config.get("shape", file.config)
    if not isinstance(shape, dict) or not {"width", "residuals"} <= shape.keys():
        raise WeightsError(f"{file.path} holds no network of styles: name a file of johnson or conditional_norm")
    return shape


def _find(infos: Sequence[Mapping[str, Any]], name: str | None) -> tuple[int, Mapping[str, Any]]:
    if not infos:
        raise WeightsError("the file of --from names no styles")
    return next(((number, info) for number, info in enumerate(infos) if info[NAMED] == name), (0, infos[0]))


class Growing(Protocol):
    """A network of several styles that can be extended."""

    def grow(self, more: int) -> None:
        """Add styles."""


Shared = TypeVar("Shared", bound=nn.Module)


@dataclass(frozen=True)
class Beginning(Generic[Shared]):
    """The start of a training of many styles in one network.

    infos: of all styles of the network; fixed: number of styles that it already knows and keeps.
    """

    network: Shared
    paintings: list[Tensor]
    infos: list[dict[str, Any]]
    fixed: int


def begin(
    options: ManyStylesOptions,
    styles: Pictures,
    start: Callable[[Any, int], tuple[Shared, list[dict[str, Any]]]],
) -> Beginning[Shared]:
    """Return the network that `start` makes for these paintings, and what it should learn; raises ImpastoError."""
    known = paintings_of(styles)
    infos: list[dict[str, Any]] = [info for _, info in known]
    torch.manual_seed(options.seed)
    network, before = start(options, len(infos))
    kept: list[dict[str, Any]] = before if options.add else []
    check_new(options.from_, kept, infos)
    known = known if options.add else in_order_of(before, known)
    return Beginning(network, [item[0] for item in known], [*kept, *(item[1] for item in known)], len(kept))


def in_order_of(
    before: Sequence[Mapping[str, Any]], known: list[tuple[Tensor, dict[str, Any]]]
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return the paintings in the order of the file's styles, or unchanged if they differ."""
    places = {info[NAMED]: place for place, info in enumerate(before)}
    if places.keys() != {info[NAMED] for _, info in known}:
        return known
    return sorted(known, key=lambda item: places[item[1][NAMED]])


def check_new(path: str, before: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]]) -> None:
    """Raise ImpastoError if the file already knows one of the paintings."""
    taken = {info[NAMED] for info in before} & {info[NAMED] for info in infos}
    if taken:
        raise ImpastoError(f"{path} knows {', '.join(sorted(taken))} already: rename the picture")


def fill_styles(
    network: nn.Module,
    file: Weights,
    options: ManyStylesOptions,
    known: int,
    count: int,
) -> None:
    """Fill `network` with the `known` styles of `file`, and add room for `count` more with --add.

    Raises ImpastoError without --add if the file knows another number of styles.
    """
    file.fill(network)
    if options.add:
        cast(Growing, network).grow(count)
    elif known != count:
        raise ImpastoError(f"{options.from_} knows {known} styles, not {count}: use --add to add some")
