"""The engine that optimises an image: gatys, and every recipe that looks into a network, runs on it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError, is_out_of_memory
from impasto.images.tensors import resize
from impasto.optimize.interruption import BEGINNING, Keep, Keeper, TornStep, whole_steps
from impasto.optimize.optimizers import LBFGS, Adam, Descent, Optimizer
from impasto.progress import OnStep, Step, ignore
from impasto.weights.checkpoints import Checkpoint, State

OptimizerName = Literal["lbfgs", "adam", "gd"]
RETRIES = 5

log = logging.getLogger(__name__)


class ImageParameter(nn.Module):
    """The optimised image; a call returns it, (B, 3, H, W)."""

    def forward(self) -> Tensor:
        """Return the image that the parameters stand for."""
        raise NotImplementedError("an ImageParameter says which image it stands for")

    def project(self) -> None:
        """Move the parameters back into the allowed range, after a step."""


class Pixels(ImageParameter):
    """Plain pixels, optionally in a backbone's normalised space and optionally clamped to [0, 1] after every step.

    image: (B, 3, H, W) in [0, 1]; mean, std: (1, 3, 1, 1) of the space in which the optimiser works.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, image: Tensor, *, mean: Tensor | None = None, std: Tensor | None = None, clamp: bool = True
    ) -> None:
        super().__init__()
        self.register_buffer("mean", image.new_zeros(1, 3, 1, 1) if mean is None else mean.to(image))
        self.register_buffer("std", image.new_ones(1, 3, 1, 1) if std is None else std.to(image))
        self.clamp = clamp
        self.values = nn.Parameter(((image - self.mean) / self.std).detach().clone())

    def forward(self) -> Tensor:
        """Return the image, (B, 3, H, W)."""
        return self.values * self.std + self.mean

    @torch.no_grad()
    def project(self) -> None:
        """Clamp the image to [0, 1], if requested."""
        if self.clamp:
            self.values.copy_((self().clamp(0, 1) - self.mean) / self.std)


class ImageTerms(Protocol):
    """The objective: named terms of an image, whose sum is minimised."""

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Return each term of `image`."""


@dataclass(frozen=True)
class Settings:
    """Settings of an optimiser. steps: evaluations of the objective, also for L-BFGS.

    decay: factor of the learning rate every `decay_every` steps; average: decay of a bias-corrected running mean of the
    images, which is the result (0: the last image); history: L-BFGS's memory.
    """

    steps: int = 100
    optimizer: OptimizerName = "lbfgs"
    learning_rate: float = 1.0
    decay: float = 1.0
    decay_every: int = 50
    betas: tuple[float, float] = (0.9, 0.99)
    epsilon: float = 1e-8
    average: float = 0.0
    history: int = 20


@dataclass
class Result:
    """An optimised image, (B, 3, H, W) in [0, 1], the loss' terms at every step, and whether it was interrupted."""

    image: Tensor
    losses: list[dict[str, float]] = field(default_factory=list)
    interrupted: bool = False


class Average:
    """Bias-corrected running mean: after one update it is exactly the first value."""

    def __init__(self, decay: float) -> None:
        self.decay, self.count, self.mean = decay, 0, None

    mean: Tensor | None

    def update(self, value: Tensor) -> None:
        """Add `value`, detached."""
        value = value.detach()
        self.count += 1
        share = (1 - self.decay) / (1 - self.decay**self.count)
        self.mean = value.clone() if self.mean is None else torch.lerp(self.mean, value, share)

    def value(self) -> Tensor:
        """Return the mean so far; needs one update."""
        assert self.mean is not None
        return self.mean


def optimize_image(
    objective: ImageTerms,
    parameter: ImageParameter,
    settings: Settings,
    *,
    augment: Callable[[Tensor], Tensor] | None = None,
    on_step: OnStep = ignore,
    state: State | None = None,
    keep: Keep | None = None,
) -> Result:
    """Change `parameter` until `objective` of its image is small.

    augment: applied to the image before the objective (jitter, crops). If a loss is not finite, the run returns to the
    best image with half the learning rate, at most five times; then it raises ImpastoError. KeyboardInterrupt ends the
    run early and keeps the best image. If memory runs out and `objective` has a method ``shrink``, that method is
    called and the step is repeated. keep: gets the run's state after every step, and when the run is interrupted; an
    interrupted step is finished first. state: the state to resume from.
    """
    run = _Descent(objective, parameter, settings, augment)
    if state is not None:
        run.restore(state)
    try:
        while len(run.losses) < settings.steps:
            with whole_steps(keep is not None):
                terms = run.step()
            if terms is not None:
                on_step(Step(len(run.losses), settings.steps, terms, run.picture))
                if keep is not None:
                    keep(run.state)
    except KeyboardInterrupt as interruption:
        if keep is not None and not isinstance(interruption, TornStep):
            keep(run.state, now=True)
        return Result(run.best_picture(), run.losses, interrupted=True)
    return Result(run.picture(), run.losses)


