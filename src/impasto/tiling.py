"""Stages tile by tile: any size in bounded memory, with the same result as in one piece.

Every barrier is one pass over all tiles, in which the moments of each tile's own part are summed. A pass starts from
the picture (recompute) or from maps that an earlier pass kept whole (lockstep), whichever memory allows, map by map.
Tiles begin at multiples of the deepest map's stride and carry as many pixels of their neighbours as the paths reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impasto.canvas import Canvas, Window, windows
from impasto.losses import fit_mask
from impasto.schedule import Shelf, choose_kept, plan_pass
from impasto.shortcuts import in_last
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
    measure_whole,
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
    """What is known of `content` after `stages`, none of which paints; without a tiling in one piece."""
    if tiling is None:
        return measure_whole(stages, content.read(Window(0, 0, *content.size)).to(device))
    run = _Run(stages, content, None, tiling, device, None)
    run.all()
    return run.known


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
        self.chosen: set[str] | None = None  # not yet
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
        for name in self.store:
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
        self.kept = {name: value for name, value in (self.kept | self.store).items() if name in (self.chosen or ())}
        self.store = {}

    def _read(self, name: str, outer: Window) -> Tensor:
        if name == IMAGE:
            return self.content.read(outer).to(self.device)
        rows, columns = outer.at(self.strides[name], self.height, self.width)
        return in_last(self.kept[name][..., rows, columns])  # else all that follows goes the slow way

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
        """Which maps to keep whole, now that their sizes are known; the others' memory is let go."""
        shapes = {
            name: (*maps[name].shape[:2], self.height // self.strides[name], self.width // self.strides[name])
            for name in self.candidates
        }
        places = {name: self._place_for(name, shape, maps[name].dtype) for name, shape in shapes.items()}
        shelf = Shelf(
            self.must,
            self.stages[self.barrier + 1 :],
            {name: value.nbytes for name, value in self.kept.items()},
            {name: math.prod(shape) * maps[name].element_size() for name, shape in shapes.items()},
            {name: place for name, place in places.items() if place is not None},
            self.tiling.keep,
        )
        self.chosen = choose_kept(self.stages, shelf, self.tiling.tile)
        new = self.chosen & self.candidates
        self.plan = plan_pass(self.stages, self.must | new, self.kept)
        self.kept = {name: value for name, value in self.kept.items() if name in self.chosen | self.plan.sources}
        for name in new:
            place = places[name]
            self.store[name] = (
                self.kept[place]
                if place is not None
                else torch.empty(
                    shapes[name], dtype=maps[name].dtype, device=self.device, memory_format=torch.channels_last
                )
            )

    def _place_for(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
        """The kept map whose memory this one can have.

        It must be read pixel by pixel only, for this map alone: then no other tile misses what is overwritten.
        """
        for number in self.plan.wanted:
            for flow in self.stages[number].flows:
                old = self.kept.get(flow.source)
                alone = all(other.outcome == name for other in _readers(self.stages, flow.source))
                if flow.outcome != name or old is None or not alone or self.plan.needs[flow.source]:
                    continue
                if old.shape == shape and old.dtype == dtype:
                    return flow.source
        return None


def _readers(stages: Sequence[Stage], name: str) -> list[Flow]:
    return [flow for stage in stages for flow in stage.flows if flow.source == name]
