"""ONNX files give PyTorch's pictures, at any size."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from impasto.cli.main import main
from impasto.errors import ImpastoError
from impasto.methods import load
from impasto.runs import onnx_export
from impasto.runs.onnx_export import export_onnx
from impasto.stylizers.one_pass import OnePass
from tiny import narrow, painting


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adain", "sanet", "metanet"])
def test_onnx_runtime_gives_the_same_picture_at_any_size(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = load(name, precision="fp32")  # random weights would blow up what is rounded
    assert isinstance(model, OnePass)
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    for size in ((48, 64), (97, 131), (133, 80)):
        content, style = painting(*size, seed=2), painting(50, 70)
        (found,) = session.run(["picture"], {"content": content.numpy(), "style": style.numpy()})
        wanted = model.transfer(content, model.encode_style(style))
        assert (torch.from_numpy(found) - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["adain", "sanet", "metanet", "swift"])
def test_the_plain_way_is_the_methods(name: str) -> None:
    model = narrow(name, double=True)
    assert isinstance(model, OnePass)
    content, style = painting(97, 131, seed=2), painting(50, 70)
    with torch.no_grad():
        found = model.forward_for_export(content, style)
    assert (found - model.transfer(content, model.encode_style(style))).abs().max() <= 1e-5


def test_without_onnx_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow("adain")
    assert isinstance(model, OnePass)
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(ImpastoError, match=r"export needs onnx and onnxscript: pip install 'impasto\[onnx\]'"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def decibels(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Peak signal to noise."""
    return -10 * math.log10(float((found - wanted).square().mean()))


@pytest.mark.parametrize("weights", ["random", "shipped"])
def test_wcts_plain_way_needs_no_eigenvectors(weights: str) -> None:
    model = narrow("wct") if weights == "random" else load("wct", precision="fp32")
    assert isinstance(model, OnePass)
    style = painting(70, 90)
    known = model.encode_style(style)
    for size in ((48, 64), (61, 97), (128, 80)):  # in the smallest one there are fewer positions than channels
        content = painting(*size, seed=2)
        with torch.no_grad():
            found = model.forward_for_export(content, style)
        assert decibels(found, model.transfer(content, known)) > 40


@pytest.mark.slow
def test_wct_by_onnx_runtime_is_all_but_the_same_picture(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = load("wct", precision="fp32")
    assert isinstance(model, OnePass)
    export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    for size in ((48, 64), (97, 131), (133, 80)):
        content, style = painting(*size, seed=2), painting(50, 70)
        (found,) = session.run(["picture"], {"content": content.numpy(), "style": style.numpy()})
        wanted = model.transfer(content, model.encode_style(style))
        assert decibels(torch.from_numpy(found), wanted) > 40


def test_wcts_other_transform_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("wct", transform="zca")
    assert isinstance(model, OnePass)
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: sys)
    with pytest.raises(ImpastoError, match="zca needs eigenvectors"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "gatys", "out.onnx"], "gatys can't be written as ONNX"),
        (["-m", "adain"], "name one file to write"),
        (["-m", "adain", "out.png"], "name a file that ends in .onnx"),
        (["-m", "adain", "out.onnx", "--hat", "red"], "adain has no option --hat"),
    ],
)
def test_mistakes_are_reported_in_a_line(
    words: list[str], message: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_swift_is_written_as_two_graphs_and_the_styles_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip("onnx")
    model = narrow("swift")
    monkeypatch.setattr("impasto.methods.load", lambda *words, **options: model)
    monkeypatch.setattr("impasto.server.browser_files.built_in_styles", dict)
    assert main(["export", str(tmp_path / "swift"), "-m", "swift"]) == 0
    names = ["paint.onnx", "style.onnx", "styles.json"]
    assert sorted(path.name for path in (tmp_path / "swift").iterdir()) == names
    assert main(["export", str(tmp_path / "swift"), "-m", "swift"]) == 2
    assert "holds files already; use --force" in capsys.readouterr().err


def test_what_the_page_uses_is_written_with_pictures_of_the_styles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    from impasto.server import browser_files

    model = narrow("swift")
    monkeypatch.setattr(browser_files, "list_styles", lambda model: [{"name": "one", "numbers": [0.5]}])
    monkeypatch.setattr(browser_files, "paint", lambda model, photo, name: photo)
    names = browser_files.write_browser_files(model, tmp_path / "models")
    assert {"kernels.onnx", "network.onnx", "style.onnx", "models.json", "example.jpg", "styles/one.jpg"} <= {*names}
    about = json.loads((tmp_path / "models" / "models.json").read_text())
    assert about["styles"] == [{"name": "one", "numbers": [0.5], "picture": "styles/one.jpg"}]
    assert about["network"]["normed"] == sum(model.network.template.normed)
