"""The optimisers of an image: L-BFGS, Adam and plain gradient descent over one tensor, with a state that can be kept.

They take the steps that torch's own do. Those load torch's compiler, which takes longer than many a picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

LEAST_CURVATURE = 1e-10
"""A change of the gradient along a step that is no larger tells nothing about curvature (torch's number)."""

State = tuple[dict[str, Tensor], dict[str, float]]
"""Tensors and numbers by name."""


class Optimizer(ABC):
    """Moves `parameter` by its gradient, by steps of size `rate`."""

    def __init__(self, parameter: Tensor, rate: float) -> None:
        self.parameter, self.rate = parameter, rate

    @torch.no_grad()
    def step(self, evaluate: Callable[[], float]) -> float:
        """Let `evaluate` set the gradient and return the loss, move once, and return that loss."""
        with torch.enable_grad():
            loss = evaluate()
        assert self.parameter.grad is not None
        self.move(self.parameter.grad)
        return loss

    @abstractmethod
    def move(self, gradient: Tensor) -> None:
        """Move the parameter once."""

    @abstractmethod
    def state(self) -> State:
        """Return what `restore` needs to go on to the same bits."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Go on where `state` was taken."""


class Descent(Optimizer):
    """Plain gradient descent."""

    def move(self, gradient: Tensor) -> None:
        """Go down the gradient."""
        self.parameter.add_(gradient, alpha=-self.rate)

    def state(self) -> State:
        """It needs nothing."""
        return {}, {}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """It needs nothing."""


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), bias-corrected; epsilon is added to the corrected root."""

    def __init__(self, parameter: Tensor, rate: float, betas: tuple[float, float], epsilon: float) -> None:
        super().__init__(parameter, rate)
        self.betas, self.epsilon, self.count = betas, epsilon, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def move(self, gradient: Tensor) -> None:
        """Go by the running mean of gradients over the root of that of their squares."""
        first, second = self.betas
        self.count += 1
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (self.square.sqrt() / (1 - second**self.count) ** 0.5).add_(self.epsilon)
        self.parameter.addcdiv_(self.mean, root, value=-self.rate / (1 - first**self.count))

    def state(self) -> State:
        """Both means and the number of steps."""
        return {"mean": self.mean, "square": self.square}, {"count": self.count}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Go on where `state` was taken."""
        self.mean, self.square, self.count = tensors["mean"], tensors["square"], int(numbers["count"])


class LBFGS(Optimizer):
    """L-BFGS (Liu & Nocedal 1989) without line search; its first step moves no further than `rate`, summed over all.

    history: how many steps are remembered; each takes two tensors like the parameter.
    """

    def __init__(self, parameter: Tensor, rate: float, history: int) -> None:
        super().__init__(parameter, rate)
        self.history = history
        self.gradient: Tensor | None = None
        self.moved: Tensor | None = None
        self.steps: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.curvatures: list[float] = []
        self.scale = 1.0

    def move(self, gradient: Tensor) -> None:
        """Go down the gradient, as far as the curvature of the steps before says."""
        gradient = gradient.flatten().clone()
        if not gradient.any():
            return
        if self.gradient is not None and self.moved is not None:
            self._remember(self.moved, gradient - self.gradient)
        direction = self._direction(gradient)
        first = self.gradient is None
        size = self.rate * min(1.0, 1 / float(gradient.abs().sum())) if first else self.rate
        self.gradient, self.moved = gradient, None
        if not float(gradient @ direction) > 0:  # not a number moves as well, so that it is noticed
            self.moved = direction.mul_(size)
            self.parameter.add_(self.moved.view_as(self.parameter))

    def _remember(self, step: Tensor, change: Tensor) -> None:
        curvature = float(change @ step)
        if curvature <= LEAST_CURVATURE:
            return
        for known, new in ((self.steps, step), (self.changes, change), (self.curvatures, curvature)):
            known[:] = [*known, new][-self.history :]
        self.scale = curvature / float(change @ change)

    def _direction(self, gradient: Tensor) -> Tensor:
        """Minus the gradient times the inverse curvature, by the two-loop recursion."""
        direction = -gradient
        pairs = list(zip(self.changes, self.steps, self.curvatures, strict=True))
        shares = []
        for change, step, curvature in reversed(pairs):
            shares.append(float(step @ direction) / curvature)
            direction.add_(change, alpha=-shares[-1])
        direction.mul_(self.scale)
        for (change, step, curvature), share in zip(pairs, reversed(shares), strict=True):
            direction.add_(step, alpha=share - float(change @ direction) / curvature)
        return direction

    def state(self) -> State:
        """Steps and changes of the gradient, the last gradient and the last step."""
        tensors = {f"step.{i}": step for i, step in enumerate(self.steps)}
        tensors |= {f"change.{i}": change for i, change in enumerate(self.changes)}
        last = {"gradient": self.gradient, "moved": self.moved}
        numbers = {f"curvature.{i}": curvature for i, curvature in enumerate(self.curvatures)}
        found = {name: value for name, value in last.items() if value is not None}
        return tensors | found, numbers | {"scale": self.scale}

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
        """Go on where `state` was taken."""
        count = sum(name.startswith("step.") for name in tensors)
        self.steps = [tensors[f"step.{i}"] for i in range(count)]
        self.changes = [tensors[f"change.{i}"] for i in range(count)]
        self.curvatures = [numbers[f"curvature.{i}"] for i in range(count)]
        self.gradient, self.moved = tensors.get("gradient"), tensors.get("moved")
        self.scale = numbers["scale"]
