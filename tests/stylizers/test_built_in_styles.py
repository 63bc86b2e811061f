"""The styles that come with impasto: named works, small, unlike each other, and read by every method."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cli_support import QUICK, Outcome, Shell, make_picture
from impasto.cli.main import main
from impasto.errors import OptionError
from impasto.images.files import read_image, write_image
from impasto.methods.gatys import Gatys, GatysOptions
from impasto.methods.nnst import NNST, NNSTOptions
from impasto.methods.nnst_d import NNSTD, NNSTDOptions
from impasto.networks.backbone import SLIM_LAYERS
from impasto.networks.backbones import load_backbone
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import Style, built_in_styles, find_card, load_style, maps_kind, mix, moments_kind, recall
from tiny import LEARNING, METHODS, tiny

ROOT = Path(__file__).parents[2]
TABLE: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "tools" / "styles.toml").read_text(encoding="utf-8"))
CARDS = built_in_styles()
LAYERS = SLIM_LAYERS[1]
LAST_YEAR = 1954
ANY_STYLE = sorted(set(METHODS) - set(LEARNING))


@pytest.fixture(scope="module")
def cards() -> dict[str, Style]:
    return {name: load_style(path) for name, path in CARDS.items()}


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A folder with a photo and nothing else."""
    monkeypatch.chdir(tmp_path)
    write_image(make_picture(1), "photo.png")
    return Shell(tmp_path, capsys)


def stylize(shell: Shell, *words: str) -> Outcome:
    return shell.run("stylize", "photo.png", *words, *QUICK)


# --- what they are


def test_there_are_at_least_sixteen_in_under_7_mb() -> None:
    assert len(CARDS) >= 16
    assert sum(path.stat().st_size for path in CARDS.values()) < 7_000_000
    assert all(path.stat().st_size < 400_000 for path in CARDS.values())


def test_the_cards_are_those_of_the_table() -> None:
    assert sorted(CARDS) == sorted(TABLE)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_named_work_by_an_artist_who_died_long_ago(name: str, cards: dict[str, Style]) -> None:
    entry, info = TABLE[name], cards[name].info
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    for field in ("title", "artist", "years", "year"):
        assert info[field] == entry[field] != ""
    born, died = map(int, info["years"].split("–"))
    made = int(re.findall(r"\d{4}", info["year"])[-1])
    assert born < made <= died <= LAST_YEAR
    assert info["licence"] == "public domain"
    assert min(info["width"], info["height"]) >= 256


# --- what they hold


def test_they_hold_both_poolings_and_maps_of_the_shipped_backbone(cards: dict[str, Style]) -> None:
    kinds = [moments_kind(load_backbone(pooling=pooling)) for pooling in ("max", "average")]
    kinds.append(maps_kind(load_backbone()))
    kinds.append(kinds[1].replace("moments/", "places/"))
    for name, card in cards.items():
        assert list(card.kinds) == kinds, name
        for layer in LAYERS:
            one_pass, optimised = (recall(card.kinds[kind], layer) for kind in kinds[:2])
            coarse = recall(card.kinds[kinds[1]], layer, coarse=True)
            assert not torch.equal(coarse.mean, optimised.mean), name
            assert torch.equal(one_pass.mean, optimised.mean) is (layer == "relu1_1"), name
        maps = card.kinds[kinds[2]]
        assert all(maps[f"{layer}.map"].flatten(1).shape[1] <= 100 for layer in ("relu4_1", "relu5_1")), name


def test_covariances_are_covariances(cards: dict[str, Style]) -> None:
    """Their least eigenvalue is not below 0 by more than float32 leaves of a difference."""
    for name, card in cards.items():
        for style in (own for kind, own in card.kinds.items() if kind.startswith("moments/")):
            for layer in LAYERS:
                found = torch.linalg.eigvalsh(recall(style, layer).covariance[0].double())
                assert found[0] > -1e-6 * recall(style, layer).second[0].diagonal().max(), (name, layer)


def test_they_are_unlike_each_other(cards: dict[str, Style]) -> None:
    """Means and deviations over the five layers, in units of what all styles have there."""
    rows = {name: torch.cat([_described(card, layer) for layer in LAYERS]) for name, card in cards.items()}
    scale = torch.stack(list(rows.values())).std(0)
    for one, two in combinations(rows, 2):
        apart = ((rows[one] - rows[two]) / scale).square().mean()
        assert apart > 0.4, f"{one} and {two} are alike: {apart:.2f}"


def _described(card: Style, layer: str) -> Tensor:
    found = recall(card, layer)
    return torch.cat([found.mean[0], found.deviation()[0]])


# --- every method reads them


