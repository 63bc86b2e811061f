"""`impasto train johnson`, `conditional_norm` and `metastyle`: transformation networks that learn or prepare styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor

from impasto.cli_train_methods import MethodOptions, judge
from impasto.cli_training import Recipe
from impasto.errors import ImpastoError, WeightsError
from impasto.learned import NAMED, describe_style
from impasto.methods import conditional_norm, johnson, metastyle
from impasto.training import MethodTask, Pictures, Task, TrainOptions
from impasto.transformation import TransformationNetwork, slim_network
from impasto.weights import Weights, load_weights


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


class ConditionalNormOptions(StylesOptions):
    """What the training of many styles in one network can be told besides."""

    add: bool = Field(False, description="keep the network of --from as it is and add the paintings to its styles")


class MetaStyleOptions(StylesOptions):
    """What the training of initial parameters can be told besides."""

    gram_weight: float = Field(
        0.0, ge=0, description="weight of Gram matrices beside means and deviations; flat artworks have huge ones"
    )
    style_side: int = Field(288, ge=32, le=4096, description="shorter side to which artworks are shrunk when read, px")
    from_: str = Field("", description="weights file to go on from: its own, conditional_norm's or johnson's")
    inner_steps: int = Field(1, ge=0, le=5, description="steps of the norms that training looks ahead")
    inner_rate: float = Field(0.03, ge=0, le=100, description="learning rate of these steps")
    inner_clip: float = Field(10.0, gt=0, description="largest norm of a style's gradient in these steps")
    shots: int = Field(1, ge=1, le=256, description="photos a style for the inner steps, and as many others after them")
    first_order: bool = Field(False, description="do not differentiate through the inner steps: half of the work")


def paintings_of(styles: Pictures) -> list[tuple[Tensor, dict[str, Any]]]:
    """Every painting, (1, 3, H, W) in [0, 1], and what is known of it."""
    infos = [describe_style(name.replace(".", "-")) for name in styles.names]
    return [(item[None].float() / 255, info) for item, info in zip(styles.items, infos, strict=True)]


def build_johnson(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """The network of one painting, from random weights or from `from_`."""
    options = cast(StylesOptions, options)
    if len(styles.items) != 1:
        raise ImpastoError(f"johnson learns one painting: --style PAINTING, not {len(styles.items)}")
    painting, info = paintings_of(styles)[0]
    torch.manual_seed(options.seed)
    network = start_network(options, info[NAMED], (options.width, options.residuals))
    learner = johnson.JohnsonTraining(network, judge(options), painting, info)
    return MethodTask("johnson", learner).to(memory_format=torch.channels_last)


def start_network(options: MethodOptions, name: str | None, shape: Sequence[int] = ()) -> TransformationNetwork:
    """A network for one style: random, of width and residuals `shape`, or out of `from_`.

    name: the style there is meant, else the first one; None: the mean of all.
    """
    if not options.from_:
        return slim_network(*shape)
    file = load_weights(options.from_)
    found = _shape(file)
    known = found if "output" in found else slim_network(found["width"], found["residuals"]).shape
    network = TransformationNetwork(**known)
    Weights(file.path, _tensors_of(file, name), file.config, file.digest).fill(network)
    return network


def _tensors_of(file: Weights, name: str | None) -> dict[str, Tensor]:
    """The tensors of one style's network in a file of metastyle, johnson or conditional_norm; see `start_network`."""
    method = file.config.get("method")
    if method == "metastyle":
        return dict(file.tensors)
    if method == "johnson":
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


def build_conditional_norm(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """One network for all paintings, from random weights or from `from_`, or new styles for the one of `from_`."""
    options = cast(ConditionalNormOptions, options)
    known = paintings_of(styles)
    paintings, infos = [painting for painting, _ in known], [info for _, info in known]
    torch.manual_seed(options.seed)
    network, before = start_styles(options, len(infos))
    fixed = len(before) if options.add else 0
    taken = {info[NAMED] for info in before[:fixed]} & {info[NAMED] for info in infos}
    if taken:
        raise ImpastoError(f"{options.from_} knows {', '.join(sorted(taken))} already: rename the picture")
    learner = conditional_norm.ConditionalNormTraining(
        network, judge(options), paintings, [*before[:fixed], *infos], fixed=fixed
    )
    return MethodTask("conditional_norm", learner).to(memory_format=torch.channels_last)


def start_styles(
    options: ConditionalNormOptions, count: int
) -> tuple[conditional_norm.ConditionalNetwork, list[dict[str, Any]]]:
    """The network to begin with, with room for `count` styles, and what it knows."""
    if not options.from_:
        if options.add:
            raise ImpastoError("say with --from FILE to which network the paintings are to be added")
        return conditional_norm.ConditionalNetwork(count, options.width, options.residuals), []
    file = load_weights(options.from_)
    before = list(file.config.get("styles", []))
    shape = _shape(file)
    network = conditional_norm.ConditionalNetwork(len(before), shape["width"], shape["residuals"])
    file.fill(network)
    if options.add:
        network.grow(count)
    elif len(before) != count:
        raise ImpastoError(f"{options.from_} knows {len(before)} styles, not {count}: use --add to add some")
    return network, before


def build_metastyle(options: TrainOptions, contents: Pictures, styles: Pictures) -> Task:
    """The initial parameters, from random weights or from what `from_` holds."""
    options = cast(MetaStyleOptions, options)
    if options.batch < 2 * options.shots:
        raise ImpastoError(f"--shots {options.shots} and as many photos after the steps: --batch {2 * options.shots}")
    torch.manual_seed(options.seed)
    learner = metastyle.MetaStyleTraining(
        start_network(options, None, (options.width, options.residuals)),
        judge(options),
        inner_steps=options.inner_steps,
        inner_rate=options.inner_rate,
        inner_clip=options.inner_clip,
        shots=options.shots,
        first_order=options.first_order,
    )
    return MethodTask("metastyle", learner).to(memory_format=torch.channels_last)


JOHNSON = Recipe(StylesOptions, build_johnson)
CONDITIONAL_NORM = Recipe(ConditionalNormOptions, build_conditional_norm)
METASTYLE = Recipe(MetaStyleOptions, build_metastyle)
