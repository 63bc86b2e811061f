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
from impasto.ops.cpu_kernels import in_last
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
        self.kept: dict[str, Tensor] = {}
        self.tallies: list[tuple[Measure, Tally]] = []
        self.masks: dict[tuple[int, int], Tensor] = {}
        self.tiles = list(windows(*content.size, tiling.tile, self.align))
        self.places: dict[str, str] = {}
        self.over: dict[str, _Overwritten] = {}

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
        self.store: dict[str, Tensor] = {}
        self.places, self.over = (
            {},
            {},
        )  # kept maps by the new map written over them; their old parts
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
        maps = {name: self._read(name, tile, outer) for name in self.plan.sources}
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
        for name in self.store:
            self._write(name, tile, self._cut(maps[name], name, tile, outer))
        if self.target is not None and RESULT in self.must:
            self.target.write(tile, self._cut(maps[RESULT], RESULT, tile, outer).float().clamp(0, 1))

    def end(self) -> None:
        """End the pass: finish the measures, drop maps that are no longer needed."""
        for measure, tally in self.tallies:
            found = tally.value
            if isinstance(measure, MomentsOf):
                found = self.moments_of(measure.layer or measure.key, found, None, full=measure.full)
            self.known[measure.key] = found
        self.kept = {name: value for name, value in (self.kept | self.store).items() if name in (self.chosen or ())}
        self.store = {}

    def _read(self, name: str, tile: Window, outer: Window) -> Tensor:
        if name == IMAGE:
            return self.content.read(outer).to(self.device)
        whole, side = self.kept[name], self.strides[name]
        read, own = (window.at(side, self.height, self.width) for window in (outer, tile))
        x = in_last(whole[(..., *read)])  # otherwise all following layers take the slow path
        if name in self.over:
            x = x.clone() if x.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() else x
            self.over[name].mend(x, read, own)
        return x

    def _write(self, name: str, tile: Window, value: Tensor) -> None:
        own = tile.at(self.strides[name], self.height, self.width)
        if name in self.places:
            self.over[self.places[name]].remember(own)
        self.store[name][(..., *own)] = value

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
        reusable = {name: self._alike(shape, maps[name].dtype) for name, shape in shapes.items()}
        keepable = KeptMaps(self.must, self.stages[self.barrier + 1 :], kept, new, reusable, self.tiling.keep)
        self.chosen = choose_kept(self.stages, keepable, self.tiling.tile)
        self.plan = plan_pass(self.stages, self.must | (self.chosen & self.candidates), self.kept)
        self.places = keepable.places(self.chosen, self.plan.sources)
        self.kept = {name: value for name, value in self.kept.items() if name in self.chosen | self.plan.sources}
        self.over = {old: _Overwritten(self.kept[old], self._reach(old)) for old in self.places.values()}
        for name in self.chosen & self.candidates:
            self.store[name] = (
                self.kept[self.places[name]]
                if name in self.places
                else torch.empty(
                    shapes[name], dtype=maps[name].dtype, device=self.device, memory_format=torch.channels_last
                )
            )

    def _alike(self, shape: tuple[int, ...], dtype: torch.dtype) -> list[str]:
        """Return the kept maps of this form, if tiles read only those neighbours that follow them."""
        if min(self.tiles[0].height, self.tiles[0].width) < self._reach():
            return []
        return [name for name, value in self.kept.items() if value.shape == shape and value.dtype == dtype]

    def _reach(self, name: str = IMAGE) -> int:
        """Return how far beyond a tile maps are read, in their own pixels."""
        return -(-max(self.plan.halo, 1) // self.align) * self.align // self.strides[name]


class _Overwritten:
    """A map that a pass reads and overwrites: keeps the overwritten edges for the next tiles.

    reach: how far tiles, row by row from the upper left, read beyond their own part.
    """

    def __init__(self, whole: Tensor, reach: int) -> None:
        self.whole, self.reach = whole, reach
        self.above, self.below = (torch.empty_like(whole[..., :reach, :]) for _ in range(2))
        self.left = whole[..., :0]

    def mend(self, x: Tensor, read: tuple[slice, slice], own: tuple[slice, slice]) -> None:
        """Restore what was overwritten in `x`, the part `read` of the map; own: the tile without overlap."""
        top, left = (inner.start - outer.start for inner, outer in zip(own, read, strict=True))
        if top:
            x[..., :top, :] = self.above[..., self.reach - top :, read[1]]
        if left:
            x[..., top : top + own[0].stop - own[0].start, :left] = self.left[..., self.reach - left :]

    def remember(self, own: tuple[slice, slice]) -> None:
        """Remember the edges of a part that is about to be overwritten."""
        old = self.whole[(..., *own)]
        if own[0].stop < self.whole.shape[-2]:
            self.below[..., own[1]] = old[..., -self.reach :, :]
        if own[1].stop < self.whole.shape[-1]:
            self.left = old[..., -self.reach :].clone()
        else:
            self.above, self.below = self.below, self.above
