"""One style in one pass: a transformation network for every painting (Johnson et al. 2016).

The network learns, for one painting, to do at once what an optimisation does in hundreds of steps. The best textures of
all methods of one pass, at the price of a training for each painting; a style here is a whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import OptionError, WeightsError
from impasto.layers import freeze
from impasto.learned import NAMED, LearnedStyles, network_kind, network_style
from impasto.options import Options
from impasto.perceptual import PerceptualLoss, Targets, stack_rows
from impasto.stages import Stage
from impasto.styles import Style, parts
from impasto.stylizer import LEAST_SIDE
from impasto.transformation import TransformationNetwork, blend_stage, network_stages
from impasto.weights import load_weights, resolve


class JohnsonOptions(Options):
    """What can be chosen without training anew."""

    weights: str = Field("", description="local file of one or more trained networks instead of the shipped ones")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the convolutions")


def paper_network() -> TransformationNetwork:
    """The paper's network with instance norms, of 1 679 235 parameters."""
    return TransformationNetwork()


def slim_network(width: int = 16, residuals: int = 5) -> TransformationNetwork:
    """The shipped size; of the form of Dumoulin et al. (2017), so that it can start from a network of many styles."""
    return TransformationNetwork(width, residuals, output="sigmoid", norm_last=True, bias=False)


class Johnson(LearnedStyles):
    """A transformation network for each style (Johnson et al. 2016).

    Departs from the paper: instance norms, mirrored edges and upsampling by repetition (as later work of the authors
    and of others has them) instead of batch norms, zero padding and transposed convolutions; the shipped networks have
    half the width, end in a norm and a sigmoid, and were trained as `JohnsonTraining` says. strength mixes what is
    painted with the photo.
    """

    name = "johnson"
    Options = JohnsonOptions
    options: JohnsonOptions

    def __init__(
        self,
        options: JohnsonOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        networks: Mapping[str, TransformationNetwork] | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self._digest = "random"
        infos: list[dict[str, Any]] = [{NAMED: name} for name in networks or {}]
        if networks is None:
            file = load_weights(options.weights or resolve(self.name))
            try:
                infos = list(file.config["networks"])
                networks = {info[NAMED]: TransformationNetwork(**file.config["shape"]) for info in infos}
            except (KeyError, TypeError):
                raise WeightsError(f"{file.path} holds no network that `impasto train johnson` made") from None
            file.fill(nn.ModuleDict(dict(networks)))
            self._digest = file.digest
        self.template = next(iter(networks.values()))
        self._learned = {info[NAMED]: network_style(networks[info[NAMED]], info) for info in infos}
        self._built: dict[int, tuple[Style, TransformationNetwork]] = {}

    @property
    def learned(self) -> Mapping[str, Style]:
        """The networks by the names of their paintings."""
        return self._learned

    @property
    def style_kind(self) -> str:
        """Weights of a network of this shape."""
        return network_kind(self.template)

    @property
    def digests(self) -> dict[str, str]:
        """The file of the networks."""
        return {self.name: self._digest}

    def stages(
        self, style: Style, strength: float = 1.0, size: tuple[int, int] = (LEAST_SIDE, LEAST_SIDE)
    ) -> tuple[Stage, ...]:
        """Each network of the style, then the mixture of what they paint and of the photo."""
        rows: list[Stage] = []
        shares: dict[str, float] = {}
        for number, (share, part) in enumerate(parts(style)):
            network, outcome = self._build(part), f"{number}.painted"
            rows += network_stages(network, network.norms, outcome, f"{number}.")
            shares[outcome] = share
        return (*rows, blend_stage(shares, strength))

    def _build(self, style: Style) -> TransformationNetwork:
        """The network of which `style` is the weights; raises OptionError if they don't fit."""
        kept = self._built.get(id(style))
        if kept is not None and kept[0] is style:
            return kept[1]
        network = TransformationNetwork(**self.template.shape)
        network.to(next(iter(style.values())).dtype)
        try:
            network.load_state_dict(dict(style))
        except RuntimeError:
            raise OptionError(f"this style card is no whole network for {self.name}: {self.advice}") from None
        freeze(network).to(self.device).to(memory_format=torch.channels_last)
        self._built = {id(style): (style, network)}
        return network


class JohnsonTraining(nn.Module):
    """How the network of one painting learns.

    Departs from the paper: the loss is `PerceptualLoss`', normalised content and means and deviations besides the Gram
    matrices, over VGG-19; the painting is measured once, as a whole.
    """

    def __init__(
        self, network: TransformationNetwork, loss: PerceptualLoss, painting: Tensor, info: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.network = nn.ModuleDict({str(info[NAMED]): network})
        self.info = dict(info)
        self._frozen = loss, painting
        self._targets: Targets | None = None

    @property
    def painter(self) -> TransformationNetwork:
        """The network itself."""
        network: TransformationNetwork = self.network[str(self.info[NAMED])]  # type: ignore[assignment]
        return network

    def config(self) -> dict[str, Any]:
        """The network's shape and whose style it has, for the file's header."""
        return {"method": "johnson", "shape": self.painter.shape, "networks": [self.info]}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Content, style and smoothness of what is painted; `styles` are not looked at."""
        loss, painting = self._frozen
        if self._targets is None:
            self._targets = loss.targets(painting.to(contents.device))
        return loss.terms(self.painter(contents), contents, self._targets)

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Photographs and what is painted, (1, 3, 2 H, B W)."""
        return stack_rows((contents, self.painter(contents).clamp(0, 1)))


def join(files: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The networks of several files as one: tensors and header. Raises WeightsError if their shapes differ."""
    tensors: dict[str, Tensor] = {}
    config: dict[str, Any] = {"method": "johnson", "networks": []}
    for path in files:
        file = load_weights(path)
        if config.setdefault("shape", file.config.get("shape")) != file.config.get("shape"):
            raise WeightsError(f"{path} holds a network of another shape")
        tensors |= file.tensors
        config["networks"] += file.config["networks"]
    return tensors, config
