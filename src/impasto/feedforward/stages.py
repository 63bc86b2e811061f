"""One-pass methods as a sequence of local stages; at the barriers between them, the whole picture is measured.

A stage computes maps from other maps and only sees as far around a pixel as its layers reach. If it needs to know
something of a whole map, a measure says so. The code that runs the stages decides where moments come from: `run_whole`
measures the one tensor, `tiled_run` sums over all tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from impasto.networks.receptive_field import channels_after, stride_after, strides
from impasto.ops.moments import Moments, fit_mask, sum_precisely

IMAGE, RESULT = "image", "result"

Known = Mapping[str, Any]
"""Results of measures by key: `Moments`, or a thinned map."""


class MomentsSource(Protocol):
    """Source of the moments of the content's features for a one-pass method."""

    def __call__(self, layer: str, features: Tensor | Moments, mask: Tensor | None, *, full: bool) -> Moments:
        """Return the moments to use at `layer`, for content features (1, C, H, W).

        features: for a picture in tiles, the summed moments, already restricted to the region. mask: (1, 1, H, W) at
        the picture's size: the region that is measured. full: all products are needed.
        """


def live_moments(layer: str, features: Tensor | Moments, mask: Tensor | None, *, full: bool) -> Moments:
    """Return the moments of the given features, as every method does by default."""
    if isinstance(features, Moments):
        return features
    return sum_precisely(features, full=full, mask=fit_mask(mask, features))


def ask_once(moments_of: MomentsSource) -> MomentsSource:
    """Wrap `moments_of` so that it is called once per layer, even if the run starts over for lack of memory."""
    known: dict[str, Moments] = {}

    def ask(layer: str, features: Tensor | Moments, mask: Tensor | None, *, full: bool) -> Moments:
        if layer not in known:
            known[layer] = moments_of(layer, features, mask, full=full)
        return known[layer]

    return ask


class Tally(Protocol):
    """A measure in progress."""

    def see(self, features: Tensor, mask: Tensor | None, corner: tuple[int, int]) -> None:
        """Add a part of the map, (B, C, h, w), whose upper left corner is at `corner`."""

    @property
    def value(self) -> Any:
        """Return the result for all parts."""


class Measure(Protocol):
    """A measure of the map called `source` for later stages, stored under `key`."""

    @property
    def source(self) -> str:
        """Name of the map."""

    @property
    def key(self) -> str:
        """Name of the result."""

    def begin(self, height: int, width: int) -> Tally:
        """Start measuring a map of this size."""


@dataclass(frozen=True)
class MomentsOf:
    """The moments of a map; full: with all products; layer: its name for a `MomentsSource`.

    mask: (1, 1, H, W) at the picture's size: the measured region, if it is not the run's.
    """

    source: str
    full: bool = True
    layer: str = ""
    mask: Tensor | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """Name of the map."""
        return self.source

    def begin(self, height: int, width: int) -> Tally:
        """Start a sum."""
        return _Sum(self.full)


class _Sum:
    def __init__(self, full: bool) -> None:
        self.full = full
        self.total: Moments | None = None

    def see(self, features: Tensor, mask: Tensor | None, corner: tuple[int, int]) -> None:
        found = sum_precisely(features, full=self.full, mask=mask)
        self.total = found if self.total is None else self.total + found

    @property
    def value(self) -> Moments:
        assert self.total is not None
        return self.total


@dataclass(frozen=True)
class Thinned:
    """The map itself, thinned evenly to at most `positions` positions; None: all of them."""

    source: str
    positions: int | None = None

    @property
    def key(self) -> str:
        """Name of the map with a suffix."""
        return f"{self.source}.thinned"

    def begin(self, height: int, width: int) -> Tally:
        """Start picking positions."""
        return _Picking(*thin_grid(height, width, self.positions or height * width))


