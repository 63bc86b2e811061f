"""Stages tile by tile: any size in bounded memory, with the same result as in one piece.

Every barrier is one pass over all tiles, in which the moments of each tile's own part are summed. A pass starts from
the picture (recompute) or from maps that an earlier pass kept whole (lockstep), whichever memory allows, map by map.
Tiles begin at multiples of the deepest map's stride and carry as many pixels of their neighbours as the paths reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impasto.canvas import Canvas, Window, windows
from impasto.losses import fit_mask
from impasto.receptive import reach, work
from impasto.stages import (
    IMAGE,
    RESULT,
    Flow,
    Known,
    Measure,
    MomentsOf,
    MomentsSource,
    Stage,
    Tally,
    Work,
    live_moments,
    map_strides,
    needed_later,
)

OnTile = Callable[[int, int], None]


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut: the side of a tile without its halo, and bytes for maps that are kept between passes."""

    tile: int
    keep: int = 0


def paint_tiles(
    stages: Sequence[Stage],
    content: Canvas,
    target: Canvas,
    tiling: Tiling,
    *,
    device: torch.device,
    mask: Tensor | None = None,
    moments_of: MomentsSource = live_moments,
    on_tile: OnTile | None = None,
) -> None:
    """Run `stages` over `content` and write the result to `target`, a canvas of the same size.

    mask: (1, 1, H, W) in [0, 1], the region that is measured. moments_of: asked for the moments of every map, given
    those of its tiles together. on_tile: told how many tiles are done, of how many.
    """
    run = _Run(stages, content, target, tiling, device, mask, moments_of)
    run.all(on_tile)


def measure_tiles(stages: Sequence[Stage], content: Canvas, tiling: Tiling | None, *, device: torch.device) -> Known:
    """What is known of `content` after `stages`, none of which paints; without a tiling it is one tile."""
    run = _Run(stages, content, None, tiling or Tiling(max(content.size)), device, None)
    run.all()
    return run.known


@dataclass(frozen=True)
class _Plan:
    """One pass: the stages that run and what each makes, the maps it starts from, how far around a tile they reach.

    needs: for every map, in its own pixels, how much of it beyond a tile's edge has to be right.
    """

    wanted: dict[int, set[str]]
    sources: set[str]
    needs: dict[str, int]
    halo: int


def plan_pass(stages: Sequence[Stage], outcomes: set[str], kept: Mapping[str, Any] | set[str]) -> _Plan:
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
    halo = max(needs[name] * at[name] for name in sources)
    return _Plan(dict(sorted(wanted.items())), sources, needs, halo)


def whole_halo(stages: Sequence[Stage]) -> int:
    """How far around a tile counts if all that `stages` make at last is made from the picture in one go."""
    return plan_pass(stages, {RESULT} & set(stages[-1].outcomes) or set(stages[-1].outcomes), set()).halo


