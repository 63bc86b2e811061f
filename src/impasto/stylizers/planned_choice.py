"""The choice of a painting's place for each of a photo's, planned on a sample: in a tile as in the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from impasto.optimize.nearest import Similarities, directions, nearest
from impasto.stylizers.coherent_places import Anchors, draw_anchors, follow
from impasto.stylizers.painting_places import Places, balance, owners_bonus

SAMPLED = 1024
"""Number of places of the photo on which a choice is planned."""
LEAST_WEIGHT = 0.5
COMPARED = 64
"""Number of directions in which places are compared: those in which the painting's differ most."""


@dataclass(frozen=True)
class KnownPlaces:
    """Places, and what of them is compared.

    scale: (C,), factors of the columns' channels; basis: (C, D), the compared directions; keys: (M, D), the places;
    around: (N, D), those beside them, too, if these are known.
    """

    places: Places
    scale: Tensor
    basis: Tensor
    keys: Tensor
    around: Tensor | None = None


@dataclass(frozen=True)
class Choice:
    """How to choose: from a fixed center, with fixed handicaps of the painting's places.

    center: (C,), the mean of the photo's scaled columns; handicap: (M,), subtracted from the places' similarity, None:
    nothing; anchors: what the photo's other places follow if it is at most `slack` less similar; None: nothing.
    """

    known: KnownPlaces
    center: Tensor
    handicap: Tensor | None = None
    anchors: Anchors | None = None
    slack: float = 0.0

    def index(self, columns: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Return the place to take among `Places.all`, (h, w), for each of `columns`, (1, C, h, w).

        corner: position of `columns` in the whole picture.
        """
        with torch.autocast(columns.device.type, enabled=False):
            queries, index = self.look(columns)
            around, keys = self.known.places.around, self.known.around
            if self.anchors is None or around is None or keys is None:
                return self.known.places.among_all(index)
            return follow(queries, index, self.anchors, around, keys, self.slack, corner)

    def look(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is compared of `columns`, (1, C, h, w): (h, w, D), and the most similar candidates, (h, w)."""
        queries = self.compare(columns[0].flatten(1).T.to(self.center))
        size = columns.shape[-2:]
        return queries.view(*size, -1), nearest(queries, self.known.keys, self.handicap).view(size)

    def anchored(self, columns: Tensor, size: tuple[int, int], slack: float) -> Choice:
        """Return a choice that hangs together; columns: (1, C, a, b), at the anchors of a picture of `size` places."""
        around = self.known.places.around
        if around is None or not slack:
            return self
        with torch.autocast(columns.device.type, enabled=False):
            queries, index = self.look(columns)
            anchors = draw_anchors(queries, index, self.known.keys, around, size, self.handicap)
            return replace(self, anchors=anchors, slack=slack)

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
        around = None if places.around is None else places.around_keys(scale) @ basis
        return KnownPlaces(places, scale, basis, keys @ basis, around)


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
