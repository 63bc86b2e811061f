"""Which maps a run in tiles makes in each pass, and which it keeps whole for later ones.

Between two passes stands a barrier: something must be known of all tiles. What a pass needs it makes from the picture
anew or from maps that earlier passes kept, and room for these is short.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from impasto.receptive import numbers_after, reach, work
from impasto.stages import IMAGE, RESULT, Stage, map_strides

NUMBER = 100.0
"""To write a number and read it again takes as long as so many multiplications."""


@dataclass(frozen=True)
class Plan:
    """One pass: the stages that run and what each makes, the maps it starts from, how far around a tile they reach.

    needs: for every map, in its own pixels, how much of it beyond a tile's edge has to be right.
    """

    wanted: dict[int, set[str]]
    sources: set[str]
    needs: dict[str, int]
    halo: int


def plan_pass(stages: Sequence[Stage], outcomes: Collection[str], kept: Collection[str]) -> Plan:
    """How to make `outcomes` from the picture and the maps that were `kept`."""
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
    at = map_strides(stages)
    halo = max((needs[name] * at[name] for name in sources), default=0)
    return Plan(dict(sorted(wanted.items())), sources, needs, halo)


def aims(stages: Sequence[Stage]) -> set[str]:
    """What all `stages` are run for: the result, or what the last of them measures."""
    return {RESULT} & set(stages[-1].outcomes) or set(stages[-1].outcomes)


def whole_halo(stages: Sequence[Stage]) -> int:
    """How far around a tile counts if all that `stages` make at last is made from the picture in one go."""
    return plan_pass(stages, aims(stages), set()).halo


def effort(stages: Sequence[Stage], plan: Plan, tile: int) -> float:
    """What a pass costs for each pixel of the picture, in multiplications, what tiles of that side overlap included."""
    at, total = map_strides(stages), 0.0
    for number, wanted in plan.wanted.items():
        for flow in stages[number].flows:
            if flow.outcome in wanted:
                total += work(flow.path, at[flow.source]) + NUMBER * numbers_after(flow.path, at[flow.source])
    return total * (1 + 2 * plan.halo / tile) ** 2


@dataclass(frozen=True)
class Shelf:
    """What can be kept after a pass.

    must: what the pass has to make anyhow; rest: the stages after the pass that end with a barrier; kept, new: maps
    by name with their bytes; heirs: new maps that can be written over kept ones; room: bytes for all.
    """

    must: set[str]
    rest: Sequence[Stage]
    kept: Mapping[str, int]
    new: Mapping[str, int]
    heirs: Mapping[str, str]
    room: int

    def choices(self) -> Iterator[tuple[set[str], int]]:
        """All sets of maps that there is room for, with their bytes; no map stands beside its heir."""
        names = [*self.kept, *self.new]
        for own in chain.from_iterable(combinations(names, count) for count in range(len(names) + 1)):
            size = sum(self.kept.get(name) or self.new[name] for name in own)
            if size <= self.room and not any(self.heirs.get(name) in own for name in own):
                yield set(own), size

    def beside(self, chosen: set[str], sources: set[str]) -> int:
        """The bytes of kept maps that the pass reads, though they are not `chosen`; an heir takes none of its own."""
        inherited = {old for name, old in self.heirs.items() if name in chosen}
        return sum(size for name, size in self.kept.items() if name in sources - chosen - inherited)


def choose_kept(stages: Sequence[Stage], shelf: Shelf, tile: int) -> set[str]:
    """The maps, of those kept and those that a pass can make, that make what is left to do the quickest.

    What counts is this pass, the next one as often as there are passes left, and the way to the end; where that is the
    same, fewer bytes.
    """
    everything = {**shelf.kept, **shelf.new}
    if sum(everything.values()) <= shelf.room:
        return plan_pass(stages, aims(stages), everything).sources & everything.keys() if shelf.rest else set()
    coming = next((stage for stage in shelf.rest if stage.measures), stages[-1])
    target = {measure.source for measure in coming.measures} or aims(stages)
    turns = sum(bool(stage.measures) for stage in shelf.rest) + 1
    best: tuple[float, int] | None = None
    found: set[str] = set()
    for chosen, size in shelf.choices():
        now = plan_pass(stages, shelf.must | (chosen & shelf.new.keys()), shelf.kept)
        if size + shelf.beside(chosen, now.sources) > shelf.room:
            continue
        following, ending = plan_pass(stages, target, chosen), plan_pass(stages, aims(stages), chosen)
        cost = effort(stages, now, tile) + turns * effort(stages, following, tile) + effort(stages, ending, tile)
        if best is None or (cost, size) < best:
            best, found = (cost, size), chosen
    return found
