"""A painting's places in few bytes: the most representative ones, in the directions in which they vary most.

Medoids, not means: each one is a real place of the painting, so that its features fit together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from impasto.networks.hypercolumns import COLORS, COLUMNS
from impasto.optimize.nearest import CHUNK
from impasto.stylizers.painting_places import LAST, WEIGHT, balance
from impasto.stylizers.styles import Style

BASIS, CENTER, CODES, STEP = "basis", "center", "codes", "step"
COUNTS = (900, 600, 300, 150)
"""Number of places that are kept at the painting's size and at each half of it."""

LAST_COUNT = 256
DIRECTIONS = 64
ROUNDS = 10


@torch.no_grad()
def summarize(style: Style, widths: Sequence[int], counts: Sequence[int] = COUNTS) -> Style:
    """Return `style`, as nnst encodes it, with `counts` places at its sizes, in bytes; `restore` is the inverse.

    widths: channels of each layer of the columns. Moments are left out: a card holds those of other kinds.
    """
    values = dict(style)
    levels = sorted(int(name.split(".")[0]) for name in values if name.endswith(f".{COLUMNS}"))
    scale = balance(values[f"0.{COLUMNS}"], widths)
    center, basis = _main_directions(torch.cat([values[f"{level}.{COLUMNS}"] for level in levels]), scale)
    kept: dict[str, Tensor] = {CENTER: center, BASIS: basis / scale[:, None]}
    for level, count in zip(levels, counts, strict=False):
        codes = ((values[f"{level}.{COLUMNS}"] - center) * scale) @ basis
        index, members = medoids(codes, count)
        step = codes.abs().amax(0).clamp_min(1e-8) / 127
        kept[f"{level}.{CODES}"] = (codes[index] / step).round().to(torch.int8)
        kept[f"{level}.{STEP}"] = step
        kept[f"{level}.{WEIGHT}"] = members.to(codes.dtype)
        kept[f"{level}.{COLORS}"] = (values[f"{level}.{COLORS}"][index] * 255).round().to(torch.uint8)
    for name in values:
        if name.startswith(f"0.{LAST}"):
            rows = values[name]
            index, _ = medoids(rows, min(LAST_COUNT, 8192 // rows.shape[1]))
            step = rows.abs().amax(0).clamp_min(1e-8) / 127
            kept[name], kept[f"{name}.{STEP}"] = (rows[index] / step).round().to(torch.int8), step
    return Style(kept, style.kind, style.info)


def restore(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the places that `summarize` kept, as nnst encodes them; others are returned unchanged."""
    if BASIS not in values:
        return dict(values)
    found: dict[str, Tensor] = {}
    for name, value in values.items():
        level, _, kind = name.partition(".")
        if kind == CODES:
            codes = value.to(values[BASIS].dtype) * values[f"{level}.{STEP}"]
            found[f"{level}.{COLUMNS}"] = codes @ values[BASIS].T + values[CENTER]
        elif kind == COLORS:
            found[name] = value.to(values[BASIS].dtype) / 255
        elif kind.startswith(LAST) and not kind.endswith(STEP):
            found[name] = value.to(values[BASIS].dtype) * values[f"{name}.{STEP}"]
        elif name not in (BASIS, CENTER) and not kind.endswith(STEP):
            found[name] = value
    return found


def with_moments(style: Style, moments: Style | None) -> Style:
    """Return `style`, of places, with `moments` if it has none; in a mixture each painting gets the mixture's."""
    if moments is None or any(name.endswith(".mean") for name in style):
        return style
    numbers = [name.removesuffix("share") for name in style if name.endswith(".share")] or [""]
    added = {f"{number}{name}": value for number in numbers for name, value in moments.items()}
    return Style({**style, **added}, style.kind, style.info)


def _main_directions(rows: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of `rows`, (N, C), and the directions in which they vary most once scaled, (C, D)."""
    center = rows.mean(0)
    scaled = ((rows - center) * scale).double()
    _, axes = torch.linalg.eigh(scaled.T @ scaled)
    return center, axes[:, -DIRECTIONS:].to(rows)


@torch.no_grad()
def medoids(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the indices of `count` representative rows of `rows`, (N, C), and how many rows each represents.

    k-means++ (Arthur & Vassilvitskii 2007), then for each cluster the row that is closest to its mean.
    """
    if len(rows) <= count:
        return torch.arange(len(rows)), torch.ones(len(rows))
    means = rows[_spread_start(rows, count)]
    for _ in range(ROUNDS):
        owner = _closest(rows, means)
        members = torch.bincount(owner, minlength=count)
        sums = torch.zeros_like(means).index_add_(0, owner, rows)
        means = torch.where(members[:, None] > 0, sums / members.clamp_min(1)[:, None], means)
    index = torch.unique(_closest(means, rows))
    return index, torch.bincount(_closest(rows, rows[index]), minlength=len(index))


def _spread_start(rows: Tensor, count: int) -> Tensor:
    """Return indices of `count` rows, drawn with chances that grow with the squared distance to those before."""
    chance = torch.Generator().manual_seed(0)
    index = [0]
    gaps = (rows - rows[0]).square().sum(1)
    for _ in range(count - 1):
        reach = gaps.double().cumsum(0).cpu()
        drawn = torch.rand((), generator=chance, dtype=torch.float64) * reach[-1]
        index.append(int(torch.searchsorted(reach, drawn).clamp_max(len(rows) - 1)))
        gaps = torch.minimum(gaps, (rows - rows[index[-1]]).square().sum(1))
    return torch.tensor(index)


def _closest(rows: Tensor, others: Tensor) -> Tensor:
    """Return the index of the one of `others`, (M, C), that is closest to each of `rows`, (N, C)."""
    size = max(1, CHUNK // len(others))
    return torch.cat([torch.cdist(part, others).argmin(1) for part in torch.split(rows, size)])
