"""A painting as a few thousand places: hypercolumns, colours and features of single layers, at several sizes.

Neural neighbours need nothing else of it; a style card holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.images.tensors import resize
from impasto.networks.hypercolumns import COLORS, COLUMNS, Hypercolumns
from impasto.ops.moments import Moments
from impasto.optimize.nearest import Similarities, directions, nearest
from impasto.optimize.tiled_objective import Tiles, choose_tile
from impasto.stylizers.styles import PLACES, Style, moments_kind, parts

LAST, WEIGHT = "last.", "weight"
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
    room: int,
) -> dict[str, Tensor]:
    """Return places of `image`, (1, 3, H, W): for each octave ``N.columns`` (M, C), ``N.colors`` (M, 3).

    At the full size also ``0.last.LAYER`` (M, C) for each of `layers`. most: largest number of places at each size,
    evenly spread; turns: number of quarter turns of the painting to include.
    """
    found: dict[str, Tensor] = {}
    least = max(LEAST_SIDE, network.least_side)
    for octave in range(octaves + 1):
        sides = [round(side / 2**octave) for side in image.shape[-2:]]
        if octave and min(sides) < least:
            break
        views = [torch.rot90(resize(image, *sides), turn, (2, 3)) for turn in range(turns + 1)]
        wanted = (COLUMNS, COLORS, *(layers if octave == 0 else ()))
        seen = [_look(network, view, wanted, most // len(views), room) for view in views]
        for layer in wanted:
            name = layer if layer in (COLUMNS, COLORS) else LAST + layer
            found[f"{octave}.{name}"] = torch.cat([view[layer] for view in seen])
    return found


def _look(network: Hypercolumns, image: Tensor, layers: Sequence[str], most: int, room: int) -> dict[str, Tensor]:
    """Return at most `most` rows, evenly spread, of each layer of `image`; in tiles if `room` bytes are too few."""
    size = image.shape[-2], image.shape[-1]
    tiles = Tiles(network, layers, size, choose_tile(network, layers, size, room) or max(size))
    picked = {}
    for layer in layers:
        height, width = (side // tiles.strides[layer] for side in size)
        # The same places for columns and colours, which have the same size.
        picked[layer] = evenly(height * width, most).reshape(-1), width
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for window, (_, _, own) in zip(tiles.windows, tiles.see(image), strict=True):
        for layer, part in own.items():
            places, width = picked[layer]
            rows, columns = tiles.place(layer, window)
            down, right = places // width - rows.start, places % width - columns.start
            here = (down >= 0) & (down < part.shape[-2]) & (right >= 0) & (right < part.shape[-1])
            found[layer].append(part[0][:, down[here], right[here]].T)
    return {layer: torch.cat(rows) for layer, rows in found.items()}


def evenly(count: int, most: int) -> Tensor:
    """Return at most `most` of the numbers from 0 to `count`, spread without a pattern, ascending; always the same."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


@dataclass(frozen=True)
class Places:
    """The places of one or more paintings at one size.

    columns: (M, C); colors: (M, 3); owner: (M,), the painting of each place; shares: (K,), each painting's share of the
    result. weight: (M,), how many of its painting's places each one represents; None: all the same.
    """

    columns: Tensor
    colors: Tensor
    owner: Tensor
    shares: Tensor
    weight: Tensor | None = None

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


def recall_places(mixture: Sequence[tuple[float, Style]], octave: int) -> Places:
    """Return the places at 1 / 2^octave of the paintings' size, or at the smallest that they have."""
    columns, colors, weights = [], [], []
    for _, style in mixture:
        level = max((int(name.split(".")[0]) for name in style if name.endswith(COLUMNS)), default=-1)
        if level < 0:
            raise OptionError("this style card holds no places: extract it again with -m nnst")
        level = min(octave, level)
        columns.append(style[f"{level}.{COLUMNS}"])
        colors.append(style[f"{level}.{COLORS}"])
        weights.append(style.get(f"{level}.{WEIGHT}", torch.ones_like(columns[-1][:, 0])))
    owner = torch.cat([torch.full((len(rows),), number) for number, rows in enumerate(columns)]).to(columns[0].device)
    shares = torch.tensor([share for share, _ in mixture], device=columns[0].device)
    return Places(torch.cat(columns), torch.cat(colors), owner, shares, torch.cat(weights))


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


