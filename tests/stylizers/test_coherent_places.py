"""Choices that hang together: what is followed, what is not, and the same in a part as in the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.networks.hypercolumns import COLORS, COLUMNS, Hypercolumns
from impasto.optimize.nearest import directions
from impasto.stylizers import coherent_places
from impasto.stylizers.coherent_places import (
    BLOCK,
    KEPT,
    WINDOW,
    Anchors,
    Around,
    anchor_grid,
    draw_anchors,
    follow,
    side_by_side,
)
from impasto.stylizers.painting_places import GRID, Places, choose, evenly, gather, recall_places
from impasto.stylizers.styles import Style
from tiny import narrow_slim, painting


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_painting(height: int, width: int, columns: Tensor, most: int) -> Around:
    index, owner = evenly(height * width, most), torch.zeros(height * width, dtype=torch.long)
    sides = (torch.tensor([value]) for value in (0, height, width))
    return Around(columns, torch.zeros(len(columns), 3), index, owner, *sides)


def followed(queries: Tensor, index: Tensor, keys: Tensor, around: Around, around_keys: Tensor, slack: float) -> Tensor:
    anchors = anchors_of(queries, index, keys, around)
    return follow(queries, index, anchors, around, around_keys, slack)


def anchors_of(queries: Tensor, index: Tensor, keys: Tensor, around: Around) -> Anchors:
    height, width = index.shape
    rows, columns = anchor_grid(height, width)
    return draw_anchors(queries[rows][:, columns], index[rows][:, columns], keys, around, (height, width))


def nearest_of(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries @ keys.T).argmax(2)


def test_a_flat_picture_gets_the_painting_as_it_lies() -> None:
    """All places are equally similar, so every place follows an anchor: neighbours keep their distance."""
    columns = torch.ones(40 * 50, 6)
    around = one_painting(40, 50, columns, 200)
    queries = directions(torch.ones(48, 64, 6))
    found = followed(queries, torch.zeros(48, 64, dtype=torch.long), columns[around.rows], around, columns, 0.01)
    beside = found[:, 1:] - found[:, :-1] == 1
    below = found[1:] - found[:-1] == 50
    assert float(beside.float().mean()) > 0.8
    assert float(below.float().mean()) > 0.8
    assert len(set(found.flatten().tolist())) > 500


def test_no_part_of_a_painting_is_taken_twice() -> None:
    """In a flat picture larger than the painting some anchors take nothing, rather than the same part again."""
    columns = torch.ones(40 * 50, 6)
    around = one_painting(40, 50, columns, 2000)
    queries = directions(torch.ones(96, 128, 6))
    chosen = anchors_of(queries, torch.zeros(96, 128, dtype=torch.long), columns[around.rows], around).chosen
    taken = [(place // 50 // BLOCK, place % 50 // BLOCK) for place in chosen.flatten().tolist() if place >= 0]
    parts = -(-40 // BLOCK) * -(-50 // BLOCK)
    assert len(taken) == len(set(taken)) == parts < chosen.numel()


def test_nothing_loses_more_than_the_slack() -> None:
    columns = directions(numbers(30 * 30, 8))
    around = one_painting(30, 30, columns, 300)
    queries, keys = directions(numbers(33, 47, 8, seed=1)), columns[around.rows]
    index = nearest_of(queries, keys)
    own = (queries * keys[index]).sum(2)
    shares = []
    for slack in (0.0, 0.2, 0.5, 2.0):
        found = followed(queries, index, keys, around, columns, slack)
        assert bool(((queries * columns[found]).sum(2) >= own - slack - 1e-5).all())
        shares.append(float((found != around.rows[index]).float().mean()))
    assert shares == sorted(shares)
    assert shares[-1] > 0.5


def test_a_part_gets_what_the_whole_has_there(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = directions(numbers(40 * 40, 5))
    around = one_painting(40, 40, columns, 400)
    queries, keys = directions(numbers(70, 90, 5, seed=2)), columns[around.rows]
    index = nearest_of(queries, keys)
    anchors = anchors_of(queries, index, keys, around)
    whole = follow(queries, index, anchors, around, columns, 0.4)
    rows, across = slice(10, 66), slice(21, 88)
    part = follow(queries[rows, across], index[rows, across], anchors, around, columns, 0.4, (10, 21))
    assert torch.equal(part, whole[rows, across])
    monkeypatch.setattr(coherent_places, "CHUNK", 1000)
    assert torch.equal(follow(queries, index, anchors, around, columns, 0.4), whole)


def test_places_stay_in_their_painting() -> None:
    columns, owner = torch.ones(2 * 400, 4), torch.tensor([0] * 400 + [1] * 400)
    sides = torch.tensor([[0, 20, 20], [400, 20, 20]]).T
    around = Around(columns, torch.zeros(800, 3), torch.arange(800), owner, *sides)
    index = (torch.arange(40 * 40) % 2 * 400).view(40, 40)
    found = followed(directions(torch.ones(40, 40, 4)), index, columns, around, columns, 1.0)
    assert torch.equal(owner[found], owner[index])
    assert not torch.equal(found, index)


@pytest.mark.parametrize("size", [(10, 12), (128, 128), (129, 300), (40, 4000), (500, 333)])
def test_what_is_kept_lies_side_by_side(size: tuple[int, int]) -> None:
    kept = side_by_side(*size, most=KEPT)
    assert 1 <= len(kept[0]) * len(kept[1]) <= KEPT
    for numbers_, extent in zip(kept, size, strict=True):
        assert numbers_.tolist() == sorted(set(numbers_.tolist()))
        assert 0 <= int(numbers_[0]) <= int(numbers_[-1]) < extent
        gaps = int((numbers_.diff() > 1).sum())
        assert (gaps + 1) * min(WINDOW, extent) >= len(numbers_) / 4


def test_gathered_places_lie_as_in_the_painting() -> None:
    network, image = Hypercolumns(narrow_slim(), ("relu1_2", "relu3_1")), painting(64, 80)
    beside = gather(network, image, (), octaves=1, most=50, beside=True, room=1 << 33)
    seen = network(image, {COLUMNS, COLORS})
    height, width = beside[f"0.{GRID}"].tolist()
    assert (height, width) == tuple(seen[COLUMNS].shape[-2:])
    assert_close(beside[f"0.{COLUMNS}"].T.reshape(1, -1, height, width), seen[COLUMNS])
    assert_close(beside[f"0.{COLORS}"].T.reshape(1, 3, height, width), seen[COLORS])
    alone = gather(network, image, (), octaves=1, most=50, room=1 << 33)
    known = [recall_places([(1.0, Style(found, "places/x"))], 0, 50) for found in (beside, alone)]
    assert_close(known[0].columns, known[1].columns)
    assert known[1].around is None


def test_without_slack_the_choice_is_each_place_for_itself() -> None:
    columns = numbers(300, 6)
    around = one_painting(15, 20, columns, 120)
    few = columns[around.rows]
    owner, shares = torch.zeros(120, dtype=torch.long), torch.ones(1)
    queries = directions(numbers(9, 11, 6, seed=4))
    alone = choose(queries, Places(few, torch.zeros(120, 3), owner, shares), torch.ones(6), 0.1)
    same = choose(queries, Places(few, torch.zeros(120, 3), owner, shares, around=around), torch.ones(6), 0.1)
    assert torch.equal(around.rows[alone], same)


@pytest.mark.parametrize("grid", [[5, 7], [-1, -1], [3], [1, 2, 3]])
def test_a_grid_that_does_not_fit_is_refused(grid: list[int]) -> None:
    values = {f"0.{COLUMNS}": numbers(30, 4), f"0.{COLORS}": numbers(30, 3), f"0.{GRID}": torch.tensor(grid)}
    with pytest.raises(OptionError, match="grid does not fit"):
        recall_places([(1.0, Style(values, "places/x"))], 0, 10)
