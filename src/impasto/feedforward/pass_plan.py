"""Which maps a run in tiles makes in each pass, and which it keeps whole for later ones.

Between two passes stands a barrier: something must be known of all tiles. What a pass needs it makes from the picture
anew or from maps that earlier passes kept, and room for these is short.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from impasto.feedforward.stages import IMAGE, RESULT, Stage, map_channels, map_strides
from impasto.networks.receptive_field import numbers_after, reach, work

NUMBER = 100.0
"""To write a number and read it again takes as long as so many multiplications."""


MOST_WEIGHED = 8
"""Of more maps the smallest are weighed against each other: every combination is looked at."""


@dataclass(frozen=True)
class PassPlan:
    """One pass: the stages that run and what each makes, the maps it starts from, how far around a tile they reach.

    needs: for every map, in its own pixels, how much of it beyond a tile's edge has to be right.
    """

    wanted: dict[int, set[str]]
    sources: set[str]
    needs: dict[str, int]
    halo: int


def plan_pass(
    stages: Sequence[Stage], outcomes: Collection[str], kept: Collection[str], at: Mapping[str, int] | None = None
) -> PassPlan:
    """How to make `outcomes` from the picture and the maps that were `kept`; at: the maps' strides, if known."""
    needs = dict.fromkeys(outcomes, 0)
    wanted: dict[int, set[str]] = {}
    sources: set[str] = set()
    for number in range(len(stages) - 1, -1, -1):
        own = {name for name in stages[number].outcomes if name in needs and name not in sources}
        for flow in stages[number].flows if own else ():
            if flow.outcome in own:
                needs[flow.source] = max(needs.get(flow.source, 0), reach(flow.path, needs[flow.outcome]))
                if flow.source == IMAGE or flow.source in kept:
                    sources.add(flow.source)
        if own:
            wanted[number] = own
    at = at or map_strides(stages)
    halo = max((needs[name] * at[name] for name in sources), default=0)
    return PassPlan(dict(sorted(wanted.items())), sources, needs, halo)


def aims(stages: Sequence[Stage]) -> set[str]:
    """What all `stages` are run for: the result, or what the last of them measures."""
    return {RESULT} & set(stages[-1].outcomes) or set(stages[-1].outcomes)


def whole_halo(stages: Sequence[Stage]) -> int:
    """How far around a tile counts if all that `stages` make at last is made from the picture in one go."""
    return plan_pass(stages, aims(stages), set()).halo


def flow_efforts(stages: Sequence[Stage], at: Mapping[str, int]) -> list[dict[str, float]]:
    """What each stage's outcomes cost for each pixel of the picture, in multiplications; at: the maps' strides.

    A path by which an outcome hangs on several sources runs once, over what is made of them; each source is read.
    """
    channels = map_channels(stages)
    found: list[dict[str, float]] = [dict.fromkeys(stage.outcomes, 0.0) for stage in stages]
    for own, stage in zip(found, stages, strict=True):
        paths: set[tuple[object, ...]] = set()
        for flow in stage.flows:
            side, way = at[flow.source], (flow.outcome, *map(id, flow.path))
            own[flow.outcome] += NUMBER * channels[flow.source] / side**2
            if way not in paths:
                written = numbers_after(flow.path, side) if flow.path else channels[flow.outcome] / side**2
                own[flow.outcome] += work(flow.path, side) + NUMBER * written
            paths.add(way)
    return found


def effort(efforts: Sequence[Mapping[str, float]], plan: PassPlan, tile: int) -> float:
    """What a pass costs by `flow_efforts`, with what tiles of that side overlap."""
    total = sum(efforts[number][name] for number, wanted in plan.wanted.items() for name in sorted(wanted))
    return total * (1 + 2 * plan.halo / tile) ** 2


@dataclass(frozen=True)
class Shelf:
    """What can be kept after a pass.

    must: what the pass has to make anyhow; rest: the stages after the pass that end with a barrier; kept, new: maps
    by name with their bytes; reusable: for new maps the kept ones over which they can be written; room: bytes for all.
    """

    must: set[str]
    rest: Sequence[Stage]
    kept: Mapping[str, int]
    new: Mapping[str, int]
    reusable: Mapping[str, Sequence[str]]
    room: int

    def choices(self) -> Iterator[tuple[set[str], int]]:
        """All sets of maps that there is room for, with their bytes."""
        sizes = {**self.kept, **self.new}
        names = sorted(sizes, key=lambda name: sizes[name])[:MOST_WEIGHED] if len(sizes) > MOST_WEIGHED else [*sizes]
        for own in chain.from_iterable(combinations(names, count) for count in range(len(names) + 1)):
            size = sum(sizes[name] for name in own)
            if size <= self.room:
                yield set(own), size

    def places(self, chosen: set[str], sources: set[str]) -> dict[str, str]:
        """Which of the new maps that are `chosen` is written over which kept one that the pass reads for the last
        time."""
        free = [name for name in self.kept if name in sources - chosen]
        found: dict[str, str] = {}
        for name in self.new:
            place = next((old for old in self.reusable.get(name, ()) if old in free), None)
            if name in chosen and place is not None:
                free.remove(place)
                found[name] = place
        return found

    def beside(self, chosen: set[str], sources: set[str]) -> int:
        """The bytes of kept maps that the pass reads, though they are not `chosen`, and that no new map takes over."""
        let_go = sources - chosen - set(self.places(chosen, sources).values())
        return sum(size for name, size in self.kept.items() if name in let_go)


def choose_kept(stages: Sequence[Stage], shelf: Shelf, tile: int) -> set[str]:
    """The maps, of those kept and those that a pass can make, that make what is left to do the quickest.

    What counts is this pass, the next one as often as there are passes left, and the way to the end; where that is the
    same, fewer bytes.
    """
    if not shelf.rest:
        return set()
    everything = {**shelf.kept, **shelf.new}
    if sum(everything.values()) <= shelf.room:
        return plan_pass(stages, aims(stages), everything).sources & everything.keys()
    coming = next((stage for stage in shelf.rest if stage.measures), stages[-1])
    target = {measure.source for measure in coming.measures} or aims(stages)
    turns = sum(bool(stage.measures) for stage in shelf.rest) + 1
    at = map_strides(stages)
    efforts = flow_efforts(stages, at)

    def cost_of(outcomes: Collection[str], kept: Collection[str]) -> float:
        return effort(efforts, plan_pass(stages, outcomes, kept, at), tile)

    best: tuple[float, int] | None = None
    found: set[str] = set()
    for chosen, size in shelf.choices():
        now = plan_pass(stages, shelf.must | (chosen & shelf.new.keys()), shelf.kept, at)
        if size + shelf.beside(chosen, now.sources) > shelf.room:
            continue
        cost = effort(efforts, now, tile) + turns * cost_of(target, chosen) + cost_of(aims(stages), chosen)
        if best is None or (cost, size) < best:
            best, found = (cost, size), chosen
    return found
