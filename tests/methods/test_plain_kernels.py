"""With torch's kernels alone every method paints the same pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from impasto.methods import list_methods, load
from impasto.ops.cpu_kernels import describe_kernels
from impasto.ops.machine import KERNELS
from impasto.stylizers.fixed_styles import LearnedStyles
from tiny import painting, styles_for, tiny

SHIPPED = ["adain", "conditional_norm", "johnson", "metanet", "sanet", "stylebank", "swift", "wct"]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernels of our own; a call of oneDNN's fused ones fails."""
    monkeypatch.setattr(KERNELS, "special", False)
    if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", lambda *given: pytest.fail("called"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_methods(name: str, precision: str, request: pytest.FixtureRequest) -> None:
    model = load(name, precision=precision)
    photo = painting(144, 176, seed=3)
    style = next(iter(model.learned.values())) if isinstance(model, LearnedStyles) else painting(100, 100)
    wanted = model.stylize(photo, style)
    request.getfixturevalue("plain")
    error = (load(name, precision=precision).stylize(photo, style) - wanted).square().mean()
    assert error <= (1e-7 if precision == "fp32" else 1e-4)  # 70 and 40 dB


@pytest.mark.parametrize("name", list_methods())
def test_tiny_methods(name: str, picture: Tensor, request: pytest.FixtureRequest) -> None:
    wanted = tiny(name).stylize(picture, styles_for(tiny(name))[0])
    request.getfixturevalue("plain")
    model = tiny(name)
    assert (model.stylize(picture, styles_for(model)[0]) - wanted).square().mean() <= 1e-5


def test_the_doctor_knows_what_is_in_use(request: pytest.FixtureRequest) -> None:
    assert describe_kernels() != "torch's alone"
    request.getfixturevalue("plain")
    assert describe_kernels() == "torch's alone"