def choose(queries: Tensor, places: Places, scale: Tensor, amount: float) -> Tensor:
    """Return the place that each of `queries`, directions (N, C), should look like, by the paintings' shares."""
    keys = places.keys(scale)
    if not amount and len(places.shares) == 1:
        return nearest(queries, keys)
    similar = Similarities(queries, keys)
    handicap = similar.spread(places.expected, amount) if amount else None
    if len(places.shares) == 1:
        return similar.nearest(handicap)
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
    return torch.stack(index, 1).gather(1, owner[:, None])[:, 0]


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


# --- the choice of a place for each place of a photo, the same in a tile as in the whole picture

SAMPLED = 1024
"""Number of places of the photo on which a choice is planned."""
LEAST_WEIGHT = 0.5
COMPARED = 64
"""Number of directions in which places are compared: those in which the painting's differ most."""


@dataclass(frozen=True)
class KnownPlaces:
    """Places, and what of them is compared.

    scale: (C,), factors of the columns' channels; basis: (C, D), the compared directions; keys: (M, D), the places.
    """

    places: Places
    scale: Tensor
    basis: Tensor
    keys: Tensor


@dataclass(frozen=True)
class Choice:
    """How to choose: from a fixed center, with fixed handicaps of the painting's places.

    center: (C,), the mean of the photo's scaled columns; handicap: (M,), subtracted from the places' similarity, None:
    nothing.
    """

    known: KnownPlaces
    center: Tensor
    handicap: Tensor | None = None

    def index(self, columns: Tensor) -> Tensor:
        """Return the place to take, (h, w), for each of `columns`, (1, C, h, w)."""
        with torch.autocast(columns.device.type, enabled=False):
            queries = self.compare(columns[0].flatten(1).T.to(self.center))
            return nearest(queries, self.known.keys, self.handicap).view(columns.shape[-2:])

    def compare(self, rows: Tensor) -> Tensor:
        """Return what is compared of `rows`, (N, C): (N, D)."""
        return directions(rows * self.known.scale, self.center) @ self.known.basis


@torch.no_grad()
def know(places: Places, widths: Sequence[int]) -> KnownPlaces:
    """Return the places with the directions in which they differ most; widths: channels of each layer."""
    with torch.autocast(places.columns.device.type, enabled=False):
        scale = balance(places.columns, widths, part=places.part)
        keys = places.keys(scale)
        basis = main_directions(keys)
        return KnownPlaces(places, scale, basis, keys @ basis)


def main_directions(rows: Tensor) -> Tensor:
    """Return the directions in which `rows`, (N, C), are longest, (C, D), D at most `COMPARED`."""
    products = (rows.T @ rows).double()
    different = torch.linspace(0, 1e-9 * max(1, len(rows)), len(products), device=rows.device)  # for equal eigenvalues
    found: Tensor = torch.linalg.eigh(products + different.double().diag())[1][:, -COMPARED:].to(rows)
    return found


@torch.no_grad()
def plan_choice(rows: Tensor, known: KnownPlaces, amount: float, weights: Tensor | None = None) -> Choice:
    """Return the choice for a photo of which `rows`, (N, C), is a sample of its columns.

    amount: cost of taking the same place repeatedly; weights: (N,), how much each row counts, None: all the same.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows.to(known.scale)
        if weights is not None and bool((weights > LEAST_WEIGHT).any()):
            rows = rows[weights > LEAST_WEIGHT]
        choice = Choice(known, (rows * known.scale).mean(0))
        queries, keys, places = choice.compare(rows), known.keys, known.places
        handicap = Similarities(queries, keys).spread(places.expected, amount) if amount else None
        if len(places.shares) > 1:
            handicap = owners_bonus(queries, keys, places, handicap)
        return replace(choice, handicap=handicap)
