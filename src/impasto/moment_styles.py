"""MomentStyles: one-pass methods whose style is the moments of a frozen backbone's layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from impasto.backbones import Backbone
from impasto.one_pass import OnePass
from impasto.stages import IMAGE, Flow, Known, MomentsOf, Stage
from impasto.styles import Style, moments_kind, note


class MomentStyles(OnePass):
    """A method that knows a painting by its means and second moments at `style_layers` of `backbone`.

    So cards of moments of the same backbone serve all of them, whichever method made the card.
    """

    backbone: Backbone

    @property
    @abstractmethod
    def style_layers(self) -> Sequence[str]:
        """The layers whose moments it needs."""

    @property
    def style_kind(self) -> str:
        """Moments over the encoder."""
        return moments_kind(self.backbone)

    def adopt(self, style: Style) -> Style:
        """Cards of moments of the same encoder, of which the needed layers are kept, so that all of them mix."""
        found, layers = super().adopt(style), set(self.style_layers)
        kept = {name: tensor for name, tensor in found.items() if name.rpartition(".")[0] in layers}
        return Style(kept, found.kind, found.info)

    def style_stage(self) -> Stage:
        """Moments at the chosen layers."""
        layers = list(self.style_layers)
        ways = tuple(Flow(IMAGE, layer, tuple(self.backbone.path(layer))) for layer in layers)
        return Stage(ways, lambda work: self.backbone(work.maps[IMAGE], layers), tuple(map(MomentsOf, layers)))

    def style_of(self, known: Known) -> Style:
        """Means and second moments."""
        values = [note(known[layer], layer) for layer in self.style_layers]
        return Style({name: tensor for part in values for name, tensor in part.items()}, self.style_kind)
