"""Keeps the frames of a video alike: moments smoothed over frames, and the last result moved along the flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from impasto.feedforward.stages import live_moments
from impasto.images.flow import estimate_flow, trusted, warp
from impasto.images.tensors import resize
from impasto.ops.moments import Moments
from impasto.optimize.losses import TemporalLoss, Term
from impasto.stylizers.base import Stylizer

GLANCE = 8
"""Longer side at which frames are compared; movements change little there."""
CUT, CUT_RATIO = 0.08, 4.0
"""A cut: the mean difference of frames exceeds this, and this many times the usual difference."""
USUAL, USUAL_MEMORY = 0.03, 0.8
"""The usual difference at the start, and the decay of earlier frames."""
FLAT = 6 / 255
"""A frame whose pixels differ by no more than this in every channel is flat."""


def is_flat(frame: Tensor) -> bool:
    """Return whether `frame`, (1, 3, H, W), is flat, such as a black one, whose moments would spoil the next shot's."""
    ranges = (torch.aminmax(plane) for plane in frame.flatten(0, 1))  # plane by plane, in a tenth of the time
    return all(float(most - least) <= FLAT for least, most in ranges)


class SmoothedMoments:
    """A running mean of the content's moments over frames, for `Stylizer.moments_of`.

    memory: decay of earlier frames; 0: each frame by itself. Call `begin` before each frame.
    """

    def __init__(self, memory: float) -> None:
        self.memory = memory
        self.known: dict[str, Moments] = {}
        self._asked: Counter[str] = Counter()

    def begin(self) -> None:
        """Start a new frame: reset the per-layer counters."""
        self._asked.clear()

    def forget(self) -> None:
        """Reset at a scene cut."""
        self.known.clear()

    def __call__(self, layer: str, features: Tensor | Moments, mask: Tensor | None, *, full: bool) -> Moments:
        """Return moments as a `MomentsSource`. Several regions of one frame have separate means."""
        name = f"{layer}#{self._asked[layer]}"
        self._asked[layer] += 1
        found = live_moments(layer, features, mask, full=full)
        before = self.known.get(name)
        self.known[name] = found if before is None else found + before * self.memory
        return self.known[name]


class Coherence:
    """Paints frames one after the other so that they don't flicker.

    memory: that of `SmoothedMoments`. carried: share of the last result, moved along the flow, where the flow is
    reliable; an optimisation also starts from it. held: the weight of `TemporalLoss`, which keeps an optimisation near
    it (both by Ruder et al. 2016, sec. 4). If both are 0, no flow is measured. Everything starts over at cuts and after
    flat frames. estimate: measures the flow.
    """

    def __init__(
        self,
        model: Stylizer,
        *,
        memory: float = 0.9,
        carried: float = 0.0,
        held: float = 0.0,
        estimate: Callable[[Tensor, Tensor], Tensor] = estimate_flow,
    ) -> None:
        self.model, self.carried, self.held, self.estimate = model, carried, held, estimate
        self.moments = SmoothedMoments(memory)
        self.usual = USUAL
        self.last: tuple[Tensor, Tensor] | None = None
        self.glance: tuple[Tensor, Tensor] | None = None  # a frame, and that small
        self.cuts = 0

    def paint(self, frame: Tensor, paint: Callable[[], Tensor]) -> Tensor:
        """Return the result for `frame`, (1, 3, H, W); `paint` paints it alone. Rounded to 8 bits."""
        if self.last is not None and self._is_cut(self.last[0], frame):
            self.cuts += 1
            self._start_over()
        elif self.last is not None and is_flat(self.last[0]):
            self._start_over()
        moved = self._moved(frame) if self.carried or self.held else None
        self.moments.begin()
        before = self.model.moments_of, self.model.start_from, self.model.more_terms
        self.model.moments_of = self.moments
        if moved is not None:
            self.model.start_from = torch.lerp(frame, moved[0], moved[1])
        if moved is not None and self.held:
            loss = TemporalLoss(*(part.to(self.model.device) for part in moved))
            self.model.more_terms = (*before[2], Term("temporal", "image", loss, self.held))
        try:
            result = paint()
        finally:
            self.model.moments_of, self.model.start_from, self.model.more_terms = before
        if moved is not None:
            result = torch.lerp(result, moved[0], self.carried * moved[1])
        result = result.mul(255).round().div(255)
        self.last = frame, result
        return result

    def _start_over(self) -> None:
        """Forget all frames; after a flat one, also the usual difference, because its shot had no movement."""
        if self.last is not None and is_flat(self.last[0]):
            self.usual = USUAL
        self.moments.forget()
        self.last = None

    def _moved(self, frame: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the last result moved to the present, and where that is reliable."""
        if self.last is None:
            return None
        earlier, result = self.last
        flow, back = self.estimate(frame, earlier), self.estimate(earlier, frame)
        return warp(result, flow, sharp=True).clamp(0, 1), trusted(flow, back)

    def _is_cut(self, before: Tensor, after: Tensor) -> bool:
        known = None if self.glance is None or self.glance[0] is not before else self.glance[1]
        earlier = resize(before, GLANCE, GLANCE) if known is None else known
        self.glance = after, resize(after, GLANCE, GLANCE)
        change = float((earlier - self.glance[1]).abs().mean())
        cut = change > max(CUT, CUT_RATIO * self.usual)
        self.usual = USUAL_MEMORY * self.usual + (1 - USUAL_MEMORY) * change
        return cut

    def state(self) -> dict[str, Tensor]:
        """Return what the next frames depend on, besides the last frame and its result."""
        tensors = {"usual": torch.tensor([self.usual], dtype=torch.float64), "cuts": torch.tensor([self.cuts])}
        for name, known in self.moments.known.items():
            tensors[f"{name}.count"] = torch.tensor([known.count], dtype=torch.float64)
            tensors[f"{name}.total"], tensors[f"{name}.products"] = known.total, known.products
        return tensors

    def restore(self, state: Mapping[str, Tensor], frame: Tensor, result: Tensor) -> None:
        """Continue after `frame` and its `result` with what `state` returned then."""
        self.usual = float(state["usual"][0])
        self.cuts = int(state["cuts"][0])
        names = [name.removesuffix(".count") for name in state if name.endswith(".count")]
        self.moments.known = {
            name: Moments(
                float(state[f"{name}.count"][0]),
                state[f"{name}.total"].to(self.model.device),
                state[f"{name}.products"].to(self.model.device),
            )
            for name in names
        }
        self.last = frame, result
