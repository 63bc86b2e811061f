"""Methods that paint in the styles that they have learned, and no others; styles that are whole networks."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NoReturn

from torch import Tensor

from impasto.errors import OptionError
from impasto.stages import Known, Stage
from impasto.styles import NETWORK, Style, built_in_styles, load_style
from impasto.stylizer import OnePass
from impasto.transformation import TransformationNetwork

NAMED = "name"
TOLD = ("title", "artist")


class LearnedStyles(OnePass):
    """A one-pass method with a fixed set of styles, asked for by name; any other painting has to be learned first."""

    @property
    @abstractmethod
    def learned(self) -> Mapping[str, Style]:
        """Its styles by name."""

    def encode_style(self, image: Tensor) -> Style:
        """Raises OptionError: a painting has to be learned, or named."""
        self._refuse()

    def style_stage(self) -> Stage:
        """Raises OptionError: it measures no paintings."""
        self._refuse()

    def style_of(self, known: Known) -> Style:
        """Raises OptionError: it measures no paintings."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise OptionError(f"{self.name} can't look at a painting: {self.advice}")

    @property
    def advice(self) -> str:
        """What to do instead of naming a style that it does not know."""
        return (
            f"name one of the styles that it has learned ({', '.join(self.learned)}) with --style, or teach it "
            f"the painting: impasto train {self.name} --style PAINTING"
        )

    def adopt(self, style: Style) -> Style:
        """`style` if it is of this method's kind, or the learned one of the same name, or title and artist."""
        with contextlib.suppress(OptionError):
            return super().adopt(style)
        for name, known in self.learned.items():
            same = [style.info.get(key) is not None and style.info.get(key) == known.info.get(key) for key in TOLD]
            if style.info.get(NAMED) == name or all(same):
                return known
        if style.kind == NAMED:
            raise OptionError(f"{self.name} knows no style {style.info.get(NAMED)!r}: {self.advice}")
        return super().adopt(style)


def named_style(name: str) -> Style:
    """A style of which only the name is known; `LearnedStyles.adopt` finds what it stands for."""
    return Style({}, NAMED, {NAMED: name})


def describe_style(name: str) -> dict[str, Any]:
    """What is known of the style called `name`: title and artist if it is a built-in one."""
    card = built_in_styles().get(name)
    return {NAMED: name} if card is None else {NAMED: name, **load_style(card).info}


def network_kind(network: TransformationNetwork) -> str:
    """The kind of a style that is a whole network of that shape."""
    return NETWORK + "-".join(str(value) for value in network.shape.values())


def network_style(network: TransformationNetwork, info: Mapping[str, Any]) -> Style:
    """The network's weights as a style."""
    return Style({name: tensor.detach() for name, tensor in network.state_dict().items()}, network_kind(network), info)
