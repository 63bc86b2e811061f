"""`impasto train johnson`, `texture_network`, `conditional_norm`, `stylebank`: for the very paintings given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.commands.train_methods import MethodOptions, judge
from impasto.errors import ImpastoError, WeightsError
from impasto.feedforward.transformation_network import TransformationNetwork, slim_network
from impasto.methods import conditional_norm, stylebank, texture_network
from impasto.stylizers.fixed_styles import NAMED, PaintingTraining, describe_style
from impasto.training.loop import MethodTask, Recipe, Task, TrainOptions
from impasto.training.pictures import Pictures
from impasto.weights import Weights, load_weights

NO_FROM = "say with --from FILE to which network the paintings are to be added"


class PaintingOptions(MethodOptions):
    """What the training of a network for certain paintings can be told, whatever the network."""

    style_weight: float = Field(8.0, ge=0, description="weight of the style")
    gram_weight: float = Field(0.5, ge=0, description="weight of Gram matrices beside means and deviations")
    tv_weight: float = Field(1.0, ge=0, description="weight of total variation")
    style_side: int = Field(448, ge=32, le=4096, description="shorter side at which the paintings are looked at, px")

    @property
    def art_side(self) -> int:
        """The paintings' own."""
        return self.style_side


class StylesOptions(PaintingOptions):
    """What the training of a network for certain paintings can be told."""

    width: int = Field(16, ge=2, le=256, description="channels at full size; the paper's network has 32")
    residuals: int = Field(5, ge=0, le=32, description="residual blocks")
    from_: str = Field("", description="weights file to go on from; for johnson also conditional_norm's")


class TextureNetworkOptions(PaintingOptions):
    """What the training of a pyramid network can be told besides."""

    levels: int = Field(texture_network.LEVELS, ge=1, le=5, description="sizes of the photo, each half of the next")
    branch: int = Field(texture_network.BRANCH, ge=1, le=256, description="channels of each size's own path")
    noise: int = Field(texture_network.NOISE, ge=0, le=64, description="channels of noise beside the photo")
    from_: str = Field("", description="weights file of the same shape to go on from")


class ConditionalNormOptions(StylesOptions):
    """What the training of many styles in one network can be told besides."""

    add: bool = Field(False, description="keep the network of --from as it is and add the paintings to its styles")


class StyleBankOptions(ConditionalNormOptions):
    """What the training of banks can be told besides."""

    cycle: int = Field(2, ge=1, le=100, description="steps of painting before each one of rebuilding photos")
    rebuild_balance: float = Field(
        1.0, gt=0, description="length of rebuilding's gradient, in units of painting's, before --clip cuts both"
    )


def paintings_of(styles: Pictures) -> list[tuple[Tensor, dict[str, Any]]]:
    """Every painting, (1, 3, H, W) in [0, 1], and what is known of it."""
    infos = [describe_style(name.replace(".", "-")) for name in styles.names]
    return [(item[None].float() / 255, info) for item, info in zip(styles.items, infos, strict=True)]


