"""Models as folders, on the hub and through torch.hub; nothing here needs a connection."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto import Stylizer, from_pretrained, load, push_to_hub, save_pretrained
from impasto.errors import WeightsError
from impasto.networks.backbone import SLIM_WIDTHS
from impasto.weights import save_weights
from tiny import painting, tiny_adain

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Stylizer:
    config = {"widths": SLIM_WIDTHS[:4], "levels": [4, 3, 2, 1]}
    save_weights(tiny_adain().decoder.state_dict(), tmp_path / "mine.safetensors", config)
    return load("adain", weights=str(tmp_path / "mine.safetensors"), precision="fp32")


def same(one: Stylizer, other: Stylizer, picture: Tensor) -> bool:
    return torch.equal(one.stylize(picture, painting()), other.stylize(picture, painting()))


def test_a_folder_gives_the_same_model(tmp_path: Path, model: Stylizer, picture: Tensor) -> None:
    folder = save_pretrained(model, tmp_path / "a" / "model")
    (tmp_path / "mine.safetensors").unlink()
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "weights.safetensors"]
    again = from_pretrained(folder)
    assert (again.name, again.digests) == ("adain", model.digests)
    assert same(again, model, picture)


def test_gatys_is_its_options(tmp_path: Path) -> None:
    folder = save_pretrained(load("gatys", style_weight=3, steps=7), tmp_path / "model")
    again = from_pretrained(folder, steps=9)
    assert (again.options.style_weight, again.options.steps) == (3, 9)  # type: ignore[attr-defined]


def test_the_card_says_what_it_is_and_where_it_comes_from(tmp_path: Path, model: Stylizer) -> None:
    card = (save_pretrained(model, tmp_path / "model") / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: impasto\n")
    assert "Huang & Belongie 2017" in card
    assert model.digests["adain"] in card
    assert "license: mit" not in card  # of weights that the package does not know, it says nothing
    assert "license: mit" in (save_pretrained(load("gatys"), tmp_path / "other") / "README.md").read_text()


def test_what_is_no_model_is_refused(tmp_path: Path, model: Stylizer) -> None:
    folder = save_pretrained(model, tmp_path / "model")
    config = folder / "config.json"
    whole = json.loads(config.read_text())
    config.write_text(json.dumps(whole | {"digests": {"adain": "0"}}))
    with pytest.raises(WeightsError, match="other weights"):
        from_pretrained(folder)
    outside = whole | {"options": whole["options"] | {"weights": "../mine.safetensors"}}
    config.write_text(json.dumps(outside))
    with pytest.raises(WeightsError, match=r"model/mine\.safetensors does not exist"):
        from_pretrained(folder)
    for text in ("[]", "{}", "no json", '{"options": 1, "digests": 2, "method": 3, "preset": 4}'):
        config.write_text(text)
        with pytest.raises(WeightsError, match="no model that impasto saved"):
            from_pretrained(folder)
    config.unlink()
    with pytest.raises(WeightsError, match="can't be read"):
        from_pretrained(folder)
    with pytest.raises(WeightsError, match="weights from no file"):
        save_pretrained(tiny_adain(), tmp_path / "random")
    assert not (tmp_path / "random").exists()


def test_the_hub_holds_the_same_folder(
    tmp_path: Path, model: Stylizer, picture: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    made: list[tuple[str, bool]] = []

    class Api:
        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            made.append((name, private))

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
            Path(folder_path).rename(hub / repo_id.replace("/", "-"))
            Path(folder_path).mkdir()
            return f"https://hub/{repo_id}"

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if revision == "gone":
            raise ValueError("no such revision\nand much more")
        return str(hub / name.replace("/", "-"))

    hub.mkdir()
    client = SimpleNamespace(HfApi=Api, snapshot_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)  # type: ignore[arg-type]
    assert push_to_hub(model, "me/oil", private=True) == "https://hub/me/oil"
    assert made == [("me/oil", True)]
    assert same(from_pretrained("me/oil"), model, picture)
    with pytest.raises(WeightsError, match=r"me/oil can't be had from the hub: no such revision$"):
        from_pretrained("me/oil", revision="gone")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"pip install 'impasto\[hub\]'"):
        from_pretrained("me/oil")


def test_torch_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    found: Any = torch.hub.load(str(ROOT), "stylizer", source="local", method="gatys", steps=3)
    assert (found.name, found.options.steps) == ("gatys", 3)
