"""The base of methods that optimise a picture against a backbone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from impasto.feedforward.limits import backwards_room
from impasto.feedforward.stages import photo_share
from impasto.networks.backbone import SLIM, Backbone
from impasto.networks.backbones import choose_pooling, load_backbone
from impasto.optimize.descent import ImageParameter, ImageTerms, Result, Scale, coarse_to_fine
from impasto.optimize.tiled_objective import FittingObjective
from impasto.options import Options
from impasto.progress import OnStep
from impasto.stylizers.base import Stylizer


class OptimizedOptions(Options):
    """Options of the backbone of an optimisation."""

    backbone: str = Field(SLIM, description="network whose features are compared")
    backbone_weights: str = Field("", description="local weights file for the backbone instead of the official one")
    pooling: Literal["auto", "max", "average"] = Field(
        "auto", description="the backbone's pooling; auto: average in vgg19-slim, max elsewhere"
    )


class Optimized(Stylizer):
    """A method that optimises the picture itself against a backbone, from coarse to fine.

    network: the network of the losses; the backbone, unless a method wraps it. room: bytes for a forward and backward
    pass through the backbone; 0: by the free memory.
    """

    one_pass: ClassVar[bool] = False
    options: Any

    def __init__(
        self,
        options: OptimizedOptions,
        *,
        device: str | torch.device = "cpu",
        preset: str = "default",
        backbone: Backbone | None = None,
    ) -> None:
        filled = {**self.fill_layers(options), "pooling": choose_pooling(options.pooling, options.backbone)}
        options = type(options).parse({**options.model_dump(), **filled}, self.name)
        super().__init__(options, device=device, preset=preset)
        self.backbone = backbone or load_backbone(
            options.backbone, pooling=options.pooling, weights=options.backbone_weights or None
        )
        self.network = self.backbone.to(self.device).to(memory_format=torch.channels_last)
        self.room = 0

    @staticmethod
    @abstractmethod
    def fill_layers(options: Any) -> dict[str, Any]:
        """Return the options of layers, with the backbone's own for those that are empty."""

    @abstractmethod
    def _parameter(self, image: Tensor) -> ImageParameter:
        """Return the parameter to optimise, which begins as `image`."""

    @property
    def free_room(self) -> int:
        """Bytes for a forward and backward pass through the backbone."""
        return self.room or backwards_room(self.device)

    @property
    def least_side(self) -> int:
        """The shortest side of every method's pictures, or the network's."""
        return max(super().least_side, self.network.least_side)

    @property
    def digests(self) -> dict[str, str]:
        """The backbone's digest."""
        return {self.network.name: self.network.digest}

    def optimise(
        self,
        scales: Sequence[Scale],
        start: Tensor,
        objective_at: Callable[[Any, Tensor], FittingObjective],
        on_step: OnStep,
        **how: Any,
    ) -> Result:
        """Optimise `start` at each scale, and note the tiles, the last losses and an interruption.

        how: further arguments of `coarse_to_fine`.
        """
        made: list[FittingObjective] = []

        def make(scale: Scale, image: Tensor) -> ImageTerms:
            made[:] = [objective_at(scale, image)]
            return made[0]

        result = coarse_to_fine(
            scales, start, make, self._parameter, on_step=on_step, checkpoint=self.checkpoint, **how
        )
        self.cut = made[0].cut if made else None
        self.losses = result.losses[-1] if result.losses else {}
        self.interrupted = result.interrupted
        return result


def keep_photo(image: Tensor, content: Tensor, strength: float) -> Tensor:
    """Return the picture with a share of the photo, if the strength is small."""
    return torch.lerp(image, content.clamp(0, 1), photo_share(strength)) if strength < 1 else image