class _Run:
    """The passes over one picture, and what is known and kept between them."""

    def __init__(
        self,
        stages: Sequence[Stage],
        content: Canvas,
        target: Canvas | None,
        tiling: Tiling,
        device: torch.device,
        mask: Tensor | None,
        moments_of: MomentsSource = live_moments,
    ) -> None:
        self.stages, self.content, self.target = stages, content, target
        self.moments_of = moments_of
        self.tiling, self.device, self.mask = tiling, device, mask
        self.height, self.width = content.size
        self.strides = map_strides(stages)
        self.align = max(self.strides.values())
        self.known: dict[str, Any] = {}
        self.kept: dict[str, Tensor] = {}
        self.tallies: list[tuple[Measure, Tally]] = []
        self.masks: dict[tuple[int, int], Tensor] = {}

    def all(self, on_tile: OnTile | None = None) -> None:
        """Every pass over every tile."""
        last = len(self.stages) - 1
        barriers = [number for number, stage in enumerate(self.stages) if stage.measures or number == last]
        tiles = list(windows(*self.content.size, self.tiling.tile, self.align))
        for turn, barrier in enumerate(barriers):
            self.begin(barriers[turn - 1] + 1 if turn else 0, barrier)
            for number, tile in enumerate(tiles):
                self.work(tile)
                if on_tile is not None:
                    on_tile(turn * len(tiles) + number + 1, len(barriers) * len(tiles))
            self.end()

    def begin(self, first: int, barrier: int) -> None:
        """Get ready for the pass that ends with the stage `barrier`; `first`: its first stage that is new."""
        self.barrier = barrier
        measured = {measure.source for measure in self.stages[barrier].measures}
        self.must = measured | ({RESULT} & set(self.stages[barrier].outcomes))
        new = {name for stage in self.stages[first : barrier + 1] for name in stage.outcomes}
        self.candidates = new & needed_later(self.stages[barrier + 1 :])
        self.chosen: set[str] | None = None
        self.store: dict[str, Tensor] = {}
        self.given: dict[int, Any] = {}
        self.tallies = []
        for measure in self.stages[barrier].measures:
            side = self.strides[measure.source]
            self.tallies.append((measure, measure.begin(self.height // side, self.width // side)))
        self.plan = plan_pass(self.stages, self.must | self.candidates, self.kept)

    def work(self, tile: Window) -> None:
        """One tile: run, measure, keep, write."""
        sliver = min(tile.height, tile.width) < self.align  # without a neighbour the deepest maps would be empty there
        outer = tile.grown(max(self.plan.halo, int(sliver)), self.align, self.height, self.width)
        maps = {name: self._read(name, outer) for name in self.plan.sources}
        for number, wanted in self.plan.wanted.items():
            if number not in self.given:
                self.given[number] = self.stages[number].prepare(self.known)
            maps |= self.stages[number].run(
                Work(maps, self.given[number], wanted, outer.height, outer.width, outer.top, outer.left)
            )
        for measure, tally in self.tallies:
            source = measure.source
            rows, columns = tile.at(self.strides[source], self.height, self.width)
            tally.see(
                self._cut(maps[source], source, tile, outer), self._mask(measure, tile), (rows.start, columns.start)
            )
        if self.chosen is None:
            self._choose(maps)
        for name in self.chosen or ():
            rows, columns = tile.at(self.strides[name], self.height, self.width)
            self.store[name][..., rows, columns] = self._cut(maps[name], name, tile, outer)
        if self.target is not None and RESULT in self.must:
            self.target.write(tile, self._cut(maps[RESULT], RESULT, tile, outer).float().clamp(0, 1))

    def end(self) -> None:
        """The barrier: what was summed is known, what nobody needs any more is let go."""
        for measure, tally in self.tallies:
            found = tally.value
            if isinstance(measure, MomentsOf):
                found = self.moments_of(measure.layer or measure.key, found, None, full=measure.full)
            self.known[measure.key] = found
        self.kept |= self.store
        later = self.stages[self.barrier + 1 :]
        live: set[str] = set()
        if later:
            live = plan_pass(self.stages, {RESULT}, self.kept).sources
        self.kept = {name: value for name, value in self.kept.items() if name in live}
        self.store = {}

    def _read(self, name: str, outer: Window) -> Tensor:
        if name == IMAGE:
            return self.content.read(outer).to(self.device)
        rows, columns = outer.at(self.strides[name], self.height, self.width)
        return self.kept[name][..., rows, columns]

    def _cut(self, value: Tensor, name: str, tile: Window, outer: Window) -> Tensor:
        """The tile's own part of a map that was made of `outer`."""
        stride = self.strides[name]
        rows, columns = tile.at(stride, self.height, self.width)
        top, left = outer.top // stride, outer.left // stride
        return value[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def _mask(self, measure: Measure, tile: Window) -> Tensor | None:
        """The tile's part of the region that counts for `measure`, at its map's size."""
        mask = measure.mask if isinstance(measure, MomentsOf) and measure.mask is not None else self.mask
        if mask is None:
            return None
        stride = self.strides[measure.source]
        if (id(mask), stride) not in self.masks:
            fitted = fit_mask(mask, mask.new_empty(1, 0, self.height // stride, self.width // stride))
            assert fitted is not None
            self.masks[id(mask), stride] = fitted
        return self.masks[id(mask), stride][(..., *tile.at(stride, self.height, self.width))].to(self.device)

    def _choose(self, maps: Mapping[str, Tensor]) -> None:
        """Which maps to keep whole: those that save the most work for their bytes, while there is room."""
        self.chosen = set()
        room = self.tiling.keep - sum(value.numel() * value.element_size() for value in self.kept.values())
        for name in sorted(self.candidates, key=lambda name: self._gain(name, maps[name]), reverse=True):
            shape = (*maps[name].shape[:2], self.height // self.strides[name], self.width // self.strides[name])
            size = shape[0] * shape[1] * shape[2] * shape[3] * maps[name].element_size()
            place = self._place_for(name, shape, maps[name].dtype)
            if place is None and size <= room:
                room -= size
                place = torch.empty(
                    shape, dtype=maps[name].dtype, device=self.device, memory_format=torch.channels_last
                )
            if place is not None:
                self.store[name] = place
                self.chosen.add(name)
        self.plan = plan_pass(self.stages, self.must | self.chosen, self.kept)

    def _gain(self, name: str, value: Tensor) -> float:
        flows = [flow for stage in self.stages for flow in stage.flows if flow.outcome == name]
        saved = sum(work(flow.path, self.strides[flow.source]) for flow in flows)
        return saved / (value.shape[1] * value.element_size() / self.strides[name] ** 2)

    def _place_for(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """The memory of a kept map that this one takes the place of.

        It must be read pixel by pixel only, for this map alone: then no other tile misses what is overwritten.
        """
        for number in self.plan.wanted:
            for flow in self.stages[number].flows:
                old = self.kept.get(flow.source)
                alone = all(other.outcome == name for other in _readers(self.stages, flow.source))
                if flow.outcome != name or old is None or not alone or self.plan.needs[flow.source]:
                    continue
                if old.shape == shape and old.dtype == dtype:
                    return old
        return None


def _readers(stages: Sequence[Stage], name: str) -> list[Flow]:
    return [flow for stage in stages for flow in stage.flows if flow.source == name]
