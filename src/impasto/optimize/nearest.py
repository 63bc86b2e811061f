"""Nearest neighbours: the most similar place of a painting for each place of the picture, and losses from it.

After Kolkin et al. 2022 ("Neural neighbor style transfer"): a place's features are replaced by those of the painting's
place at the smallest cosine distance.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK, KEPT, IN_CACHE, BLOCK = 1 << 21, 1 << 26, 1 << 19, 64
"""Number of similarities computed at once, kept for repeated searches (512x512 px and 4096 places: 256 MB), read at
once, and of which the largest is found before its place."""

EPSILON = 1e-8
MatchForm = Literal["cosine", "relative"]


def rows_of(features: Tensor) -> Tensor:
    """Return (1, C, H, W) as (H W, C): a row for each place."""
    return features.squeeze(0).flatten(1).T  # an index would copy the gradient


def directions(rows: Tensor, center: Tensor | float = 0.0) -> Tensor:
    """Return rows, (N, C), minus `center` and with length 1; rows that equal the center become 0."""
    return F.normalize(rows - center, dim=1, eps=EPSILON)


@torch.no_grad()
def nearest(queries: Tensor, keys: Tensor, handicap: Tensor | None = None) -> Tensor:
    """Return, for each of `queries`, (N, C), the index of the most similar of `keys`, (M, C); the first one of equals.

    Both have length 1. handicap: (M,), subtracted from a key's cosine similarity. Works in chunks of bounded size.
    """
    size = max(1, IN_CACHE // max(1, len(keys)))
    columns = keys.T
    parts = torch.split(queries, size)
    if handicap is None:
        found = [first_largest(part @ columns) for part in parts]
    else:
        found = [first_largest(torch.addmm(handicap, part, columns, beta=-1)) for part in parts]
    return torch.cat(found) if found else queries.new_zeros(0, dtype=torch.long)


def first_largest(rows: Tensor) -> Tensor:
    """Return ``rows.argmax(1)`` of (N, M), on a CPU in less than half of the time."""
    count, length = rows.shape
    if rows.device.type != "cpu" or length % BLOCK or length == BLOCK or not count:
        return rows.argmax(1)
    blocks = rows.view(count, -1, BLOCK)
    best = blocks.amax(2).argmax(1)
    own = blocks.gather(1, best[:, None, None].expand(-1, 1, BLOCK))[:, 0]
    return best * BLOCK + own.argmax(1)


class Similarities:
    """The cosine similarities of `queries`, (N, C), to `keys`, (M, C), both of length 1, for searching repeatedly.

    The products, which take most of the time, are kept if they are at most `KEPT`.
    """

    def __init__(self, queries: Tensor, keys: Tensor) -> None:
        self.queries, self.keys = queries, keys
        self.table = queries @ keys.T if len(queries) * len(keys) <= KEPT else None

    @torch.no_grad()
    def nearest(self, handicap: Tensor | None = None) -> Tensor:
        """Return the index of the most similar key for each query, (N,), as the function `nearest` does."""
        if self.table is None:
            return nearest(self.queries, self.keys, handicap)
        size = max(1, IN_CACHE // max(1, len(self.keys)))
        parts = torch.split(self.table, size)
        return torch.cat([first_largest(part if handicap is None else part - handicap) for part in parts])

    @torch.no_grad()
    def spread(self, wanted: Tensor, amount: float, rounds: int = 8) -> Tensor:
        """Return handicaps, (M,), with which keys are taken about as often as `wanted`, (M,), shares of sum 1.

        A step towards optimal transport: in each round, keys that are taken too often lose up to `amount` / `rounds` of
        their similarity. So flat areas don't all get the same place of the painting, and its rare motifs are used. If
        there are too many similarities to be kept, as many queries decide as can be, evenly spread.
        """
        if self.table is None and len(self.keys) <= KEPT:
            step = -(-len(self.queries) * len(self.keys) // KEPT)
            return Similarities(self.queries[::step], self.keys).spread(wanted, amount, rounds)
        handicap = torch.zeros(len(self.keys), dtype=self.keys.dtype, device=self.keys.device)
        expected = (wanted * len(self.queries)).clamp_min(EPSILON)
        for _ in range(rounds):
            taken = torch.bincount(self.nearest(handicap), minlength=len(self.keys)).to(self.keys)
            excess = (taken / expected).clamp(0, MOST_EXCESS).sqrt() - 1
            handicap = (handicap + amount / rounds * excess).clamp_min(0)
        return handicap


MOST_EXCESS = 9.0


class MatchedLoss:
    """Distance of each place from the matched place of the painting.

    keys: (M, C); index: (H, W), the key for each place; scale: (C,), factor of the channels. form: ``cosine``: 1 -
    cosine (Kolkin et al. 2022, eq. 2), which ignores how strong a feature is; ``relative``: squared distance in units
    of the keys' variance. photo: (1, C, H, W), of which each place keeps the share `kept`. mask: (1, 1, H, W), the
    weight of each place.
    """

    def __init__(
        self,
        keys: Tensor,
        index: Tensor,
        scale: Tensor,
        form: MatchForm = "cosine",
        *,
        photo: Tensor | None = None,
        kept: float = 0.0,
        mask: Tensor | None = None,
    ) -> None:
        self.keys, self.index, self.scale, self.form = keys, index, scale, form
        self.photo, self.kept, self.mask = photo, kept, mask
        count = index.numel() if mask is None else float(mask.sum())
        spread = ((keys - keys.mean(0)) * scale).square().sum(1).mean()
        self.divisor = max(count, 1e-6) * (1.0 if form == "cosine" else float(spread.clamp_min(EPSILON)))
        self.directions = directions(keys * scale) * scale if form == "cosine" and photo is None else None

    def __call__(self, features: Tensor) -> Tensor:
        """Return the loss of `features`, (1, C, H, W)."""
        return self.part(features, slice(None), slice(None))

    def part(self, features: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return the share of these rows and columns of the features in the loss."""
        index = self.index[rows, columns]
        weights = None if self.mask is None else self.mask[0, 0, rows, columns]
        if self.directions is not None:
            shares = None if weights is None else weights.flatten()
            found: Tensor = _Cosines.apply(
                rows_of(features), self.directions, index.flatten(), self.scale.square(), shares
            )
            return found / self.divisor
        wanted, scale = self._wanted(index, rows, columns), self.scale[:, None, None]
        if self.form == "cosine":
            errors = 1 - F.cosine_similarity(features[0] * scale, wanted * scale, dim=0, eps=EPSILON)
        else:
            errors = ((features[0] - wanted) * scale).square().sum(0)
        return (errors if weights is None else errors * weights).sum() / self.divisor

    def _wanted(self, index: Tensor, rows: slice, columns: slice) -> Tensor:
        found = self.keys[index.flatten()].T.reshape(-1, *index.shape)
        return found if self.photo is None else torch.lerp(found, self.photo[0, :, rows, columns], self.kept)