@dataclass(frozen=True)
class Picked:
    """The map at some of its rows and columns; grid: these, for its height and width."""

    source: str
    grid: Callable[[int, int], tuple[Tensor, Tensor]]

    @property
    def key(self) -> str:
        """Name of the map with a suffix."""
        return f"{self.source}.picked"

    def begin(self, height: int, width: int) -> Tally:
        """Start picking positions."""
        return _Picking(*self.grid(height, width))


class _Picking:
    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self.rows, self.columns = rows, columns
        self.found: Tensor | None = None

    def see(self, features: Tensor, mask: Tensor | None, corner: tuple[int, int]) -> None:
        if self.found is None and features.shape[-2:] == (len(self.rows), len(self.columns)):
            self.found = features  # the whole map in one piece
            return
        if self.found is None:
            self.found = features.new_zeros(*features.shape[:2], len(self.rows), len(self.columns))
        rows, columns = (
            torch.nonzero((picked >= first) & (picked < first + extent))[:, 0]
            for picked, first, extent in zip((self.rows, self.columns), corner, features.shape[-2:], strict=True)
        )
        if len(rows) and len(columns):
            own = pick(features, self.rows[rows] - corner[0], self.columns[columns] - corner[1])
            self.found[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = own

    @property
    def value(self) -> Tensor:
        assert self.found is not None
        return self.found


def thin_grid(height: int, width: int, positions: int) -> tuple[Tensor, Tensor]:
    """Return the rows and columns to pick from a map so that at most `positions` positions are left."""
    excess = max(1.0, (height * width / positions) ** 0.5)
    counts = [max(1, int(side / excess)) for side in (height, width)]
    rows, columns = (
        (2 * torch.arange(count) + 1) * side // (2 * count) for side, count in zip((height, width), counts, strict=True)
    )
    return rows, columns


def pick(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the positions of (B, C, H, W) in these rows and columns."""
    return features[..., rows.to(features.device), :][..., columns.to(features.device)]


@dataclass(frozen=True)
class Edge:
    """A dependency of one map on another: the layers in between."""

    source: str
    outcome: str
    path: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class StageInput:
    """Input of a stage: maps, the result of its `prepare`, the wanted maps, the picture's size here.

    top, left: position of this part in the whole picture, in multiples of every map's stride.
    """

    maps: Mapping[str, Tensor]
    given: Any
    wanted: Collection[str]
    height: int
    width: int
    top: int = 0
    left: int = 0

    def here(self, whole: Tensor, stride: int = 1) -> Tensor:
        """Return the part of a whole picture's map, of the given stride, that belongs to this part."""
        top, left = self.top // stride, self.left // stride
        return whole[..., top : top + self.height // stride, left : left + self.width // stride]


def _pass_on(known: Known) -> Known:
    return known


@dataclass(frozen=True)
class Stage:
    """One local part of a method.

    edges: dependencies of outcomes on sources; run: computes the wanted outcomes; measures: what must be known of the
    outcomes before the next stage; prepare: called once with all results of measures; its result is passed to run.
    """

    edges: tuple[Edge, ...]
    run: Callable[[StageInput], Mapping[str, Tensor]]
    measures: tuple[Measure, ...] = ()
    prepare: Callable[[Known], Any] = field(default=_pass_on)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The maps that it computes."""
        return tuple(dict.fromkeys(edge.outcome for edge in self.edges))

    def sources(self, wanted: Collection[str]) -> set[str]:
        """Return the maps that are needed for the `wanted` outcomes."""
        return {edge.source for edge in self.edges if edge.outcome in wanted}


def photo_share(strength: float) -> float:
    """Return the photo's share in the result of a method that rebuilds it: 1 at strength 0, 6 % at 0.5, 0 at 1."""
    return (1 - strength) ** 4


def blend_in_photo(stages: Sequence[Stage], share: float) -> tuple[Stage, ...]:
    """Return `stages` and one more that mixes `share` of the photo into the result."""
    *first, last = stages
    painted = "painted"

    def run(work: StageInput) -> dict[str, Tensor]:
        wanted = {RESULT if name == painted else name for name in work.wanted}
        found = last.run(replace(work, wanted=wanted))
        return {painted if name == RESULT else name: value for name, value in found.items()}

    def blend(work: StageInput) -> dict[str, Tensor]:
        image = work.maps[painted].float().clamp(0, 1)
        return {RESULT: torch.lerp(image, work.maps[IMAGE].to(image), share)}

    edges = tuple(replace(edge, outcome=painted if edge.outcome == RESULT else edge.outcome) for edge in last.edges)
    return *first, replace(last, edges=edges, run=run), Stage((Edge(painted, RESULT), Edge(IMAGE, RESULT)), blend)


def map_strides(stages: Iterable[Stage]) -> dict[str, int]:
    """Return the stride of every map, in the picture's pixels."""
    return _along(stages, 1, stride_after)


def deepest_stride(stages: Iterable[Stage]) -> int:
    """Return the largest stride of any map, also of those inside paths: tiles begin at multiples of it."""
    at, most = {IMAGE: 1}, 1
    for stage in stages:
        for edge in stage.edges:
            at[edge.outcome] = stride_after(edge.path, at[edge.source])
            most = max(most, at[edge.outcome], *(stride for _, stride in strides(edge.path, at[edge.source])))
    return most


def map_channels(stages: Iterable[Stage]) -> dict[str, int]:
    """Return the number of channels of every map, as far as its layers tell."""
    return _along(stages, 3, channels_after)


def _along(stages: Iterable[Stage], start: int, after: Callable[[Iterable[nn.Module], int], int]) -> dict[str, int]:
    """Propagate a number from the picture to every map; after: the number behind a path for the one before it."""
    found = {IMAGE: start}
    for stage in stages:
        for edge in stage.edges:
            found[edge.outcome] = after(edge.path, found[edge.source])
    return found


def needed_later(stages: Sequence[Stage]) -> set[str]:
    """Return all maps that any of `stages` starts from."""
    return {edge.source for stage in stages for edge in stage.edges}


def run_whole(
    stages: Sequence[Stage],
    image: Tensor,
    mask: Tensor | None = None,
    *,
    moments_of: MomentsSource = live_moments,
) -> Tensor:
    """Run the stages over the whole `image`, (B, 3, H, W), at once; returns (B, 3, H, W) in [0, 1].

    mask: (1, 1, H, W) in [0, 1], the region that is measured. moments_of: source of the moments of every map.
    """
    maps, _ = _run_all(stages, image, mask, moments_of)
    return maps[RESULT].float().clamp(0, 1)


def measure_whole(stages: Sequence[Stage], image: Tensor) -> Known:
    """Return what `stages`, none of which paints, measure of the whole `image`, (B, 3, H, W)."""
    return _run_all(stages, image, None, live_moments)[1]


def _run_all(
    stages: Sequence[Stage], image: Tensor, mask: Tensor | None, moments_of: MomentsSource
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the maps that are left at the end, and all results of measures."""
    maps: dict[str, Tensor] = {IMAGE: image}
    known: dict[str, Any] = {}
    last = {edge.source: number for number, stage in enumerate(stages) for edge in stage.edges} | {RESULT: len(stages)}
    for number, stage in enumerate(stages):
        work = StageInput(maps, stage.prepare(known), stage.outcomes, image.shape[-2], image.shape[-1])
        maps |= stage.run(work)
        for measure in stage.measures:
            features = maps[measure.source]
            if isinstance(measure, MomentsOf):
                region = mask if measure.mask is None else measure.mask
                known[measure.key] = moments_of(measure.layer or measure.key, features, region, full=measure.full)
                continue
            tally = measure.begin(features.shape[-2], features.shape[-1])
            tally.see(features, fit_mask(mask, features), (0, 0))
            known[measure.key] = tally.value
        maps = {name: value for name, value in maps.items() if last.get(name, -1) > number}
    return maps, known