def build_johnson(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """The network of one painting, from random weights or from `from_`."""
    options = cast(StylesOptions, options)
    painting, info = only_painting(styles, "johnson")
    torch.manual_seed(options.seed)
    network = start_network(options, info[NAMED], (options.width, options.residuals))
    learner = PaintingTraining("johnson", network, judge(options), painting, info)
    return MethodTask("johnson", learner).to(memory_format=torch.channels_last)


def build_texture_network(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """The pyramid network of one painting, from random weights or from `from_`."""
    options = cast(TextureNetworkOptions, options)
    painting, info = only_painting(styles, texture_network.NAME)
    torch.manual_seed(options.seed)
    network = start_pyramid(options, info[NAMED])
    learner = PaintingTraining(texture_network.NAME, network, judge(options), painting, info)
    return MethodTask(texture_network.NAME, learner).to(memory_format=torch.channels_last)


def start_pyramid(options: TextureNetworkOptions, name: str) -> texture_network.PyramidNetwork:
    """A pyramid for the style called `name`: random, or the one of that name, or the first one, of `from_`."""
    if not options.from_:
        return texture_network.PyramidNetwork(options.levels, options.branch, options.noise)
    file = load_weights(options.from_)
    if file.config.get("method") != texture_network.NAME:
        raise WeightsError(f"{file.path} was not made by `impasto train {texture_network.NAME}`")
    own = Weights(file.path, _tensors_of(file, name), file.config, file.digest)
    return own.build(lambda config: texture_network.make_pyramid(config["shape"]), texture_network.NAME)


def only_painting(styles: Pictures, task: str) -> tuple[Tensor, dict[str, Any]]:
    """The one painting that there is, and what is known of it; raises ImpastoError if there are several."""
    if len(styles.items) != 1:
        raise ImpastoError(f"{task} learns one painting: --style PAINTING, not {len(styles.items)}")
    return paintings_of(styles)[0]


def start_network(options: MethodOptions, name: str | None, shape: Sequence[int] = ()) -> TransformationNetwork:
    """A network for one style: random, of width and residuals `shape`, or out of `from_`.

    name: the style there is meant, else the first one; None: the mean of all.
    """
    if not options.from_:
        return slim_network(*shape)
    file = load_weights(options.from_)
    found = _shape(file)
    known = found if "output" in found else slim_network(found["width"], found["residuals"]).shape
    try:
        network = TransformationNetwork(**known)
    except TypeError:
        raise WeightsError(f"{file.path} holds no transformation network") from None
    Weights(file.path, _tensors_of(file, name), file.config, file.digest).fill(network)
    return network


def _tensors_of(file: Weights, name: str | None) -> dict[str, Tensor]:
    """The tensors of one style's network in a file of metastyle, johnson or conditional_norm; see `start_network`."""
    method = file.config.get("method")
    if method == "metastyle":
        return dict(file.tensors)
    if method in ("johnson", texture_network.NAME):
        own = f"{_find(file.config['networks'], name)[1][NAMED]}."
        return {key.removeprefix(own): value for key, value in file.tensors.items() if key.startswith(own)}
    number, _ = _find(file.config.get("styles", []), name)
    return {
        key.removeprefix("shared."): value
        if key.startswith("shared.")
        else (value.mean(0) if name is None else value[number])
        for key, value in file.tensors.items()
    }


def _shape(file: Weights) -> Mapping[str, Any]:
    shape = file.config.get("shape", file.config)
    if not isinstance(shape, dict) or not {"width", "residuals"} <= shape.keys():
        raise WeightsError(f"{file.path} holds no network of styles: name a file of johnson or conditional_norm")
    return shape


def _find(infos: Sequence[Mapping[str, Any]], name: str | None) -> tuple[int, Mapping[str, Any]]:
    if not infos:
        raise WeightsError("the file to go on from names no styles")
    return next(((number, info) for number, info in enumerate(infos) if info[NAMED] == name), (0, infos[0]))


Shared = TypeVar("Shared", conditional_norm.ConditionalNetwork, stylebank.StyleBankNetwork)


@dataclass(frozen=True)
class Beginning(Generic[Shared]):
    """What the training of many styles in one network begins with.

    infos: of all styles of the network; fixed: how many of these it knows already and keeps.
    """

    network: Shared
    paintings: list[Tensor]
    infos: list[dict[str, Any]]
    fixed: int


def begin(
    options: ConditionalNormOptions,
    styles: Pictures,
    start: Callable[[Any, int], tuple[Shared, list[dict[str, Any]]]],
) -> Beginning[Shared]:
    """The network that `start` makes for that many paintings, and what it is to learn; raises ImpastoError."""
    known = paintings_of(styles)
    infos: list[dict[str, Any]] = [info for _, info in known]
    torch.manual_seed(options.seed)
    network, before = start(options, len(infos))
    kept: list[dict[str, Any]] = before if options.add else []
    check_new(options.from_, kept, infos)
    return Beginning(network, [painting for painting, _ in known], [*kept, *infos], len(kept))


def build_conditional_norm(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """One network for all paintings, from random weights or from `from_`, or new styles for the one of `from_`."""
    options = cast(ConditionalNormOptions, options)
    first = begin(options, styles, start_styles)
    learner = conditional_norm.ConditionalNormTraining(
        first.network, judge(options), first.paintings, first.infos, fixed=first.fixed
    )
    return MethodTask("conditional_norm", learner).to(memory_format=torch.channels_last)


def check_new(path: str, before: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, Any]]) -> None:
    """Raise ImpastoError if the file knows one of the paintings already."""
    taken = {info[NAMED] for info in before} & {info[NAMED] for info in infos}
    if taken:
        raise ImpastoError(f"{path} knows {', '.join(sorted(taken))} already: rename the picture")


def fill_styles(
    network: conditional_norm.ConditionalNetwork | stylebank.StyleBankNetwork,
    file: Weights,
    options: ConditionalNormOptions,
    known: int,
    count: int,
) -> None:
    """Fill `network` with the `known` styles of `file`, and make room for `count` more if they are to be added.

    Raises ImpastoError if they are not, and the file knows another number of styles.
    """
    file.fill(network)
    if options.add:
        network.grow(count)
    elif known != count:
        raise ImpastoError(f"{options.from_} knows {known} styles, not {count}: use --add to add some")


def start_styles(
    options: ConditionalNormOptions, count: int
) -> tuple[conditional_norm.ConditionalNetwork, list[dict[str, Any]]]:
    """The network to begin with, with room for `count` styles, and what it knows."""
    if not options.from_:
        if options.add:
            raise ImpastoError(NO_FROM)
        return conditional_norm.ConditionalNetwork(count, options.width, options.residuals), []
    file = load_weights(options.from_)
    before = list(file.config.get("styles", []))
    shape = _shape(file)
    network = conditional_norm.ConditionalNetwork(len(before), shape["width"], shape["residuals"])
    fill_styles(network, file, options, len(before), count)
    return network, before


class BanksTask(MethodTask):
    """The training of banks, whose checkpoint also knows whose turn it is."""

    def learned(self) -> nn.Module:
        """Network and turn."""
        return self.learner

    def shippable(self) -> dict[str, Tensor]:
        """The network alone."""
        return dict(cast(stylebank.StyleBankTraining, self.learner).network.state_dict())


def build_stylebank(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """Encoder, decoder and a bank for every painting, or new banks for the network of `from_`."""
    options = cast(StyleBankOptions, options)
    first = begin(options, styles, start_banks)
    learner = stylebank.StyleBankTraining(
        first.network,
        judge(options),
        first.paintings,
        first.infos,
        fixed=first.fixed,
        cycle=options.cycle,
        balance=options.rebuild_balance,
    )
    return BanksTask("stylebank", learner).to(memory_format=torch.channels_last)


def start_banks(options: StyleBankOptions, count: int) -> tuple[stylebank.StyleBankNetwork, list[dict[str, Any]]]:
    """The network to begin with, with room for `count` styles, and what it knows."""
    if not options.from_:
        if options.add:
            raise ImpastoError(NO_FROM)
        return stylebank.slim_network(count, options.width, options.residuals), []
    file = load_weights(options.from_)
    if file.config.get("method") != "stylebank":
        raise WeightsError(f"{file.path} was not made by `impasto train stylebank`")
    before = list(file.config.get("styles", []))
    network = stylebank.slim_network(len(before), **_shape(file))
    fill_styles(network, file, options, len(before), count)
    return network, before


JOHNSON = Recipe(StylesOptions, build_johnson)
TEXTURE_NETWORK = Recipe(TextureNetworkOptions, build_texture_network)
CONDITIONAL_NORM = Recipe(ConditionalNormOptions, build_conditional_norm)
STYLEBANK = Recipe(StyleBankOptions, build_stylebank)
