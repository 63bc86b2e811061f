"""Nearest neighbours against float64 twins, in chunks and in any order; the losses made of them, tile by tile."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.networks.hypercolumns import COLORS, COLUMNS, Hypercolumns
from impasto.optimize import nearest as module
from impasto.optimize.losses import Objective, SelfSimilarityLoss, Term
from impasto.optimize.nearest import (
    MatchedLoss,
    NearestLoss,
    Similarities,
    directions,
    first_largest,
    nearest,
    rows_of,
)
from impasto.optimize.tiled_objective import TiledObjective, look
from impasto.stylizers.painting_places import Places, choose, share_out
from tiny import narrow_slim, painting

LAYERS = ("relu1_2", "relu2_1", "relu3_2", "relu4_1")


def rows(count: int, channels: int = 7, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def twin(queries: Tensor, keys: Tensor) -> list[int]:
    """The nearest keys by centred cosine distance, one by one in float64."""
    q, k = queries.double().numpy(), keys.double().numpy()
    q, k = q - q.mean(0), k - k.mean(0)
    return [int(np.argmin([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in k])) for a in q]


def match(queries: Tensor, keys: Tensor) -> Tensor:
    return nearest(directions(queries, queries.mean(0)), directions(keys, keys.mean(0)))


def test_neighbours_are_those_of_a_float64_twin() -> None:
    queries, keys = rows(60), rows(45, seed=1)
    assert match(queries, keys).tolist() == twin(queries, keys)


def test_chunks_give_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = rows(60), rows(45, seed=1)
    whole = match(queries, keys)
    monkeypatch.setattr(module, "IN_CACHE", 45 * 7)
    assert torch.equal(match(queries, keys), whole)


@pytest.mark.parametrize("length", [1, 45, 64, 128, 192])
def test_the_first_of_equals_is_found_in_blocks_as_in_one_piece(length: int) -> None:
    values = torch.randint(0, 7, (50, length), generator=torch.Generator().manual_seed(3)).float()
    assert torch.equal(first_largest(values), values.argmax(1))
    assert torch.equal(first_largest(values), torch.from_numpy(values.numpy().argmax(1)))


def test_handicaps_are_subtracted_in_the_product() -> None:
    queries, keys, handicap = directions(rows(60)), directions(rows(128, seed=1)), rows(128, 1, seed=2)[:, 0].abs()
    wanted = (queries.double() @ keys.double().T - handicap.double()).argmax(1)
    assert torch.equal(nearest(queries, keys, handicap), wanted)


def test_the_order_of_the_paintings_places_does_not_matter() -> None:
    queries, keys = rows(60), rows(45, seed=1)
    order = torch.randperm(45, generator=torch.Generator().manual_seed(2))
    assert torch.equal(order[match(queries, keys[order])], match(queries, keys))


def test_a_place_that_equals_the_mean_is_no_nan() -> None:
    assert directions(torch.ones(3, 4), torch.ones(4)).tolist() == [[0.0] * 4] * 3


def test_spreading_uses_more_places_and_takes_none_by_far_too_often() -> None:
    queries = directions(torch.cat([rows(300) * 0.05 + 1, rows(30, seed=4)]))  # most of them nearly alike
    keys = directions(rows(40, seed=1))
    wanted = torch.full((40,), 1 / 40)
    similar = Similarities(queries, keys)
    before = torch.bincount(nearest(queries, keys), minlength=40)
    after = torch.bincount(similar.nearest(similar.spread(wanted, 0.5)), minlength=40)
    assert after.max() < before.max()
    assert (after > 0).sum() > (before > 0).sum()
    assert torch.equal(similar.spread(wanted, 0.0), torch.zeros(40))


def test_similarities_that_are_not_kept_give_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = directions(rows(60)), directions(rows(45, seed=1))
    handicap = rows(45, 1, seed=2)[:, 0].abs() / 10
    kept = Similarities(queries, keys)
    monkeypatch.setattr(module, "KEPT", 45 * 20)
    computed = Similarities(queries, keys)
    assert kept.table is not None
    assert computed.table is None
    assert torch.equal(kept.nearest(handicap), computed.nearest(handicap))
    wanted = torch.full((45,), 1 / 45)
    assert torch.equal(computed.spread(wanted, 0.2), Similarities(queries[::3], keys).spread(wanted, 0.2))


def test_two_paintings_get_their_shares() -> None:
    scores = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.4, 0.0])
    for share in (0.1, 0.5, 0.8):
        taken = torch.bincount(share_out(scores, torch.tensor([share, 1 - share])), minlength=2)[0] / 1000
        assert abs(float(taken) - share) < 0.03


def test_each_painting_is_centred_by_its_own_mean() -> None:
    columns = torch.cat([rows(30), rows(20, seed=1) + 5])
    owner = torch.tensor([0] * 30 + [1] * 20)
    places = Places(columns, rows(50, 3), owner, torch.tensor([0.5, 0.5]))
    keys = places.keys(torch.ones(7))
    assert_close(keys[30:], directions(columns[30:], columns[30:].mean(0)))
    assert_close(places.expected.sum(), torch.tensor(1.0))
    found = owner[choose(directions(rows(200, seed=3)).view(10, 20, 7), places, torch.ones(7), 0.0)]
    assert abs(float(found.float().mean()) - 0.5) < 0.03


# --- losses


@pytest.mark.parametrize("form", ["cosine", "relative"])
def test_the_matched_loss_is_that_of_a_float64_twin(form: str) -> None:
    keys, scale = rows(9, 5).abs(), rows(1, 5, 3)[0].abs()
    index = torch.tensor([[0, 3, 3], [8, 1, 4]])
    features = torch.rand(1, 5, 2, 3)
    mask = torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 1.0]])
    loss = MatchedLoss(keys, index, scale, form, mask=mask[None, None])  # type: ignore[arg-type]
    x, k, s, m = (t.double().numpy() for t in (features[0], keys, scale, mask))
    total = 0.0
    for row in range(2):
        for column in range(3):
            a, b = x[:, row, column] * s, k[index[row, column]] * s
            error = ((a - b) ** 2).sum()
            if form == "cosine":
                error = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            total += m[row, column] * error
    total /= m.sum() if form == "cosine" else m.sum() * ((k * s - (k * s).mean(0)) ** 2).sum(1).mean()
    assert_close(float(loss(features)), float(total), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_matched_losss_gradient_is_that_of_cosine_similarity(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_CACHE", 2 * 5 * 2)  # blocks of two places
    keys, scale, index = rows(9, 5), rows(1, 5, 3)[0].abs(), torch.tensor([[0, 3, 3], [8, 1, 4]])
    mask = torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 1.0]]) if masked else torch.ones(2, 3)
    features = torch.rand(1, 5, 2, 3).requires_grad_()
    loss = MatchedLoss(keys, index, scale, mask=mask[None, None] if masked else None)(features)
    wanted = keys[index.flatten()].T.reshape(5, 2, 3) * scale[:, None, None]
    errors = 1 - torch.cosine_similarity(features[0] * scale[:, None, None], wanted, dim=0)
    twin = (errors * mask).sum() / mask.sum()
    (found,), (expected,) = torch.autograd.grad(3 * loss, features), torch.autograd.grad(3 * twin, features)
    assert_close(found, expected)
    flat = torch.zeros(1, 5, 2, 3, requires_grad=True)
    MatchedLoss(keys, index, scale)(flat).backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())


def test_what_equals_its_match_has_no_loss_and_the_photo_can_be_kept() -> None:
    keys, index = rows(6, 5), torch.arange(6).view(2, 3)
    features, photo = keys.T.reshape(1, 5, 2, 3), torch.rand(1, 5, 2, 3)
    ones = torch.ones(5)
    assert float(MatchedLoss(keys, index, ones)(features)) < 1e-6
    assert float(MatchedLoss(keys, index, ones, "relative", photo=photo, kept=1.0)(photo)) < 1e-12


def test_the_last_pass_is_that_of_a_float64_twin() -> None:
    keys, features = rows(20, 5), torch.randn(1, 5, 4, 6, generator=torch.Generator().manual_seed(3))
    center = keys.double().numpy().mean(0)
    k, x = keys.double().numpy() - center, rows_of(features).double().numpy() - center
    wanted = np.mean([min(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in k) for a in x])
    assert_close(float(NearestLoss(keys, (4, 6))(features)), float(wanted), atol=1e-5, rtol=1e-5)


def test_the_last_pass_looks_at_every_place_in_turn() -> None:
    loss = NearestLoss(rows(20, 2), (12, 12), side=4)
    seen = torch.zeros(12, 12)
    for step in range(9):
        loss.begin(step)
        features = torch.randn(1, 2, 12, 12, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(features), features)
        seen += (gradient[0].abs().sum(0) > 0).float()
    assert torch.equal(seen, torch.ones(12, 12))


def test_self_similarity_minds_what_belongs_together_not_how_strong_it_is() -> None:
    photo = torch.rand(1, 6, 8, 8)
    loss = SelfSimilarityLoss(photo)
    assert float(loss(photo)) < 1e-6
    assert_close(loss(photo * 3 + 2), loss(photo), atol=1e-4, rtol=0)
    mixed = photo.flatten(2)[..., torch.randperm(64)].view(1, 6, 8, 8)
    assert float(loss(mixed)) > 0.1


# --- in tiles


@pytest.mark.parametrize("size", [(96, 128), (97, 131), (110, 75)])
def test_columns_and_losses_in_tiles_are_those_of_the_whole(size: tuple[int, int]) -> None:
    network = Hypercolumns(narrow_slim(), LAYERS)
    image = painting(*size, seed=3)
    whole = network(image, {COLUMNS, COLORS})
    cut, _ = look(network, image, (COLUMNS, COLORS), (), tile=48)
    assert whole[COLUMNS].shape == (1, sum(network.widths), size[0] // 4, size[1] // 4)
    for layer in (COLUMNS, COLORS):
        assert_close(cut[layer], whole[layer], atol=1e-5, rtol=1e-5)
    mask = torch.rand(1, 1, size[0] // 4, size[1] // 4)
    index = torch.randint(0, 50, mask.shape[-2:])
    keys = rows_of(whole[COLUMNS])[:50] + 0.1 * rows(50, sum(network.widths))
    last = NearestLoss(rows_of(network(painting(), {"relu3_1"})["relu3_1"]), mask.shape[-2:], side=9, mask=mask)
    last.begin(5)
    terms = [
        Term("match", COLUMNS, MatchedLoss(keys, index, torch.ones(keys.shape[1]), mask=mask)),
        Term("colors", COLORS, MatchedLoss(rows(50, 3), index, torch.ones(3), "relative")),
        Term("last", "relu3_1", last),
    ]
    objective = Objective(network, terms)
    assert_close(*(evaluated(made, image) for made in (TiledObjective(objective, network, size, 48), objective)))


def evaluated(objective: Objective | TiledObjective, image: Tensor) -> dict[str, Tensor]:
    image = image.clone().requires_grad_()
    terms = objective(image)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    return {**{name: value.detach() for name, value in terms.items()}, "gradient": image.grad}
