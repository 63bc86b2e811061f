"""Flicker and style of a painted video."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impasto.evaluation.metrics import STYLE_LAYERS, LossNetwork, describe_style, style_loss
from impasto.images.flow import estimate_flow, warping_error


class VideoScore:
    """Means over the added frames, in their order: the warping error (Lai et al. 2018) and the style loss.

    network: for the style loss; style: the painting, (1, 3, H, W), or None: no style loss. The flow is measured on the
    source's frames by OpenCV's DIS.

    Departs from the protocol: DIS instead of FlowNet 2.0, at the frames' own size.
    """

    def __init__(self, network: LossNetwork, style: Tensor | None) -> None:
        self.network = network
        self.wanted = None if style is None else self._describe(style)
        self.errors: list[float] = []
        self.losses: list[float] = []
        self.last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def add(self, frame: Tensor, result: Tensor) -> None:
        """Add a frame and its result, (1, 3, H, W) in [0, 1] of the same size."""
        if self.wanted is not None:
            self.losses.append(style_loss(self._describe(result.to(frame)), self.wanted))
        if self.last is not None:
            before, painted = self.last
            flow, back = estimate_flow(before, frame), estimate_flow(frame, before)
            error = warping_error(painted, result, flow, back)
            self.errors += [] if error is None else [error]
        self.last = frame, result

    def result(self) -> dict[str, Any]:
        """Return ``warping_error`` and ``style_loss``; None if nothing was measured."""
        means = [sum(values) / len(values) if values else None for values in (self.errors, self.losses)]
        return dict(zip(("warping_error", "style_loss"), means, strict=True))

    def _describe(self, image: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        with torch.no_grad():
            return describe_style(self.network(image, STYLE_LAYERS))