class _Cosines(torch.autograd.Function):
    """The sum of 1 - cosine of `rows`, (N, C), and the matched `keys`, read in blocks that fit in a cache.

    keys: (M, C), directions of scaled keys, times the scale; index: (N,); squares: (C,), the scale squared; weights:
    (N,), or None for all ones. In a fifth of the time that autograd needs, and without large maps in between.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, keys: Tensor, index: Tensor, squares: Tensor, weights: Tensor | None) -> Tensor:
        size = max(1, IN_CACHE // 2 // rows.shape[1])
        blocks = zip(torch.split(rows, size), torch.split(index, size), strict=True)
        pairs = [
            torch.stack([(part * keys.index_select(0, matched)).sum(1), part.square() @ squares])
            for part, matched in blocks
        ]
        products, lengths = torch.cat(pairs, 1)
        lengths = lengths.sqrt()
        cosines = products / lengths.clamp_min(EPSILON)
        ctx.save_for_backward(rows, keys, index, squares, weights, cosines, lengths)
        errors = 1 - cosines
        total: Tensor = (errors if weights is None else errors * weights).sum()
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        rows, keys, index, squares, weights, cosines, lengths = ctx.saved_tensors
        (by_sum,) = gradients
        by_key = by_sum / lengths.clamp_min(EPSILON)
        by_key = by_key if weights is None else by_key * weights
        by_row = by_key * cosines / lengths.clamp_min(EPSILON)
        by_row = torch.where(lengths > EPSILON, by_row, 0.0)
        found = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
        size = max(1, IN_CACHE // 2 // rows.shape[1])
        parts = (torch.split(values, size) for values in (found, rows, index, by_row[:, None], by_key[:, None]))
        for own, part, matched, of_row, of_key in zip(*parts, strict=True):
            torch.mul(part, squares, out=own).mul_(of_row).addcmul_(keys.index_select(0, matched), of_key, value=-1)
        return found, None, None, None, None


class NearestLoss:
    """Mean cosine distance of places to the most similar place of the painting, searched at each call.

    keys: (M, C), minus their mean, as the places are, too. size: height and width of the map, of which at most `side`
    rows and columns are compared, evenly spread; `begin` moves them. mask: (1, 1, H, W).

    Departs from Kolkin et al. 2022, sec. 3.3: the picture's places are centred by the painting's mean, so that each
    tile can be compared on its own.
    """

    def __init__(self, keys: Tensor, size: tuple[int, int], *, side: int = 64, mask: Tensor | None = None) -> None:
        self.center = keys.mean(0)
        self.keys = directions(keys, self.center)
        self.size, self.mask, self.step = size, mask, 0
        self.stride = max(1, -(-max(size) // side))

    def begin(self, step: int) -> None:
        """Compare other places in this step of an optimisation."""
        self.step = step

    def __call__(self, features: Tensor) -> Tensor:
        """Return the loss of `features`, (1, C, H, W)."""
        return self.part(features, slice(0, self.size[0]), slice(0, self.size[1]))

    def part(self, features: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return the share of these rows and columns of the features in the loss."""
        stride, down, right = self.stride, *self._offsets()
        picked = (
            slice((down - rows.start) % stride, None, stride),
            slice((right - columns.start) % stride, None, stride),
        )
        places = directions(rows_of(features[(..., *picked)]), self.center)
        errors = 1 - (places * self.keys[nearest(places.detach(), self.keys)]).sum(1)
        if self.mask is not None:
            errors = errors * self.mask[0, 0, rows, columns][picked].flatten()
        return errors.sum() / self._count()

    def _offsets(self) -> tuple[int, int]:
        """Return where the compared places begin: elsewhere in each of stride^2 steps."""
        number = self.step * 7 % self.stride**2 if self.stride % 7 else self.step % self.stride**2
        down, right = divmod(number, self.stride)
        return min(down, self.size[0] - 1), min(right, self.size[1] - 1)

    def _count(self) -> float:
        down, right = self._offsets()
        if self.mask is not None:
            return max(float(self.mask[0, 0, down :: self.stride, right :: self.stride].sum()), 1e-6)
        return float(len(range(down, self.size[0], self.stride)) * len(range(right, self.size[1], self.stride)))
