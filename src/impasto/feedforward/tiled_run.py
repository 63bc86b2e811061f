"""Stages tile by tile: any size in bounded memory, with the same result as in one piece.

Each barrier ends one pass over all tiles. The pass sums the moments of each tile without its overlap. It starts from
maps that an earlier pass has kept, as far as memory allows, and computes the others again from the picture. Tiles begin
at multiples of the deepest map's stride. They overlap their neighbours as far as the layers reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from impasto.feedforward.kept_map import KeptMap, Pieces
from impasto.feedforward.pass_plan import KeptMaps, choose_kept, plan_pass
from impasto.feedforward.stages import (
    IMAGE,
    RESULT,
    Known,
    Measure,
    MomentsOf,
    MomentsSource,
    Stage,
    StageInput,
    Tally,
    deepest_stride,
    live_moments,
    map_strides,
    needed_later,
)
from impasto.images.tensors import Canvas, Window, windows
from impasto.ops.moments import fit_mask
from impasto.progress import OnPart


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut into tiles.

    tile: the side of a tile in pixels, without its overlap; keep: bytes for maps that are kept between passes.
    """

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
    on_tile: OnPart | None = None,
) -> None:
    """Run `stages` over `content` and write the result to `target`, a canvas of the same size.

    mask: (1, 1, H, W) in [0, 1], the region that is measured. moments_of: called with the moments of a map, summed over
    all tiles; returns those to use. on_tile: called after every tile.
    """
    run = _Run(stages, content, target, tiling, device, mask, moments_of)
    run.all(on_tile)


def measure_tiles(stages: Sequence[Stage], content: Canvas, tiling: Tiling, *, device: torch.device) -> Known:
    """Return what `stages`, none of which paints, measure of `content`."""
    run = _Run(stages, content, None, tiling, device, None)
    run.all()
    return run.known


