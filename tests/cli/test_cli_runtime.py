"""`--runtime auto`: what doctor stored is taken where it holds, torch otherwise, and the run record says which."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cli_support import Shell, make_backbone, open_shell, use_one_thread
from impasto.feedforward import runtimes
from impasto.networks.layers import StepDecoder
from impasto.runs import runtime_choice
from impasto.runs.runtime_choice import quickest, recall, store
from impasto.weights import save_weights

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
WIDTHS = [8, 8, 8, 128]
SECONDS = {"torch bf16": 3.0, "torch fp32": 6.0, "onnxruntime fp32": 4.0, "openvino bf16": 2.0, "openvino fp32": 5.0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "impasto" / "runtimes.json"


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    config = {"widths": WIDTHS, "levels": [4]}
    save_weights(StepDecoder(WIDTHS).state_dict(), tmp_path / "adain.safetensors", config)
    return open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)


def test_the_quickest_in_the_precision_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_choice, "installed", lambda name: True)
    assert quickest(SECONDS) == "openvino"
    assert quickest(SECONDS, "bf16") == "openvino"
    assert quickest(SECONDS, "fp32") == "onnxruntime"
    assert quickest({"torch fp32": 1.0}, "bf16") == quickest({}) == "torch"
    monkeypatch.setattr(runtime_choice, "installed", lambda name: name != "openvino")
    assert quickest(SECONDS) == "torch"


@pytest.mark.parametrize(
    "change", [lambda: {"versions": {}}, lambda: {"cpu": ["another", "AVX2", 4, 1]}], ids=["versions", "processor"]
)
def test_times_hold_for_the_same_surroundings(
    change: Callable[[], dict[str, object]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recall() == {}
    store(SECONDS)
    assert recall() == SECONDS
    surroundings = runtime_choice.surroundings() | change()
    monkeypatch.setattr(runtime_choice, "surroundings", lambda: surroundings)
    assert recall() == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": {"torch fp32": "fast"}}', '{"seconds": 3}'])
def test_a_broken_cache_counts_for_nothing(text: str, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert recall() == {}


def test_a_cache_that_can_not_be_written_is_no_error(cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file")
    store(SECONDS)
    assert recall() == {}


def test_torch_runs_what_the_quickest_can_not() -> None:
    store({"onnxruntime fp32": 1.0})
    refused: list[str] = []

    def refuse(name: str) -> None:
        refused.append(name)
        runtimes.switch(SimpleNamespace(), name, half=False)

    options = SimpleNamespace(precision="auto")
    for kind in ("cpu", "meta"):
        model = SimpleNamespace(device=torch.device(kind), options=options, use_runtime=refuse, name="model")
        runtime_choice.use_quickest(model)  # type: ignore[arg-type]
    assert refused in (["onnxruntime"], ["torch"])  # asked once: on another device torch is not even left


@pytest.mark.parametrize("best", ["torch", "onnxruntime"])
def test_the_record_says_which_runtime_ran(best: str, shell: Shell) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    store({f"{best} fp32": 1.0})
    words = ("photo.png", "sea.png", "-m", "adain", "--weights", "adain.safetensors", "--precision", "fp32")
    found = shell.run("stylize", *words, "--runtime", "auto", "-o", "out.jpg", "--json").good().json
    assert found["runtime"] == best
    assert json.loads(Path("out.jpg.json").read_text())["runtime"] == best
