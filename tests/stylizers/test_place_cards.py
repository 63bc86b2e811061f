"""A painting's places in few bytes: what stands for them, what it is restored to, and what pictures come of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from cli_support import use_one_thread
from impasto.methods.nnst import NNST
from impasto.networks.hypercolumns import COLUMNS
from impasto.stylizers.painting_places import WEIGHT, recall_places
from impasto.stylizers.place_cards import medoids, restore, summarize, with_moments
from impasto.stylizers.styles import Style, load_style, measure, mix, save_style
from tiny import painting, tiny_nnst

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


def rows(count: int, channels: int = 5) -> Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> NNST:
    return tiny_nnst(style_weight=0.1)


def card_of(model: NNST, image: Tensor) -> Style:
    bare = tiny_nnst(style_weight=0.0)
    places = summarize(bare.encode_style(image), bare.network.widths, (40, 20))
    moments = measure(model.network, image, model.style_layers, coarse=False)
    return Style(moments, moments.kind, {"title": "Sea"}, [places])


def test_medoids_are_members_that_stand_for_all() -> None:
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    near = torch.cat([center + 0.1 * rows(50, 2) for center in centers])
    index, members = medoids(near, 3)
    assert members.tolist() == [50, 50, 50]
    assert_close(near[index], centers, atol=0.1, rtol=0)
    index, members = medoids(near, 200)
    assert (len(index), float(members.sum())) == (150, 150)


def test_medoids_lie_closer_than_a_random_choice() -> None:
    points = rows(600, 3)
    index, members = medoids(points, 60)
    assert members.sum() == 600
    chance = torch.randperm(600, generator=torch.Generator().manual_seed(1))[: len(index)]
    found, other = (torch.cdist(points, points[part]).amin(1).mean() for part in (index, chance))
    assert found < other


def test_few_directions_lose_little_and_bytes_are_few(model: NNST) -> None:
    style = model.encode_style(painting())
    found = summarize(style, model.network.widths, (10_000, 10_000))
    again = restore(found)
    spread = (style[f"0.{COLUMNS}"] - style[f"0.{COLUMNS}"].mean(0)).square().sum()
    assert (again[f"0.{COLUMNS}"] - style[f"0.{COLUMNS}"]).square().sum() < 0.05 * spread
    assert (again["0.colors"] - style["0.colors"]).abs().max() <= 0.5 / 255 + 1e-6
    assert found["0.codes"].dtype == torch.int8
    assert {name for name in again if "columns" in name or "colors" in name} == {
        name for name in style if "columns" in name or "colors" in name
    }
    assert all(rows.shape[1] == style[name].shape[1] for name, rows in again.items() if "last." in name)


def test_what_was_never_summarized_stays() -> None:
    values = {"0.columns": rows(3)}
    assert restore(values)["0.columns"] is values["0.columns"]


def test_weights_say_how_many_places_one_stands_for(model: NNST) -> None:
    card = restore(summarize(model.encode_style(painting()), model.network.widths, (30, 10)))
    places = recall_places([(1.0, Style(card, "places/x"))], 0, 10**6)
    assert float(card[f"0.{WEIGHT}"].sum()) == 12 * 16
    assert_close(places.expected.sum(), torch.tensor(1.0))
    assert_close(places.centers[0], (card[f"0.{WEIGHT}"][:, None] * card["0.columns"]).sum(0) / (12 * 16))


def test_a_card_paints_nearly_what_its_painting_does(model: NNST, tmp_path: Path) -> None:
    photo, image = painting(48, 64, seed=3), painting()
    save_style(card_of(model, image), tmp_path / "card.safetensors", half=True)
    card = load_style(tmp_path / "card.safetensors")
    found, wanted = model.stylize(photo, card), model.stylize(photo, image)
    other = model.stylize(photo, painting(40, 52, seed=6))
    assert (found - wanted).square().mean() < (other - wanted).square().mean()


def test_moments_come_from_the_other_kind_also_in_mixtures(model: NNST) -> None:
    first, second = card_of(model, painting()), card_of(model, painting(40, 52, seed=6))
    assert "relu1_1.mean" in model.accept_style(first)
    mixed = model.accept_style(mix([first, second], [1, 3]))
    wanted = 0.25 * first["relu1_1.mean"] + 0.75 * second["relu1_1.mean"]
    for number in "01":
        assert_close(mixed[f"{number}.relu1_1.mean"], wanted)
    assert model.stylize(painting(48, 64, seed=3), first, second).shape == (1, 3, 48, 64)
    own = model.encode_style(painting())
    assert with_moments(own, Style({}, "moments/x")) is own


def test_a_card_may_hold_more_places_than_are_asked_for(model: NNST) -> None:
    few = tiny_nnst(candidates=20)
    card = card_of(model, painting())
    assert torch.isfinite(few.stylize(painting(48, 64, seed=3), card)).all()
