"""One style in one pass: a transformation network for every painting (Johnson et al. 2016).

The network learns, for one painting, to do at once what an optimisation does in hundreds of steps. The best textures of
all methods of one pass, at the price of a training for each painting; a style here is a whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from impasto.errors import WeightsError
from impasto.learned import NAMED, NetworkStyles, network_style
from impasto.options import Options
from impasto.perceptual import PerceptualLoss, Targets, stack_rows
from impasto.styles import Style
from impasto.transformation import TransformationNetwork
from impasto.weights import load_weights, resolve


class JohnsonOptions(Options):
    """What can be chosen without training anew."""

    weights: str = Field("", description="local file of one or more trained networks instead of the shipped ones")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of the convolutions")


def paper_network() -> TransformationNetwork:
    """The paper's network with instance norms, of 1 679 235 parameters."""
    return TransformationNetwork()


class Johnson(NetworkStyles):
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
            networks = cast("dict[str, TransformationNetwork]", dict(file.build(_networks, self.name).items()))
            infos, self._digest = list(file.config["networks"]), file.digest
        self.shape = next(iter(networks.values())).shape
        self._learned = {info[NAMED]: network_style(networks[info[NAMED]], info) for info in infos}

    @property
    def learned(self) -> Mapping[str, Style]:
        """The networks by the names of their paintings."""
        return self._learned

    @property
    def digests(self) -> dict[str, str]:
        """The file of the networks."""
        return {self.name: self._digest}


def _networks(config: Mapping[str, Any]) -> nn.ModuleDict:
    """The networks of a file, by the names of their paintings."""
    return nn.ModuleDict({info[NAMED]: TransformationNetwork(**config["shape"]) for info in config["networks"]})


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
