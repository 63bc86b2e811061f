"""Our optimisers of an image take the steps that torch's do, and go on to the same bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from impasto.optimize.optimizers import LBFGS, Adam, Descent, Optimizer

MAKERS: dict[str, tuple[Callable[[Tensor], Optimizer], Callable[[Tensor], torch.optim.Optimizer]]] = {
    "lbfgs": (
        lambda x: LBFGS(x, 0.7, 3),
        lambda x: torch.optim.LBFGS([x], 0.7, 1, history_size=3, tolerance_grad=0, tolerance_change=0),
    ),
    "adam": (
        lambda x: Adam(x, 0.05, (0.8, 0.95), 1e-3),
        lambda x: torch.optim.Adam([x], 0.05, (0.8, 0.95), 1e-3),
    ),
    "gd": (lambda x: Descent(x, 0.02), lambda x: torch.optim.SGD([x], 0.02)),
}


def bowl(x: Tensor) -> Tensor:
    """Curved differently along every axis, and not a parabola."""
    weights = torch.linspace(0.1, 3, x.numel(), dtype=x.dtype)
    return (weights * (x.flatten() - 1).square()).sum() + 0.1 * x.pow(4).sum()


def evaluation(x: Tensor) -> Callable[[], float]:
    def evaluate() -> float:
        x.grad = None
        loss = bowl(x)
        loss.backward()
        return float(loss.detach())

    return evaluate


def begin() -> Tensor:
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return start.requires_grad_()


@pytest.mark.parametrize("name", MAKERS)
def test_twin(name: str) -> None:
    ours, theirs = MAKERS[name]
    x, y = begin(), begin()
    mine, twin = ours(x), theirs(y)
    for _ in range(12):
        loss = mine.step(evaluation(x))
        assert loss == pytest.approx(float(twin.step(evaluation(y))), rel=1e-10)  # type: ignore[arg-type]
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MAKERS)
def test_going_on(name: str) -> None:
    ours, _ = MAKERS[name]
    x = begin()
    whole = ours(x)
    for step in range(9):
        if step == 5:
            y = x.detach().clone().requires_grad_()
            tensors, numbers = whole.state()
            other = ours(y)
            other.restore({key: value.clone() for key, value in tensors.items()}, numbers)
        whole.step(evaluation(x))
        if step >= 5:
            other.step(evaluation(y))
    assert torch.equal(x, y)


def test_at_the_bottom_nothing_moves() -> None:
    x = torch.zeros(3, requires_grad=True)
    optimizer = LBFGS(x, 1.0, 5)
    for _ in range(3):
        x.grad = torch.zeros(3)
        optimizer.step(lambda: 0.0)
    assert torch.equal(x, torch.zeros(3))


def test_torchs_compiler_is_not_loaded() -> None:
    """It takes longer than many a picture."""
    code = (
        "import sys, torch; from impasto.optimize.descent import *\n"
        "for name in ('lbfgs', 'adam', 'gd'):\n"
        "    def objective(image): return {'sum': image.square().sum()}\n"
        "    optimize_image(objective, Pixels(torch.rand(1, 3, 4, 4)), Settings(2, name))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"]
