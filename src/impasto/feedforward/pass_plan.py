"""Which maps a tiled run computes in each pass, and which it keeps for later passes.

Between two passes there is a barrier: something must be known of all tiles. A pass computes its maps from the picture
again or from maps that earlier passes kept, as far as memory allows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

from impasto.feedforward.stages import IMAGE, RESULT, Stage, map_channels, map_strides
from impasto.networks.receptive_field import numbers_after, reach, work

NUMBER = 100.0
"""Cost of writing a number and reading it again, in multiplications."""


MOST_WEIGHED = 8
"""If there are more maps, only the smallest are compared: every combination is tried."""


@dataclass(frozen=True)
class PassPlan:
    """One pass: the stages that run, what each computes, the maps it starts from, and how far around a tile they reach.

    needs: for every map, how much of it beyond a tile's edge must be correct, in its own pixels.
    """

    wanted: dict[int, set[str]]
    sources: set[str]
    needs: dict[str, int]
    halo: int


def plan_pass(
    stages: Sequence[Stage], outcomes: Collection[str], kept: Collection[str], at: Mapping[str, int] | None = None
) -> PassPlan:
    """Return how to compute `outcomes` from the picture and the `kept` maps; at: the maps' strides, if known."""
    needs = dict.fromkeys(outcomes, 0)
    wanted: dict[int, set[str]] = {}
    sources: set[str] = set()
    for number in range(len(stages) - 1, -1, -1):
        own = {name for name in stages[number].outcomes if name in needs and name not in sources}
        for edge in stages[number].edges if own else ():
            if edge.outcome in own:
                needs[edge.source] = max(needs.get(edge.source, 0), reach(edge.path, needs[edge.outcome]))
                if edge.source == IMAGE or edge.source in kept:
                    sources.add(edge.source)
        if own:
            wanted[number] = own
    at = at or map_strides(stages)
    halo = max((needs[name] * at[name] for name in sources), default=0)
    return PassPlan(dict(sorted(wanted.items())), sources, needs, halo)


def aims(stages: Sequence[Stage]) -> set[str]:
    """Return what `stages` are run for: the result, or what the last of them measures."""
    return {RESULT} & set(stages[-1].outcomes) or set(stages[-1].outcomes)


def whole_halo(stages: Sequence[Stage]) -> int:
    """Return the halo of a tile if everything that the last stage makes is computed from the picture in one pass."""
    return plan_pass(stages, aims(stages), set()).halo


def edge_efforts(stages: Sequence[Stage], at: Mapping[str, int]) -> list[dict[str, float]]:
    """Return the cost of each stage's outcomes per pixel of the picture, in multiplications; at: the maps' strides.

    A path with several sources is counted once, over the combined input; each source is read.
    """
    channels = map_channels(stages)
    found: list[dict[str, float]] = [dict.fromkeys(stage.outcomes, 0.0) for stage in stages]
    for own, stage in zip(found, stages, strict=True):
        paths: set[tuple[object, ...]] = set()
        for edge in stage.edges:
            side, way = at[edge.source], (edge.outcome, *map(id, edge.path))
            own[edge.outcome] += NUMBER * channels[edge.source] / side**2
            if way not in paths:
                written = numbers_after(edge.path, side) if edge.path else channels[edge.outcome] / side**2
                own[edge.outcome] += work(edge.path, side) + NUMBER * written
            paths.add(way)
    return found


def effort(efforts: Sequence[Mapping[str, float]], plan: PassPlan, tile: int) -> float:
    """Return the cost of a pass by `edge_efforts`, including the overlap of tiles with this side."""
    total = sum(efforts[number][name] for number, wanted in plan.wanted.items() for name in sorted(wanted))
    return total * (1 + 2 * plan.halo / tile) ** 2


@dataclass(frozen=True)
class KeptMaps:
    """The maps that can be kept after a pass.

    must: what the pass has to compute anyway; rest: the stages after the pass that end with a barrier; kept, new: bytes
    of maps by name; rows: number of rows of tiles, after each of which memory of maps that are read for the last time
    goes to new maps; room: bytes for all.
    """

    must: set[str]
    rest: Sequence[Stage]
    kept: Mapping[str, int]
    new: Mapping[str, int]
    rows: int
    room: int

    def choices(self) -> Iterator[tuple[set[str], int]]:
        """Yield all sets of maps that fit, with their bytes."""
        sizes = {**self.kept, **self.new}
        names = sorted(sizes, key=lambda name: sizes[name])[:MOST_WEIGHED] if len(sizes) > MOST_WEIGHED else [*sizes]
        for own in chain.from_iterable(combinations(names, count) for count in range(len(names) + 1)):
            size = sum(sizes[name] for name in own)
            if size <= self.room:
                yield set(own), size

    def most(self, chosen: set[str], sources: set[str]) -> float:
        """Return the most bytes that are in use during the pass, if it keeps `chosen` and reads `sources`."""
        coming = sum(size for name, size in self.new.items() if name in chosen)
        going = sum(size for name, size in self.kept.items() if name in sources - chosen)
        stay = sum(size for name, size in self.kept.items() if name in chosen)
        return stay + max(coming + going / self.rows, going + coming / self.rows)


def choose_kept(stages: Sequence[Stage], store: KeptMaps, tile: int) -> set[str]:
    """Return the maps, of those kept and those that the pass can compute, that make the remaining work fastest.

    The cost is that of this pass, of the next one times the passes that are left, and of the way to the end; at the
    same cost, fewer bytes win.
    """
    if not store.rest:
        return set()
    everything = {**store.kept, **store.new}
    if sum(everything.values()) <= store.room:
        return plan_pass(stages, aims(stages), everything).sources & everything.keys()
    coming = next((stage for stage in store.rest if stage.measures), stages[-1])
    target = {measure.source for measure in coming.measures} or aims(stages)
    turns = sum(bool(stage.measures) for stage in store.rest) + 1
    at = map_strides(stages)
    efforts = edge_efforts(stages, at)

    def cost_of(outcomes: Collection[str], kept: Collection[str]) -> float:
        return effort(efforts, plan_pass(stages, outcomes, kept, at), tile)

    best: tuple[float, int] | None = None
    found: set[str] = set()
    for chosen, size in store.choices():
        now = plan_pass(stages, store.must | (chosen & store.new.keys()), store.kept, at)
        if store.most(chosen, now.sources) > store.room:
            continue
        cost = effort(efforts, now, tile) + turns * cost_of(target, chosen) + cost_of(aims(stages), chosen)
        if best is None or (cost, size) < best:
            best, found = (cost, size), chosen
    return found