class _Run:
    """The passes over one picture, and the measures and maps that are kept between them."""

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
        self.align = deepest_stride(stages)
        self.known: dict[str, Any] = {}
        self.kept: dict[str, KeptMap] = {}
        self.memory = Pieces(device)
        self.tallies: list[tuple[Measure, Tally]] = []
        self.masks: dict[tuple[int, int], Tensor] = {}
        self.tiles = list(windows(*content.size, tiling.tile, self.align))

    def all(self, on_tile: OnPart | None = None) -> None:
        """Run every pass over every tile."""
        last = len(self.stages) - 1
        barriers = [number for number, stage in enumerate(self.stages) if stage.measures or number == last]
        count = len(self.tiles)
        for turn, barrier in enumerate(barriers):
            self.begin(barriers[turn - 1] + 1 if turn else 0, barrier)
            for number, tile in enumerate(self.tiles):
                self.work(tile)
                if on_tile is not None:
                    on_tile(turn * count + number + 1, len(barriers) * count)
            self.end()

    def begin(self, first: int, barrier: int) -> None:
        """Prepare the pass that ends with the stage `barrier`; first: its first new stage."""
        self.barrier = barrier
        measured = {measure.source for measure in self.stages[barrier].measures}
        self.must = measured | ({RESULT} & set(self.stages[barrier].outcomes))
        new = {name for stage in self.stages[first : barrier + 1] for name in stage.outcomes}
        self.candidates = new & needed_later(self.stages[first:])
        self.chosen: set[str] | None = None  # not yet
        self.store: dict[str, KeptMap] = {}
        if barrier == len(self.stages) - 1:
            self.memory.close()
        self.given: dict[int, Any] = {}
        self.tallies = []
        for measure in self.stages[barrier].measures:
            side = self.strides[measure.source]
            self.tallies.append((measure, measure.begin(self.height // side, self.width // side)))
        self.plan = plan_pass(self.stages, self.must | self.candidates, self.kept)

    def work(self, tile: Window) -> None:
        """Run one tile: compute, measure, keep, write."""
        sliver = min(tile.height, tile.width) < self.align  # without a neighbour, its deepest maps would be empty
        outer = tile.grown(max(self.plan.halo, int(sliver)), self.align, self.height, self.width)
        if not tile.left:  # the first of a row
            self._release(tile)
        maps = {name: self._read(name, outer) for name in self.plan.sources}
        for number, wanted in self.plan.wanted.items():
            if number not in self.given:
                self.given[number] = self.stages[number].prepare(self.known)
            maps |= self.stages[number].run(
                StageInput(maps, self.given[number], wanted, outer.height, outer.width, outer.top, outer.left)
            )
        for measure, tally in self.tallies:
            source = measure.source
            rows, columns = tile.at(self.strides[source], self.height, self.width)
            tally.see(
                self._cut(maps[source], source, tile, outer), self._mask(measure, tile), (rows.start, columns.start)
            )
        if self.chosen is None:
            self._choose(maps)
        for name, store in self.store.items():
            own = tile.at(self.strides[name], self.height, self.width)
            store.write(*own, self._cut(maps[name], name, tile, outer))
        if self.target is not None and RESULT in self.must:
            self.target.write(tile, self._cut(maps[RESULT], RESULT, tile, outer).float().clamp(0, 1))

    def end(self) -> None:
        """End the pass: finish the measures, drop maps that are no longer needed."""
        for measure, tally in self.tallies:
            found = tally.value
            if isinstance(measure, MomentsOf):
                found = self.moments_of(measure.layer or measure.key, found, None, full=measure.full)
            self.known[measure.key] = found
        self._keep(self.chosen or set(), self.store)
        self.store = {}

    def _keep(self, names: set[str], new: Mapping[str, KeptMap]) -> None:
        """Keep the maps with these `names`, those of `new` among them; give back the memory of the others."""
        for name in self.kept.keys() - names:
            self.kept[name].release(self.height)
        self.kept = {name: value for name, value in {**self.kept, **new}.items() if name in names}

    def _release(self, tile: Window) -> None:
        """Give back the memory of rows that neither `tile` nor any after it reads."""
        if self.chosen is None:
            return
        top = tile.grown(max(self.plan.halo, 1), self.align, self.height, self.width).top  # 1: of a sliver
        for name in self.kept.keys() - self.chosen:
            self.kept[name].release(top // self.strides[name])

    def _read(self, name: str, outer: Window) -> Tensor:
        if name == IMAGE:
            return self.content.read(outer).to(self.device)
        return self.kept[name].read(*outer.at(self.strides[name], self.height, self.width))

    def _cut(self, value: Tensor, name: str, tile: Window, outer: Window) -> Tensor:
        """Return the part of a map that belongs to the tile, without the overlap; the map was computed for `outer`."""
        stride = self.strides[name]
        rows, columns = tile.at(stride, self.height, self.width)
        top, left = outer.top // stride, outer.left // stride
        return value[..., rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def _mask(self, measure: Measure, tile: Window) -> Tensor | None:
        """Return the tile's part of the region that `measure` uses, at its map's size."""
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
        """Choose which maps to keep, now that their sizes are known, and free the others."""
        shapes = {
            name: (*maps[name].shape[:2], self.height // self.strides[name], self.width // self.strides[name])
            for name in self.candidates
        }
        kept = {name: value.nbytes for name, value in self.kept.items()}
        new = {name: math.prod(shape) * maps[name].element_size() for name, shape in shapes.items()}
        rows = len({tile.top for tile in self.tiles})
        keepable = KeptMaps(self.must, self.stages[self.barrier + 1 :], kept, new, rows, self.tiling.keep)
        self.chosen = choose_kept(self.stages, keepable, self.tiling.tile)
        self.plan = plan_pass(self.stages, self.must | (self.chosen & self.candidates), self.kept)
        self._keep(self.chosen | self.plan.sources, {})
        for name in self.chosen & self.candidates:
            self.store[name] = KeptMap(shapes[name], maps[name].dtype, self.memory)
