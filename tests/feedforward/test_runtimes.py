"""Other runtimes give torch's pictures: cards, mixtures, masks and tiles included."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from impasto.errors import ImpastoError, OptionError
from impasto.feedforward import runtimes
from impasto.feedforward.runtimes import (
    RUNTIMES,
    Chain,
    ChainBackbone,
    check_runtime,
    installed,
    open_session,
    openvino_has_bf16,
    run,
    write_graph,
)
from impasto.feedforward.tiled_run import Tiling
from impasto.methods import load
from impasto.networks.backbone import slim_backbone
from impasto.networks.layers import Conv, DecoderStep
from impasto.networks.receptive_field import leaves
from impasto.stylizers.one_pass import OnePass
from tiny import lively, painting, tiny

pytest.importorskip("onnx")
CPU = torch.device("cpu")
ALONE = "IMPASTO_TEST_OPENVINO"
"""Set where OpenVINO is tested: a process in which it has worked crashes when torch trains in it later."""


def missing(name: str) -> bool:
    return not installed(name) or (name == "openvino" and ALONE not in os.environ)


OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(missing(name), reason=f"{name} is not installed, or tested elsewhere"))
    for name in RUNTIMES[1:]
]
LAYERS: dict[str, nn.Module] = {
    "repeated edges": Conv(3, 5, 5),
    "mirrored edges": Conv(3, 5, mirror=True, stride=2),
    "zeros at the edge": nn.Conv2d(3, 6, (3, 5), padding=(1, 2), dilation=1, groups=3, bias=False),
    "pooling": nn.MaxPool2d(3, stride=2, padding=1),
    "average": nn.AvgPool2d(2),
    "doubling": nn.Upsample(scale_factor=2),
    "relu": nn.Sequential(nn.ReLU(), nn.Identity(), nn.Dropout()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_layer_has_its_counterpart(name: str) -> None:
    for what, layer in LAYERS.items():
        chain = nn.Sequential(nn.Conv2d(3, 3, 1), layer).eval()
        session = open_session(write_graph(chain, {}), name, half=False)
        for size in ((17, 20), (24, 9)):
            x = torch.randn(1, 3, *size)
            assert_close(run(session, x)[0], chain(x).detach(), atol=1e-5, rtol=1e-5, msg=lambda m, what=what: what + m)


@pytest.mark.parametrize("name", OTHERS)
def test_a_decoders_step(name: str) -> None:
    for step in (DecoderStep(12, 8, 2), DecoderStep(8, 3, 0), DecoderStep(8, 6, 1, mirror=True)):
        lively(step)
        x = torch.randn(1, step.first.in_channels, 9, 14)
        found = Chain(step, name, half=False)
        assert_close(found(x), step(x).detach(), atol=1e-4, rtol=1e-4)
        assert found.path() == list(leaves([step]))


@pytest.mark.parametrize("name", OTHERS)
def test_a_backbone_by_any_layers(name: str) -> None:
    backbone = lively(slim_backbone(heads=True)).eval()
    found = ChainBackbone(backbone, name, half=False)
    image = painting(40, 50)
    for layers in (["relu2_1"], ["relu5_1", "relu1_1"], ["image"], ["relu3_1", "image"]):
        wanted = {layer: value.detach() for layer, value in backbone(image, layers).items()}
        assert_close(found(image, layers), wanted, atol=1e-3, rtol=1e-3)
    assert (found.name, found.digest, found.least_side) == (backbone.name, backbone.digest, backbone.least_side)
    assert found.path("relu3_1")[-1] is backbone.heads["relu3_1"]
    with pytest.raises(OptionError, match="at least 16 px"):
        found(painting(8, 8), ["relu1_1"])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("method", ["wct", "adain", "sanet"])
def test_the_shipped_methods(method: str, name: str) -> None:
    plain, other = load(method, precision="fp32"), load(method, precision="fp32", runtime=name)
    assert other.runtime == name
    assert isinstance(other, OnePass)
    photo, mask = painting(70, 86, seed=2), torch.zeros(1, 1, 70, 86)
    mask[..., :50] = 1
    styles = [plain.encode_style(painting()), painting(40, 52, seed=6)]
    for options in ({}, {"strength": 0.6}, {"weights": [1, 3], "masks": [mask]}):
        own = styles if "weights" in options else styles[:1]
        wanted = plain.stylize(photo, *own, **options)  # type: ignore[arg-type]
        assert (other.stylize(photo, *own, **options) - wanted).abs().max() <= 1e-3  # type: ignore[arg-type]
    other.tiling = Tiling(48, 0)
    assert (other.stylize(photo, styles[0]) - plain.stylize(photo, styles[0])).abs().max() <= 1e-3


@pytest.mark.skipif(not installed("openvino") or ALONE in os.environ, reason="no OpenVINO, or this is its process")
def test_openvino_in_a_process_of_its_own() -> None:
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "openvino", __file__]
    done = subprocess.run(words, env={**os.environ, ALONE: "yes"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(missing("openvino"), reason="no OpenVINO, or tested elsewhere")
def test_openvino_works_in_bfloat16() -> None:
    if not openvino_has_bf16():
        with pytest.raises(OptionError, match="openvino can't work in bf16 on this processor"):
            load("adain", precision="bf16", runtime="openvino")
        return
    photo, style = painting(70, 86, seed=2), painting()
    found = load("adain", precision="bf16", runtime="openvino").stylize(photo, style)
    error = (found - load("adain", precision="fp32").stylize(photo, style)).square().mean()
    assert found.dtype == torch.float32
    assert -10 * error.log10() >= 40
    half = load("adain", precision="bf16", runtime="openvino")
    flat = torch.full((1, 3, 48, 64), 0.5)
    wanted = load("adain", precision="fp32", runtime="openvino").stylize(flat, style)
    assert (half.stylize(flat, style) - wanted).abs().max() <= 1 / 255  # in bfloat16 it would be noise


def test_mistakes_are_reported_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="there is no runtime 'magic'; there are: torch, onnxruntime, openvino"):
        load("adain", runtime="magic")
    with pytest.raises(OptionError, match="gatys is run by torch alone"):
        tiny("gatys").use_runtime("openvino")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"--runtime openvino needs it: pip install 'impasto\[openvino\]'"):
        check_runtime("openvino", CPU, "fp32")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: object())
    with pytest.raises(OptionError, match="works on the CPU here, not on cuda"):
        check_runtime("openvino", torch.device("cuda"), "fp32")
    with pytest.raises(OptionError, match="works in fp32"):
        check_runtime("onnxruntime", CPU, "bf16")
    with pytest.raises(OptionError, match="run by torch alone"):
        runtimes.switch(SimpleNamespace(), "onnxruntime", half=False)
    with pytest.raises(ImpastoError, match="PixelShuffle"):
        write_graph([nn.Conv2d(3, 4, 1), nn.PixelShuffle(2)], {})


def test_out_of_memory_is_known_as_such() -> None:
    def fail(x: Any) -> Any:
        raise RuntimeError("bad_alloc: Failed to allocate memory for requested buffer")

    with pytest.raises(MemoryError):
        run(fail, torch.rand(1, 3, 4, 4))
