"""One-pass methods as a row of local stages, with barriers between them at which a whole picture is measured.

A stage makes maps of other maps and looks only so far around a pixel as its paths reach. What it needs to know of a
map as a whole, a measure says. So whoever runs the stages decides where the moments come from: `run_whole` measures
the one tensor there is, `tiling` sums over all tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from impasto.networks.receptive_field import channels_after, stride_after
from impasto.ops.moments import Moments, fit_mask, sum_precisely

IMAGE, RESULT = "image", "result"

Known = Mapping[str, Any]
"""What was measured: `Moments`, or a thinned map, by the measure's key."""


class MomentsSource(Protocol):
    """Where a one-pass method takes the moments of the content's features from."""

    def __call__(self, layer: str, features: Tensor | Moments, mask: Tensor | None, *, full: bool) -> Moments:
        """The moments to work with at `layer`, where the content's features are (1, C, H, W).

        features: of a picture in tiles, what all of them add up to, already in the region. mask: (1, 1, H, W) at the
        picture's size: the region whose statistics count. full: all products are needed.
        """


def live_moments(layer: str, features: Tensor | Moments, mask: Tensor | None, *, full: bool) -> Moments:
    """Those of the features at hand: what every method does by itself."""
    if isinstance(features, Moments):
        return features
    return sum_precisely(features, full=full, mask=fit_mask(mask, features))


def ask_once(moments_of: MomentsSource) -> MomentsSource:
    """`moments_of`, but asked only once for a layer, even if the work begins anew because memory ran out."""
    known: dict[str, Moments] = {}

    def ask(layer: str, features: Tensor | Moments, mask: Tensor | None, *, full: bool) -> Moments:
        if layer not in known:
            known[layer] = moments_of(layer, features, mask, full=full)
        return known[layer]

    return ask


class Tally(Protocol):
    """A measure under way."""

    def see(self, features: Tensor, mask: Tensor | None, corner: tuple[int, int]) -> None:
        """Take in a part of the map, (B, C, h, w), whose upper left corner lies at `corner`."""

    @property
    def value(self) -> Any:
        """What all parts together are."""


class Measure(Protocol):
    """What later stages need to know of the map called `source`, under which key."""

    @property
    def source(self) -> str:
        """The map."""

    @property
    def key(self) -> str:
        """The name of what is found."""

    def begin(self, height: int, width: int) -> Tally:
        """Start on a map of that size."""


@dataclass(frozen=True)
class MomentsOf:
    """The moments of a map; full: with all products; layer: the name by which a `MomentsSource` is asked for them.

    mask: (1, 1, H, W) at the picture's size, the region that is measured, if it is not the run's.
    """

    source: str
    full: bool = True
    layer: str = ""
    mask: Tensor | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The map's name."""
        return self.source

    def begin(self, height: int, width: int) -> Tally:
        """Start to sum."""
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
    """The map itself, with no more than so many of its positions, evenly spread; None: with all."""

    source: str
    positions: int | None = None

    @property
    def key(self) -> str:
        """The map's name with a mark."""
        return f"{self.source}.thinned"

    def begin(self, height: int, width: int) -> Tally:
        """Start to pick."""
        return _Picking(*thin_grid(height, width, self.positions or height * width))


class _Picking:
    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self.rows, self.columns = rows, columns
        self.found: Tensor | None = None

    def see(self, features: Tensor, mask: Tensor | None, corner: tuple[int, int]) -> None:
        if self.found is None and features.shape[-2:] == (len(self.rows), len(self.columns)):
            self.found = features  # all of it, in one piece
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
    """The rows and the columns that are picked out of a map so that at most `positions` positions are left."""
    excess = max(1.0, (height * width / positions) ** 0.5)
    counts = [max(1, int(side / excess)) for side in (height, width)]
    rows, columns = (
        (2 * torch.arange(count) + 1) * side // (2 * count) for side, count in zip((height, width), counts, strict=True)
    )
    return rows, columns