def shipped(name: str) -> Stylizer:
    """The tiny method of that name that takes itself to have the shipped backbone, whose numbers the cards hold."""
    method = tiny(name)
    if isinstance(method, Gatys):
        return Gatys(GatysOptions(steps=2, octaves=0))
    if isinstance(method, NNST):
        return NNST(NNSTOptions(steps=1, octaves=0, last_steps=1))
    if isinstance(method, NNSTD):
        return NNSTD(NNSTDOptions(precision="fp32"), network=method.network)
    network = method.backbone  # type: ignore[attr-defined]
    network.digest = load_backbone().digest
    return method


@pytest.mark.parametrize("name", ANY_STYLE)
def test_every_method_reads_every_card(name: str, cards: dict[str, Style], picture: Tensor) -> None:
    model = shipped(name)
    adopted = {title: model.accept_style(card) for title, card in cards.items()}
    for title, style in adopted.items():
        assert style.kind == model.style_kind
        assert style.info == cards[title].info
    one, two = cards["starry-night"], cards["tableau-no-2"]
    photo = picture[..., :32, :32]
    assert (model.stylize(photo, one) - model.stylize(photo, two)).abs().mean() > 1e-4
    both = mix([adopted["starry-night"], adopted["tableau-no-2"]])
    assert torch.equal(model.stylize(photo, one, two), model.transfer(photo, both))


@pytest.mark.parametrize("name", ANY_STYLE)
def test_a_method_over_another_network_refuses_them(name: str, cards: dict[str, Style]) -> None:
    with pytest.raises(OptionError, match=f"holds moments.* and maps.*, but {name} needs .*: name the painting itself"):
        tiny(name).accept_style(cards["starry-night"])


def test_gatys_reads_average_pooling_at_both_sizes(cards: dict[str, Style]) -> None:
    style = shipped("gatys").accept_style(cards["starry-night"])
    assert style.kind.endswith("/average")
    assert {f"half.{layer}.second" for layer in LAYERS} <= style.keys()


# --- the command line


def test_they_are_listed(shell: Shell) -> None:
    lines = shell.run("styles").good().out.splitlines()
    for name, entry in TABLE.items():
        message = f"{entry['artist']} ({entry['years']}), {entry['title']}, {entry['year']}"
        assert any(re.fullmatch(rf"{name} +{re.escape(message)}", line) for line in lines), name
    found = json.loads(shell.run("styles", "--json").good().out)
    assert [about["name"] for about in found] == list(CARDS)
    assert {"name", "title", "artist", "years", "year"} <= found[0].keys()


def test_a_photo_and_a_name_are_enough(shell: Shell) -> None:
    found = json.loads(stylize(shell, "--style", "starry-night", "-m", "gatys", "--json").good().out)
    assert found["output"] == "photo-starry-night.png"
    assert found["styles"][0]["style"] == "starry-night"
    assert read_image("photo-starry-night.png").shape == read_image("photo.png").shape


def test_a_run_is_repeated_from_its_record(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--style", "great-wave", "--style", "the-scream", "--style-weights", "2,1", "-m", "gatys")
    stylize(shell, *words, "-o", "a.png").good()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("great-wave").write_text("a file of that name is not the style")
    done = shell.run("stylize", "--recipe", "../a.png", "-o", "b.png", "--quiet").good()
    assert done.err == ""
    assert torch.equal(read_image("b.png"), read_image("../a.png"))


def test_a_style_that_has_changed_since_is_reported(shell: Shell) -> None:
    digest = "0" * 64
    recipe = {"method": "gatys", "content": "photo.png", "styles": [{"style": "great-wave", "sha256": digest}]}
    Path("old.json").write_text(json.dumps(recipe))
    done = shell.run("stylize", "--recipe", "old.json", "-o", "b.png", "--quiet", *QUICK).good()
    assert done.err == "warning: great-wave has changed since old.json was made\n"


def test_an_unknown_name_is_reported_with_the_known_ones(shell: Shell) -> None:
    done = stylize(shell, "--style", "mona-lisa")
    assert (done.code, done.out) == (2, "")
    assert "no style 'mona-lisa'" in done.err
    assert ", ".join(CARDS) in done.err
    assert shell.names() == {"photo.png"}


def test_a_photo_alone_gets_the_place_of_the_names(shell: Shell) -> None:
    done = stylize(shell)
    assert done.code == 2
    assert "one of those that `impasto styles` lists" in done.err


def test_a_name_is_a_card_for_show_and_in_python(shell: Shell) -> None:
    found = shell.run("style", "show", "great-wave", "--json").good().json
    assert found["info"]["artist"] == "Katsushika Hokusai"
    maps, places = (found["kind"].replace("moments/", kind) for kind in ("maps/", "places/"))
    assert found["others"] == [f"{found['kind']}/average", maps, f"{places}/average"]
    assert load_style("great-wave").info == found["info"]
    assert find_card("photo.png") == Path("photo.png")
    assert main(["style", "show", "mona-lisa"]) == 2