class _Descent:
    """One run of an optimiser over one image parameter."""

    def __init__(
        self,
        objective: ImageTerms,
        parameter: ImageParameter,
        settings: Settings,
        augment: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.objective, self.parameter, self.settings, self.augment = objective, parameter, settings, augment
        self.losses: list[dict[str, float]] = []
        self.retries = 0
        self.rate = settings.learning_rate
        self.best_loss = math.inf
        self.best = self._snapshot()
        self.average = Average(settings.average) if settings.average else None
        self.optimizer = self._make_optimizer()

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.parameter.state_dict().items()}

    def _make_optimizer(self) -> Optimizer:
        (values,), settings = self.parameter.parameters(), self.settings
        if settings.optimizer == "adam":
            return Adam(values, self.rate, settings.betas, settings.epsilon)
        if settings.optimizer == "gd":
            return Descent(values, self.rate)
        return LBFGS(values, self.rate, settings.history)

    def step(self) -> dict[str, float] | None:
        """Evaluate and move once; None if the loss was not finite and the run went back."""
        self.optimizer.rate = self.rate * self.settings.decay ** (len(self.losses) // self.settings.decay_every)
        seen: dict[str, float] = {}
        before = self._snapshot()
        begin = getattr(self.objective, "begin", None)
        if begin is not None:
            begin(len(self.losses))

        def closure() -> float:
            self.parameter.zero_grad()
            image = self.parameter()
            terms = self.objective(self.augment(image) if self.augment else image)
            loss = torch.stack(list(terms.values())).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            seen.update({name: float(term.detach()) for name, term in terms.items()})
            return float(loss.detach())

        shrink = getattr(self.objective, "shrink", None)
        loss: float | None = None
        try:
            loss = self.optimizer.step(closure)
        except Exception as error:
            if shrink is None or not is_out_of_memory(error):
                raise
        if loss is None and shrink is not None:  # outside the handler, whose traceback holds the memory
            self.parameter.zero_grad()
            shrink()
        if loss is None:
            return None
        if not math.isfinite(loss) or not self._finite():
            self._go_back()
            return None
        if loss < self.best_loss:
            self.best_loss, self.best = loss, before
        self.parameter.project()
        if self.average:
            self.average.update(self.parameter())
        self.losses.append(seen)
        return seen

    def state(self) -> State:
        """Return what `restore` needs to continue with the same bits."""
        tensors = {f"parameter.{name}": value for name, value in self.parameter.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        if self.average and self.average.mean is not None:
            tensors["average"] = self.average.mean
        kept, numbers = self.optimizer.state()
        tensors |= {f"optimizer.{name}": value for name, value in kept.items()}
        best = self.best_loss if math.isfinite(self.best_loss) else None
        count = self.average.count if self.average else 0
        values = {"losses": self.losses, "retries": self.retries, "rate": self.rate, "best": best, "average": count}
        return tensors, {**values, "optimizer": numbers}

    def restore(self, state: State) -> None:
        """Continue from a `state` of the same run."""
        tensors, values = state
        here = next(self.parameter.parameters()).device

        def under(prefix: str) -> dict[str, Any]:
            return {k.removeprefix(prefix): v.to(here) for k, v in tensors.items() if k.startswith(prefix)}

        self.parameter.load_state_dict(under("parameter."))
        self.best = under("best.")
        self.losses, self.retries, self.rate = list(values["losses"]), values["retries"], values["rate"]
        self.best_loss = math.inf if values["best"] is None else values["best"]
        if self.average:
            self.average.count, self.average.mean = values["average"], under("average").get("")
        self.optimizer = self._make_optimizer()
        self.optimizer.restore(under("optimizer."), values["optimizer"])

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(value).all()) for value in self.parameter.parameters())

    def _go_back(self) -> None:
        self.retries += 1
        self.parameter.load_state_dict(self.best)
        if self.retries > RETRIES:
            raise ImpastoError(
                "the optimisation diverged and smaller steps did not help: lower --learning-rate or --style-weight"
            )
        self.rate *= 0.5
        self.optimizer = self._make_optimizer()

    @torch.no_grad()
    def picture(self) -> Tensor:
        """Return the image as it is now, or the running mean, clamped to [0, 1]."""
        image = self.average.value() if self.average and self.average.count else self.parameter()
        return image.detach().clamp(0, 1)

    @torch.no_grad()
    def best_picture(self) -> Tensor:
        """Return the image with the smallest loss so far, clamped to [0, 1]."""
        if self.average and self.average.count:
            return self.picture()
        self.parameter.load_state_dict(self.best)
        best: Tensor = self.parameter().detach().clamp(0, 1)
        return best