def pick(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The positions of (B, C, H, W) in these rows and columns."""
    return features[..., rows.to(features.device), :][..., columns.to(features.device)]


@dataclass(frozen=True)
class Edge:
    """One way from a map to another: the layers in between."""

    source: str
    outcome: str
    path: tuple[nn.Module, ...] = ()


@dataclass(frozen=True)
class StageInput:
    """What a stage is given: maps, what its `prepare` returned, the maps that are wanted, the picture's size here.

    top, left: where in the whole picture that is, in multiples of every map's stride.
    """

    maps: Mapping[str, Tensor]
    given: Any
    wanted: Collection[str]
    height: int
    width: int
    top: int = 0
    left: int = 0

    def here(self, whole: Tensor, stride: int = 1) -> Tensor:
        """The part of a map of the whole picture, of that stride, that belongs to what is worked on."""
        top, left = self.top // stride, self.left // stride
        return whole[..., top : top + self.height // stride, left : left + self.width // stride]


def _pass_on(known: Known) -> Known:
    return known


@dataclass(frozen=True)
class Stage:
    """One local part of a method.

    flows: all the ways by which outcomes hang on sources; run: makes the wanted outcomes; measures: what has to be
    known of the outcomes before the next stage; prepare: called once with all that is known, its result goes into run.
    """

    flows: tuple[Edge, ...]
    run: Callable[[StageInput], Mapping[str, Tensor]]
    measures: tuple[Measure, ...] = ()
    prepare: Callable[[Known], Any] = field(default=_pass_on)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The maps that it makes."""
        return tuple(dict.fromkeys(flow.outcome for flow in self.flows))

    def sources(self, wanted: Collection[str]) -> set[str]:
        """The maps that it needs for those of its outcomes that are `wanted`."""
        return {flow.source for flow in self.flows if flow.outcome in wanted}


def photo_share(strength: float) -> float:
    """How much of the photo itself a method that rebuilds it shows: 1 at strength 0, 6 % at a half, 0 at 1."""
    return (1 - strength) ** 4


def blend_in_photo(stages: Sequence[Stage], share: float) -> tuple[Stage, ...]:
    """`stages`, and after them one that mixes `share` of the photo into the result."""
    *first, last = stages
    painted = "painted"

    def run(work: StageInput) -> dict[str, Tensor]:
        wanted = {RESULT if name == painted else name for name in work.wanted}
        found = last.run(replace(work, wanted=wanted))
        return {painted if name == RESULT else name: value for name, value in found.items()}

    def blend(work: StageInput) -> dict[str, Tensor]:
        image = work.maps[painted].float().clamp(0, 1)
        return {RESULT: torch.lerp(image, work.maps[IMAGE].to(image), share)}

    flows = tuple(replace(flow, outcome=painted if flow.outcome == RESULT else flow.outcome) for flow in last.flows)
    return *first, replace(last, flows=flows, run=run), Stage((Edge(painted, RESULT), Edge(IMAGE, RESULT)), blend)


def map_strides(stages: Iterable[Stage]) -> dict[str, int]:
    """The stride of every map, in the picture's pixels."""
    return _along(stages, 1, stride_after)


def map_channels(stages: Iterable[Stage]) -> dict[str, int]:
    """The channels of every map, as far as layers tell."""
    return _along(stages, 3, channels_after)


def _along(stages: Iterable[Stage], start: int, after: Callable[[Iterable[nn.Module], int], int]) -> dict[str, int]:
    """A number of every map, from that of the picture; after: the number behind a path of that before it."""
    found = {IMAGE: start}
    for stage in stages:
        for flow in stage.flows:
            found[flow.outcome] = after(flow.path, found[flow.source])
    return found


def needed_later(stages: Sequence[Stage]) -> set[str]:
    """All maps that any of `stages` starts from."""
    return {flow.source for stage in stages for flow in stage.flows}


def run_whole(
    stages: Sequence[Stage],
    image: Tensor,
    mask: Tensor | None = None,
    *,
    moments_of: MomentsSource = live_moments,
) -> Tensor:
    """The stages over the whole `image`, (B, 3, H, W), at once; returns (B, 3, H, W) in [0, 1].

    mask: (1, 1, H, W) in [0, 1], the region that is measured. moments_of: asked for the moments of every map.
    """
    maps, _ = _run_all(stages, image, mask, moments_of)
    return maps[RESULT].float().clamp(0, 1)


def measure_whole(stages: Sequence[Stage], image: Tensor) -> Known:
    """What is known of the whole `image`, (B, 3, H, W), after `stages`, none of which paints."""
    return _run_all(stages, image, None, live_moments)[1]


def _run_all(
    stages: Sequence[Stage], image: Tensor, mask: Tensor | None, moments_of: MomentsSource
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The maps that are left in the end, and all that was measured."""
    maps: dict[str, Tensor] = {IMAGE: image}
    known: dict[str, Any] = {}
    last = {flow.source: number for number, stage in enumerate(stages) for flow in stage.flows} | {RESULT: len(stages)}
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
