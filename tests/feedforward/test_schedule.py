"""What is kept between the passes of a run in tiles: enough for the least work, never more than there is room for."""

from __future__ import annotations

import itertools

import pytest

from impasto.feedforward.pass_plan import MOST_WEIGHED, KeptMaps, choose_kept, edge_efforts, effort, plan_pass
from impasto.feedforward.stages import IMAGE, RESULT, Edge, MomentsOf, Stage, map_strides
from impasto.networks.layers import Conv

TILE = 100
LENGTH = 6


def chain(shortcut: bool = False) -> list[Stage]:
    """A row of 3x3 convolutions of four channels with a barrier after each; shortcut: the first map comes back last."""
    names = [IMAGE, *(f"y{number}" for number in range(LENGTH))]
    stages = [
        Stage((Edge(source, name, (Conv(3 if source == IMAGE else 4, 4),)),), dict, (MomentsOf(name),))
        for source, name in itertools.pairwise(names)
    ]
    last = (Edge(names[-1], RESULT, (Conv(4, 3),)), *((Edge("y0", RESULT),) if shortcut else ()))
    return [*stages, Stage(last, dict)]


def store_after(stages: list[Stage], number: int, kept: dict[str, int], room: int, rows: int = 1) -> KeptMaps:
    return KeptMaps({f"y{number}"}, stages[number + 1 :], kept, {f"y{number}": 10}, rows, room)


def run(stages: list[Stage], room: int) -> tuple[list[set[str]], float]:
    """What is kept after each pass, and the effort of all of them."""
    kept: dict[str, int] = {}
    found, total = [], 0.0
    efforts = edge_efforts(stages, map_strides(stages))
    for number in range(LENGTH):
        store = store_after(stages, number, kept, room)
        chosen = choose_kept(stages, store, TILE)
        plan = plan_pass(stages, store.must | (chosen & store.new.keys()), kept)
        beside = {name for name in plan.sources & kept.keys() if name not in chosen}
        assert 10 * len(chosen | beside) <= room
        total += effort(efforts, plan, TILE)
        kept = dict.fromkeys(chosen, 10)
        found.append(chosen)
    return found, total + effort(efforts, plan_pass(stages, {RESULT}, kept), TILE)


def test_with_room_each_pass_makes_one_map() -> None:
    found, total = run(chain(), 1000)
    assert found == [{f"y{number}"} for number in range(LENGTH)]
    first, other, last = 3 * 4 * 9 + 700, 4 * 4 * 9 + 800, 4 * 3 * 9 + 700  # numbers read and written count 100 each
    assert total == pytest.approx((first + (LENGTH - 1) * other + last) * 1.02**2)


def test_without_room_everything_is_made_anew() -> None:
    assert run(chain(), 5)[0] == [set()] * LENGTH


def test_with_room_for_two_the_row_goes_on_and_a_shortcut_is_made_anew() -> None:
    found, _ = run(chain(shortcut=True), 20)
    assert found[1:] == [{"y0", "y1"}, *({f"y{number}"} for number in range(2, LENGTH))]
    assert run(chain(shortcut=True), 1000)[0][-1] == {"y0", f"y{LENGTH - 1}"}


def test_more_room_is_never_more_work() -> None:
    efforts = [run(chain(shortcut=True), room)[1] for room in (5, 20, 30, 1000)]
    assert efforts == sorted(efforts, reverse=True)
    assert efforts[0] > 2 * efforts[-1]


def test_what_several_maps_are_joined_into_runs_through_its_layers_once() -> None:
    both = Stage((Edge(IMAGE, "a"), Edge(IMAGE, "b")), dict)
    layer = Conv(3, 4)
    joined = Stage((Edge("a", "y", (layer,)), Edge("b", "y", (layer,))), dict)
    first, second = edge_efforts([both, joined], map_strides([both, joined]))
    assert first == {"a": 600, "b": 600}
    assert second == {"y": 2 * 300 + 3 * 4 * 9 + 400}


def test_memory_goes_from_maps_that_are_read_to_those_that_are_written() -> None:
    stages = chain()
    store = store_after(stages, 1, {"y0": 10}, 12, rows=5)
    assert store.most({"y1"}, {"y0"}) == 12  # when the last row of tiles is read, one of five is left
    assert store.most(set(), {"y0"}) == 10
    assert store.most({"y0", "y1"}, {"y0"}) == 20  # what stays gives nothing
    assert choose_kept(stages, store, TILE) == {"y1"}
    alone = store_after(stages, 1, {"y0": 10}, 12, rows=1)
    assert choose_kept(stages, alone, TILE) == {"y0"}  # without room for both, what is there stays


def test_of_many_maps_not_every_combination_is_weighed() -> None:
    many = {f"y{number}": 10 + number for number in range(40)}
    found = list(KeptMaps(set(), [], many, {}, 1, 10**6).choices())
    assert len(found) == 2**MOST_WEIGHED
    assert set().union(*(chosen for chosen, _ in found)) == {f"y{number}" for number in range(MOST_WEIGHED)}
