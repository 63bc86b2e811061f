"""Methods that paint only in learned styles; styles that are whole networks."""

from __future__ import annotations

import contextlib
import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, cast

import torch
from torch import Tensor, nn

from impasto.errors import OptionError, fixed_styles
from impasto.feedforward.transformation_network import StagedNetwork, TransformationNetwork
from impasto.networks.layers import fill
from impasto.optimize.perceptual_loss import PaintingMoments, PerceptualLoss, stack_rows
from impasto.options import Options
from impasto.stylizers.one_pass import OnePass, StyleNetworks
from impasto.stylizers.styles import NAMED as NAMED
from impasto.stylizers.styles import Style, built_in_styles, load_style, network_kind
from impasto.weights import Network, digest_numbers, load_weights, resolve

IDENTIFYING = ("title", "artist")


class LearnedStyles(OnePass):
    """A one-pass method with a fixed set of styles, chosen by name; any other painting must be learned first."""

    @property
    @abstractmethod
    def learned(self) -> Mapping[str, Style]:
        """Its styles by name."""

    @property
    def style_names(self) -> Sequence[str]:
        """Names of the learned styles."""
        return tuple(self.learned)

    def encode_style(self, image: Any) -> Style:
        """Raise OptionError: a painting must be learned, or named."""
        raise OptionError(f"{self.name} can't look at a painting: {self.advice}")

    @property
    def examples(self) -> tuple[Style, ...]:
        """The first learned style."""
        return tuple(self.learned.values())[:1]

    @property
    def advice(self) -> str:
        """What to do instead of naming an unknown style."""
        return fixed_styles(self.name, self.learned)

    def accept_style(self, style: Style) -> Style:
        """Return `style` if it is of this method's kind, or the learned one of the same name, or title and artist."""
        with contextlib.suppress(OptionError):
            return super().accept_style(style)
        for name, known in self.learned.items():
            same = [
                style.info.get(key) is not None and style.info.get(key) == known.info.get(key) for key in IDENTIFYING
            ]
            if style.info.get(NAMED) == name or all(same):
                return known
        if style.kind == NAMED:
            raise OptionError(f"{self.name} knows no style {style.info.get(NAMED)!r}: {self.advice}")
        return super().accept_style(style)