@dataclass(frozen=True)
class Scale:
    """One stage of `coarse_to_fine`: the picture's size and the optimiser's settings."""

    height: int
    width: int
    settings: Settings


def coarse_to_fine(
    scales: Sequence[Scale],
    start: Tensor,
    objective_at: Callable[[Scale, Tensor], ImageTerms],
    parameter_of: Callable[[Tensor], ImageParameter] = Pixels,
    *,
    enlarge: Callable[[Tensor, int, int], Tensor] = resize,
    on_step: OnStep = ignore,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Optimise at each of `scales` in turn, each starting from the enlarged result before it.

    start: (B, 3, H, W), resized to the first scale. Large shapes settle where steps are cheap; the fine scale only adds
    fine texture. enlarge: resizes a picture to a height and width. `on_step` counts over all scales. objective_at:
    makes the objective of a scale from the picture with which it begins. checkpoint: where the state is kept, and from
    which an earlier run resumes.
    """
    first, state = (checkpoint.load() if checkpoint else None) or (0, None)
    total, done = sum(scale.settings.steps for scale in scales), 0
    result = Result(start)
    losses: list[dict[str, float]] = []
    keep: Keeper | None = None
    for number, scale in enumerate(scales):
        if number < first:
            done += scale.settings.steps
            continue
        image = enlarge(result.image, scale.height, scale.width)
        if state is not None and number == first:
            image = state[0].pop(BEGINNING).to(image)
        before, keep = keep, Keeper(checkpoint, number, image) if checkpoint else None

        def report(step: Step, done: int = done) -> None:
            on_step(Step(done + step.index, total, step.terms, step.image))

        goes_on = state if number == first else None
        if goes_on is not None:
            log.info("going on after %d of %d steps", done + len(goes_on[1]["losses"]), total)
        try:
            objective = objective_at(scale, image)
        except KeyboardInterrupt:
            if before is None or not before.keep_last():
                raise
            result = Result(result.image, interrupted=True)
            break
        before = None  # frees the memory of the last scale's optimiser
        result = optimize_image(
            objective, parameter_of(image), scale.settings, on_step=report, state=goes_on, keep=keep
        )
        losses += result.losses
        done += scale.settings.steps
        if result.interrupted:
            break
    last = scales[-1]
    return Result(enlarge(result.image, last.height, last.width), losses, result.interrupted)


def noise_like(image: Tensor, deviation: float, seed: int) -> Tensor:
    """Return grey noise of the size of `image`, in [0, 1]."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (0.5 + deviation * noise).clamp(0, 1).to(image)


TIMED = 4
"""Number of steps by which the time of all steps is estimated."""


def seconds_of_steps(run: Callable[[OnStep], object], pixels: int, scales: Iterable[Scale]) -> float:
    """Return about how many seconds an optimisation at `scales` takes, from a few steps on a small picture.

    run: optimises a picture of so many `pixels` with the given `on_step`, which ends it early. Returns 0 if it takes
    fewer than two steps.
    """
    times: list[float] = []

    def note(step: Step) -> None:
        times.append(time.perf_counter())
        if len(times) == TIMED:
            raise KeyboardInterrupt  # ends the optimisation

    run(note)
    if len(times) < 2:
        return 0.0
    rate = (times[-1] - times[0]) / (len(times) - 1) / pixels
    return rate * sum(scale.height * scale.width * scale.settings.steps for scale in scales)
