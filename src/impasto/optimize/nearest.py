"""Nearest neighbours: the most similar place of a painting for each place of the picture, and losses from it.

After Kolkin et al. 2022 ("Neural neighbor style transfer"): a place's features are replaced by those of the painting's
place at the smallest cosine distance.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 23
"""Number of similarities in memory at once."""

EPSILON = 1e-8
MatchForm = Literal["cosine", "relative"]


def rows_of(features: Tensor) -> Tensor:
    """Return (1, C, H, W) as (H W, C): a row for each place."""
    return features[0].flatten(1).T


def directions(rows: Tensor, center: Tensor | float = 0.0) -> Tensor:
    """Return rows, (N, C), minus `center` and with length 1; rows that equal the center become 0."""
    return F.normalize(rows - center, dim=1, eps=EPSILON)


@torch.no_grad()
def nearest(queries: Tensor, keys: Tensor, handicap: Tensor | None = None) -> Tensor:
    """Return, for each of `queries`, (N, C), the index of the most similar of `keys`, (M, C); the first one of equals.

    Both have length 1. handicap: (M,), subtracted from a key's cosine similarity. Works in chunks of bounded size.
    """
    size = max(1, CHUNK // max(1, len(keys)))
    found = [_similarities(part, keys, handicap).argmax(1) for part in torch.split(queries, size)]
    return torch.cat(found) if found else queries.new_zeros(0, dtype=torch.long)


def _similarities(queries: Tensor, keys: Tensor, handicap: Tensor | None) -> Tensor:
    found = queries @ keys.T
    return found if handicap is None else found.sub_(handicap)


@torch.no_grad()
def spread(queries: Tensor, keys: Tensor, wanted: Tensor, amount: float, rounds: int = 8) -> Tensor:
    """Return handicaps, (M,), with which keys are taken about as often as `wanted`, (M,), shares of sum 1.

    A step towards optimal transport: in each round, keys that are taken too often lose up to `amount` / `rounds` of
    their similarity. So flat areas don't all get the same place of the painting, and its rare motifs are used.
    """
    handicap = torch.zeros(len(keys), dtype=keys.dtype, device=keys.device)
    expected = (wanted * len(queries)).clamp_min(EPSILON)
    known = queries @ keys.T if len(queries) * len(keys) <= CHUNK else None
    for _ in range(rounds):
        index = nearest(queries, keys, handicap) if known is None else (known - handicap).argmax(1)
        taken = torch.bincount(index, minlength=len(keys)).to(keys)
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

    def __call__(self, features: Tensor) -> Tensor:
        """Return the loss of `features`, (1, C, H, W)."""
        return self.part(features, slice(None), slice(None))

    def part(self, features: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return the share of these rows and columns of the features in the loss."""
        wanted = self._wanted(rows, columns)
        scale = self.scale[:, None, None]
        if self.form == "cosine":
            errors = 1 - F.cosine_similarity(features[0] * scale, wanted * scale, dim=0, eps=EPSILON)
        else:
            errors = ((features[0] - wanted) * scale).square().sum(0)
        if self.mask is not None:
            errors = errors * self.mask[0, 0, rows, columns]
        return errors.sum() / self.divisor

    def _wanted(self, rows: slice, columns: slice) -> Tensor:
        index = self.index[rows, columns]
        found = self.keys[index.flatten()].T.reshape(-1, *index.shape)
        return found if self.photo is None else torch.lerp(found, self.photo[0, :, rows, columns], self.kept)


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