class SharedNetworkStyles(LearnedStyles, Generic[Network]):
    """A one-pass method whose styles are parts of one network; the rest of the network is shared.

    network: instead of the one in a weights file; infos: of its styles, ``name`` at least.
    """

    prefix = ""
    """Prefix of the kind of its styles, before the method's name."""

    def __init__(
        self,
        options: Options,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        network: Network | None = None,
        infos: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        self.network, file = self.open_network(network, self.read_network)
        infos = infos if file is None else file.infos("styles")
        self._kind = f"{self.prefix}{self.name}/{digest_numbers(self.shared())[:12]}"
        self._learned = {info[NAMED]: Style(self.own(number), self._kind, info) for number, info in enumerate(infos)}

    @staticmethod
    @abstractmethod
    def read_network(config: Mapping[str, Any]) -> Network:
        """Return the network that a file's header describes, without its parameters."""

    @abstractmethod
    def shared(self) -> Sequence[nn.Module]:
        """Return the modules that stay unchanged when styles are added."""

    @abstractmethod
    def own(self, number: int) -> dict[str, Tensor]:
        """Return the parameters of the style with this number."""

    @property
    def learned(self) -> Mapping[str, Style]:
        """Each style's parameters, by the names of their paintings."""
        return self._learned

    @property
    def style_kind(self) -> str:
        """The kind that fits these shared layers."""
        return self._kind

    @property
    def digests(self) -> dict[str, str]:
        """The network's digest."""
        return {self.name: self.network_digest}


class NetworkStyles(StyleNetworks, LearnedStyles):
    """A one-pass method whose styles are whole networks of one shape.

    shape: the arguments of `make_network`.
    """

    shape: Mapping[str, Any]

    @staticmethod
    def make_network(shape: Mapping[str, Any]) -> StagedNetwork:
        """Return a network of this shape, without its parameters."""
        return TransformationNetwork(**shape)

    @property
    def style_kind(self) -> str:
        """The kind of networks with this shape."""
        return network_kind(self.shape)

    @functools.cached_property
    def _template(self) -> StagedNetwork:
        with torch.device("meta"):
            return self.make_network(self.shape)

    def build_for(self, style: Style) -> StagedNetwork:
        """Return the network whose weights `style` holds; raises OptionError if they don't fit."""
        try:
            return fill(self._template, style, self.device)
        except RuntimeError:
            raise OptionError(f"this style card is no whole network for {self.name}: {self.advice}") from None


class PaintingNetworks(NetworkStyles):
    """A one-pass method with a network for each painting; a file holds one or more of them.

    networks: by the names of their paintings, instead of those in a weights file.
    """

    def __init__(
        self,
        options: Options,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        networks: Mapping[str, StagedNetwork] | None = None,
    ) -> None:
        super().__init__(options, device=device, preset=preset)
        infos: list[dict[str, Any]] = [{NAMED: name} for name in networks or {}]
        if networks is None:
            file = load_weights(self.options.weights or resolve(self.name))
            networks = cast("dict[str, StagedNetwork]", dict(file.build(self._read, self.name).items()))
            infos, self.network_digest = file.infos("networks"), file.digest
        self.shape = next(iter(networks.values())).shape
        self._learned = {info[NAMED]: network_style(networks[info[NAMED]], info) for info in infos}

    def _read(self, config: Mapping[str, Any]) -> nn.ModuleDict:
        return nn.ModuleDict({info[NAMED]: self.make_network(config["shape"]) for info in config["networks"]})

    @property
    def learned(self) -> Mapping[str, Style]:
        """The networks by the names of their paintings."""
        return self._learned

    @property
    def digests(self) -> dict[str, str]:
        """The digest of the networks' file."""
        return {self.name: self.network_digest}


class PaintingTraining(nn.Module):
    """Training of the network of one painting.

    method: name of the networks' method; painting: (1, 3, H, W), or what the loss needs of it; info: of the painting,
    ``name`` at least.

    Departs from the papers: the loss is `PerceptualLoss`: normalised content, Gram matrices, means and
    deviations, over VGG-19; the painting is measured once, as a whole.
    """

    def __init__(
        self,
        method: str,
        network: StagedNetwork,
        loss: PerceptualLoss,
        painting: Tensor | PaintingMoments,
        info: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.network = nn.ModuleDict({str(info[NAMED]): network})
        self.method, self.info = method, dict(info)
        self._frozen = loss, painting
        self._targets: PaintingMoments | None = None

    @property
    def painter(self) -> StagedNetwork:
        """The network."""
        return cast(StagedNetwork, self.network[str(self.info[NAMED])])

    def config(self) -> dict[str, Any]:
        """Return the network's shape and its style, for the file's header."""
        return {"method": self.method, "shape": self.painter.shape, "networks": [self.info]}

    def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        """Return content, style and smoothness terms of the result; `styles` are not used."""
        loss, painting = self._frozen
        if self._targets is None:
            self._targets = (
                painting if isinstance(painting, PaintingMoments) else loss.targets(painting.to(contents.device))
            )
        return loss.terms(self.painter(contents), contents, self._targets)

    @torch.no_grad()
    def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
        """Return photographs and results, (1, 3, 2 H, B W)."""
        return stack_rows((contents, self.painter(contents).clamp(0, 1)))


def describe_style(name: str) -> dict[str, Any]:
    """Return the info of the style called `name`: title and artist if it is a built-in one."""
    card = built_in_styles().get(name)
    return {NAMED: name} if card is None else {NAMED: name, **load_style(card).info}


def network_style(network: StagedNetwork, info: Mapping[str, Any]) -> Style:
    """Return the network's weights as a style."""
    values = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    return Style(values, network_kind(network.shape), info)
