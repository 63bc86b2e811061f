"""Compares style cards from files with what a method makes itself: names, ranks and shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from impasto.stylizers.styles import COARSE, Style, parts

SIZES = ((32, 32), (48, 64))
"""Heights and widths of the paintings from which a method makes examples."""


def sample_paintings() -> list[Tensor]:
    """Return small paintings, (1, 3, H, W), of different sizes, which show what in a style depends on the size."""
    found = []
    for height, width in SIZES:
        y, x = torch.linspace(0, 1, height).view(-1, 1), torch.linspace(0, 1, width).view(1, -1)
        waves = [0.5 + 0.5 * torch.sin(9 * x * (1 + y) + 5 * turn) * torch.cos(7 * y + turn) for turn in range(3)]
        found.append(torch.stack(waves)[None])
    return found


def find_misfit(
    style: Style,
    examples: Sequence[Mapping[str, Tensor]],
    read: Callable[[Style], Mapping[str, Tensor]] = lambda part: part,
) -> str | None:
    """Return the name of a tensor that is missing or has another shape than in the examples; None if all fit.

    A dimension in which the examples differ may have any length. read: converts a card's content to an encoded style.
    """
    names = [name for name in examples[0] if not name.startswith(COARSE) and all(name in other for other in examples)]
    for part in (read(part) for _, part in parts(style)):
        for name in names:
            if name not in part or not _fits(part[name], [one[name] for one in examples]):
                return name
    return None


def _fits(value: Tensor, examples: Sequence[Tensor]) -> bool:
    if any(value.dim() != one.dim() or value.is_floating_point() != one.is_floating_point() for one in examples):
        return False
    sides = zip(value.shape, *(one.shape for one in examples), strict=True)
    return all(own > 0 and (own == known[0] or len(set(known)) > 1) for own, *known in sides)
