"""A painting as a few thousand places: hypercolumns, colours and features of single layers, at several sizes.

Neural neighbours need nothing else of it; a style card holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.images.tensors import resize
from impasto.networks.hypercolumns import COLORS, COLUMNS, STRIDE, Hypercolumns
from impasto.networks.receptive_field import stride_after
from impasto.ops.moments import Moments
from impasto.optimize.nearest import Similarities, directions, nearest
from impasto.optimize.tiled_objective import Tiles, choose_tile
from impasto.stylizers.coherent_places import KEPT, Around, anchor_grid, draw_anchors, follow, side_by_side
from impasto.stylizers.styles import PLACES, Style, moments_kind, parts

LAST, WEIGHT, GRID = "last.", "weight", "grid"
LEAST_SIDE = 16
EPSILON = 1e-8


def places_kind(network: Hypercolumns) -> str:
    """Return the kind of a style made of places that `network` sees."""
    return PLACES + moments_kind(network).split("/", 1)[1]


@torch.no_grad()
def gather(
    network: Hypercolumns,
    image: Tensor,
    layers: Sequence[str],
    *,
    octaves: int,
    most: int,
    turns: int = 0,
    beside: bool = False,
    room: int,
) -> dict[str, Tensor]:
    """Return places of `image`, (1, 3, H, W): for each octave ``N.columns`` (M, C), ``N.colors`` (M, 3).

    At the full size also ``0.last.LAYER`` (M, C) for each of `layers`. most: largest number of places at each size,
    evenly spread; turns: number of quarter turns of the painting to include. beside: the first places are those of
    the upright painting, row by row, as they lie, up to `KEPT` or `most`; ``N.grid`` says the two sides.
    """
    found: dict[str, Tensor] = {}
    least = max(LEAST_SIDE, network.least_side)
    for octave in range(octaves + 1):
        sides = [round(side / 2**octave) for side in image.shape[-2:]]
        if octave and min(sides) < least:
            break
        views = [torch.rot90(resize(image, *sides), turn, (2, 3)) for turn in range(turns + 1)]
        wanted, share = (COLUMNS, COLORS, *(layers if octave == 0 else ())), most // len(views)
        picked = [_spread(network, view, wanted, share) for view in views]
        if beside:
            grid = side_by_side(*(side // STRIDE for side in sides), most=max(KEPT, share))
            rows, columns = torch.meshgrid(*grid, indexing="ij")
            picked[0] |= dict.fromkeys((COLUMNS, COLORS), (rows.flatten(), columns.flatten()))
            found[f"{octave}.{GRID}"] = torch.tensor([len(side) for side in grid])
        seen = [_look(network, view, own, room) for view, own in zip(views, picked, strict=True)]
        for layer in wanted:
            name = layer if layer in (COLUMNS, COLORS) else LAST + layer
            found[f"{octave}.{name}"] = torch.cat([view[layer] for view in seen])
    return found


def _spread(network: Hypercolumns, image: Tensor, layers: Sequence[str], most: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return rows and columns of at most `most` places of each layer; the same ones for columns and colours."""
    picked = {}
    for layer in layers:
        height, width = (side // stride_after(network.path(layer)) for side in image.shape[-2:])
        places = evenly(height * width, most)
        picked[layer] = places // width, places % width
    return picked


def _look(
    network: Hypercolumns, image: Tensor, picked: Mapping[str, tuple[Tensor, Tensor]], room: int
) -> dict[str, Tensor]:
    """Return the picked places of each layer of `image`, (M, C); in tiles if `room` bytes are too few."""
    size, layers = (image.shape[-2], image.shape[-1]), tuple(picked)
    tiles = Tiles(network, layers, size, choose_tile(network, layers, size, room) or max(size))
    found: dict[str, Tensor] = {}
    for window, (_, _, own) in zip(tiles.windows, tiles.see(image), strict=True):
        for layer, part in own.items():
            rows, columns = tiles.place(layer, window)
            down, right = picked[layer][0] - rows.start, picked[layer][1] - columns.start
            here = (down >= 0) & (down < part.shape[-2]) & (right >= 0) & (right < part.shape[-1])
            if layer not in found:
                found[layer] = part.new_empty(len(down), part.shape[1])
            found[layer][here.to(part.device)] = part[0][:, down[here], right[here]].T
    return found


def evenly(count: int, most: int) -> Tensor:
    """Return at most `most` of the numbers from 0 to `count`, spread without a pattern, ascending; always the same."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


@dataclass(frozen=True)
class Places:
    """The places of one or more paintings at one size.

    columns: (M, C); colors: (M, 3); owner: (M,), the painting of each place; shares: (K,), each painting's share of the
    result. weight: (M,), how many of its painting's places each one represents; None: all the same. around: the places
    that lie beside these, if they are known.
    """

    columns: Tensor
    colors: Tensor
    owner: Tensor
    shares: Tensor
    weight: Tensor | None = None
    around: Around | None = None

    @property
    def centers(self) -> Tensor:
        """Each painting's mean, (K, C)."""
        if len(self.shares) == 1:
            return (self.part @ self.columns)[None]
        part = self.part[:, None] * self.columns
        return self.columns.new_zeros(len(self.shares), part.shape[1]).index_add_(0, self.owner, part)

    @property
    def part(self) -> Tensor:
        """The share of its painting that each place represents, (M,)."""
        weight = torch.ones_like(self.columns[:, 0]) if self.weight is None else self.weight.to(self.columns)
        total = weight.new_zeros(len(self.shares)).index_add_(0, self.owner, weight)
        return weight / total[self.owner]

    def keys(self, scale: Tensor) -> Tensor:
        """Return the columns as directions, (M, C), with channels multiplied by `scale`, (C,)."""
        return directions(self.columns * scale, (self.centers * scale)[self.owner])

    def around_keys(self, scale: Tensor) -> Tensor:
        """Return the same for all places around, (N, C); needs these."""
        assert self.around is not None
        return directions(self.around.columns * scale, (self.centers * scale)[self.around.owner])

    @property
    def all(self) -> tuple[Tensor, Tensor]:
        """Columns and colours of the places around, or of these if no others are known."""
        return (self.columns, self.colors) if self.around is None else (self.around.columns, self.around.colors)

    def among_all(self, index: Tensor) -> Tensor:
        """Return the numbers among `all` of places with the numbers `index`."""
        return index if self.around is None else self.around.rows[index]

    @property
    def expected(self) -> Tensor:
        """The share of the result that each place gets if all are used equally, (M,)."""
        return self.part * self.shares[self.owner]


def distinct(style: Style) -> list[tuple[float, Style]]:
    """Return the paintings mixed into `style` with their shares, merging equal ones."""
    found: list[tuple[float, Style]] = []
    for share, one in parts(style):
        if share <= 0:
            continue
        for number, (other, known) in enumerate(found):
            if known.keys() == one.keys() and all(torch.equal(known[name], one[name]) for name in one):
                found[number] = other + share, known
                break
        else:
            found.append((share, one))
    return found


def recall_places(mixture: Sequence[tuple[float, Style]], octave: int, most: int) -> Places:
    """Return at most `most` places of each painting at 1 / 2^octave of its size, or at the smallest that it has."""
    rows: dict[str, list[Tensor]] = {COLUMNS: [], COLORS: [], WEIGHT: []}
    few, grids, count = [], [], 0
    for _, style in mixture:
        level = max((int(name.split(".")[0]) for name in style if name.endswith(COLUMNS)), default=-1)
        if level < 0:
            raise OptionError("this style card holds no places: extract it again with -m nnst")
        level = min(octave, level)
        columns = style[f"{level}.{COLUMNS}"]
        grid = _grid_of(style.get(f"{level}.{GRID}"), len(columns))
        placed = grid[0] * grid[1]
        rest = torch.arange(placed, len(columns))
        few.append(count + torch.cat([evenly(placed, max(1, most - len(rest))), rest]))
        grids.append((count, *grid))
        count += len(columns)
        rows[COLUMNS].append(columns)
        rows[COLORS].append(style[f"{level}.{COLORS}"])
        rows[WEIGHT].append(style.get(f"{level}.{WEIGHT}", torch.ones_like(columns[:, 0])))
    device = rows[COLUMNS][0].device
    owner = torch.cat([torch.full((len(own),), number) for number, own in enumerate(rows[COLUMNS])]).to(device)
    shares = torch.tensor([share for share, _ in mixture], device=device)
    columns, colors, weight = (torch.cat(values) for values in rows.values())
    starts, heights, widths = torch.tensor(grids, device=device).T
    index = torch.cat(few).to(device)
    around = Around(columns, colors, index, owner, starts, heights, widths) if bool(heights.any()) else None
    if len(index) < count:
        columns, colors, owner, weight = columns[index], colors[index], owner[index], weight[index]
    return Places(columns, colors, owner, shares, weight, around)


def _grid_of(grid: Tensor | None, count: int) -> tuple[int, int]:
    """Return the sides of the grid in which the first of `count` places lie; none: 0 and 0."""
    if grid is None:
        return 0, 0
    sides = [int(side) for side in grid.flatten()]
    if len(sides) != 2 or min(sides) < 0 or sides[0] * sides[1] > count:
        raise OptionError("this style card's grid does not fit its places: extract it again with -m nnst")
    return sides[0], sides[1]


def recall_layer(mixture: Sequence[tuple[float, Style]], layer: str) -> Tensor:
    """Return all places that the paintings have at `layer` at their full size, (M, C)."""
    name = f"0.{LAST}{layer}"
    if any(name not in style for _, style in mixture):
        raise OptionError(f"this style card knows nothing of {layer}: extract it again with -m nnst")
    return torch.cat([style[name] for _, style in mixture])


def balance(
    columns: Tensor, widths: Sequence[int], by: Sequence[float] | None = None, part: Tensor | None = None
) -> Tensor:
    """Return factors of the channels of `columns`, (M, C), that balance the layers, (C,).

    widths: the layers' channels. A layer is divided by the deviation of its features over places, or by the numbers in
    `by`. part: (M,), the share that each place represents; None: all the same.
    """
    part = columns.new_full((len(columns),), 1 / len(columns)) if part is None else part
    spread = part @ (columns - part @ columns).square()
    scales = []
    for number, own in enumerate(torch.split(spread, list(widths))):
        size = own.sum().clamp_min(EPSILON).sqrt() if by is None else own.new_tensor(by[number])
        scales.append((1 / size).expand(len(own)))
    return torch.cat(scales)


def choose(queries: Tensor, places: Places, scale: Tensor, amount: float, slack: float = 0.0) -> Tensor:
    """Return the place that each of `queries`, directions (h, w, C), should look like, by the paintings' shares.

    (h, w), numbers among `Places.all`. amount: cost of taking the same place repeatedly; slack: how much less similar a
    place may be if it lies beside the neighbours' places.
    """
    keys, rows = places.keys(scale), queries.flatten(0, 1)
    index, handicap = _choose_each(rows, keys, places, amount)
    index = index.view(queries.shape[:2])
    if places.around is None or not slack:
        return places.among_all(index)
    height, width = index.shape
    rows, columns = anchor_grid(height, width)
    there = queries[rows][:, columns], index[rows][:, columns]
    anchors = draw_anchors(*there, keys, places.around, (height, width), handicap)
    return follow(queries, index, anchors, places.around, places.around_keys(scale), slack)


def _choose_each(queries: Tensor, keys: Tensor, places: Places, amount: float) -> tuple[Tensor, Tensor | None]:
    """Return the candidate of each of `queries`, (N, C), chosen by itself, and the candidates' handicaps."""
    if not amount and len(places.shares) == 1:
        return nearest(queries, keys), None
    similar = Similarities(queries, keys)
    handicap = similar.spread(places.expected, amount) if amount else None
    if len(places.shares) == 1:
        return similar.nearest(handicap), handicap
    del similar  # frees the memory
    best, index = [], []
    for number in range(len(places.shares)):
        own = (places.owner == number).nonzero()[:, 0]
        less = None if handicap is None else handicap[own]
        found = nearest(queries, keys[own], less)
        alike = (queries * keys[own][found]).sum(1)
        best.append(alike if less is None else alike - less[found])
        index.append(own[found])
    owner = share_out(torch.stack(best, 1), places.shares)
    return torch.stack(index, 1).gather(1, owner[:, None])[:, 0], handicap


def share_out(scores: Tensor, shares: Tensor) -> Tensor:
    """Return the column of `scores`, (N, K), that each row takes: the best one, with bonuses that keep `shares`."""
    return (scores + find_bonus(scores, shares)).argmax(1)


def find_bonus(scores: Tensor, shares: Tensor, rounds: int = 64) -> Tensor:
    """Return what to add to each column of `scores`, (N, K), so that it is the best in its share of the rows, (K,)."""
    bonus = torch.zeros_like(shares)
    for number in range(rounds):
        taken = torch.bincount((scores + bonus).argmax(1), minlength=len(shares)).to(shares) / len(scores)
        bonus = bonus + (shares - taken) * 0.5 / (1 + number / 8)
    return bonus


def owners_bonus(queries: Tensor, keys: Tensor, places: Places, handicap: Tensor | None) -> Tensor:
    """Return `handicap`, (M,), less a bonus for each painting, with which it gets its share of `queries`, (N, C)."""
    similar = queries @ keys.T
    similar = similar if handicap is None else similar - handicap
    count = len(places.shares)
    scores = torch.stack([similar[:, places.owner == number].amax(1) for number in range(count)], 1)
    less = find_bonus(scores, places.shares)[places.owner]
    return -less if handicap is None else handicap - less


def sum_moments(found: Sequence[Moments], mixture: Sequence[tuple[float, Style]]) -> Moments:
    """Return the moments of a mixture."""
    total = found[0] * mixture[0][0]
    for one, (share, _) in zip(found[1:], mixture[1:], strict=True):
        total = total + one * share
    return total
