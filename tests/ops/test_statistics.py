"""Moments: against naive sums, additive, per sample, and in float32 whatever the features are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.ops import moments as statistics
from impasto.ops.moments import Moments, channel_stats, moments, normalize, sum_precisely
from reference import features as twin

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture(params=list(TOLERANCES), ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def features(dtype: torch.dtype) -> Tensor:
    """Two samples of correlated channels that are not centred, (2, 5, 7, 6)."""
    mixture = torch.randn(5, 5, dtype=torch.float64)
    drawn = torch.einsum("ij,bjhw->bihw", mixture, torch.randn(2, 5, 7, 6, dtype=torch.float64))
    return (drawn + torch.tensor([0.0, 1, -2, 3, 0.5]).view(5, 1, 1)).to(dtype)


def close(found: Tensor, wanted: np.ndarray | Tensor, tolerance: float | None = None) -> None:
    """`found` is `wanted` up to its precision's share of the largest value."""
    wanted = wanted.double() if isinstance(wanted, Tensor) else torch.from_numpy(wanted.copy())
    limit = tolerance or TOLERANCES[found.dtype]
    assert found.shape == wanted.shape
    assert float((found.double() - wanted).abs().max()) <= limit * float(wanted.abs().max())


def test_moments_by_hand() -> None:
    found = moments(torch.tensor([[[[1.0, 2.0, 3.0]], [[0.0, 1.0, -1.0]]]]))  # two channels, three positions
    assert found.count == 3
    assert found.total.tolist() == [[6, 0]]
    assert found.gram.tolist() == [[[14, -1], [-1, 2]]]
    assert_close(found.mean, torch.tensor([[2.0, 0.0]]))
    assert_close(found.variance, torch.tensor([[2 / 3, 2 / 3]]))
    assert_close(found.covariance, torch.tensor([[[2 / 3, -1 / 3], [-1 / 3, 2 / 3]]]))
    assert_close(found.deviation(eps=1 / 3), torch.ones(1, 2))


def test_moments_are_the_naive_sums(features: Tensor) -> None:
    found = moments(features)
    for i, one in enumerate(features.double().numpy()):
        close(found.gram[i], twin.gram(one))
        close(found.second[i], twin.gram(one) / 42)
        close(found.mean[i], twin.mean(one))
        close(found.covariance[i], twin.covariance(one))
        close(found.variance[i], np.diag(twin.covariance(one)))
        close(found.deviation(1e-5)[i], twin.deviation(one, 1e-5))


def test_a_mask_weighs_the_positions(features: Tensor) -> None:
    mask = torch.rand(1, 1, 7, 6)
    found = moments(features, mask=mask)
    weights = mask[0, 0].double().numpy()
    assert found.count == pytest.approx(weights.sum(), rel=1e-6)
    for i, one in enumerate(features.double().numpy()):
        close(found.gram[i], twin.gram(one, weights))
        close(found.total[i], (one * weights).sum((1, 2)))


def test_a_hard_mask_selects(features: Tensor) -> None:
    mask = torch.zeros(1, 1, 7, 6)
    mask[..., 2:5, 1:4] = 1
    found, wanted = moments(features, mask=mask), moments(features[..., 2:5, 1:4])
    assert found.count == wanted.count == 9
    close(found.gram, wanted.gram)
    close(found.mean, wanted.mean)


def test_a_mask_of_ones_is_no_mask_and_an_empty_one_gives_no_nan(features: Tensor) -> None:
    found, plain = moments(features, mask=torch.ones(1, 1, 7, 6)), moments(features)
    assert found.count == plain.count
    assert torch.equal(found.gram, plain.gram)
    empty = moments(features, mask=torch.zeros(1, 1, 7, 6))
    assert empty.mean.abs().max() == 0
    assert torch.isfinite(empty.deviation()).all()


def test_the_gram_matrix_is_symmetric_positive_and_blind_to_order(features: Tensor) -> None:
    gram = moments(features).gram
    close(gram, gram.transpose(1, 2))
    smallest = torch.linalg.eigvalsh(gram.double()).amin()
    assert smallest >= -1e-6 * float(gram.abs().max())
    energies = features.double().square().sum((2, 3))
    close(torch.diagonal(gram, dim1=1, dim2=2), energies)
    order = torch.randperm(42)
    shuffled = features.flatten(2)[..., order].view_as(features)
    close(moments(shuffled).gram, gram)
    assert not torch.equal(shuffled, features)


def test_a_gram_matrix_of_fewer_positions_than_channels_has_no_negative_eigenvalue(dtype: torch.dtype) -> None:
    gram = moments(torch.randn(1, 8, 1, 3, dtype=dtype)).gram
    assert torch.linalg.eigvalsh(gram.double()).amin() >= -1e-6 * float(gram.abs().max())


def test_samples_never_mix(features: Tensor) -> None:
    together = moments(features)
    for i in range(2):
        alone = moments(features[i : i + 1])
        close(together.gram[i], alone.gram[0])
        close(together.total[i], alone.total[0])
    changed = features.clone()
    changed[1] += 1
    assert torch.equal(moments(changed).gram[0], together.gram[0])


def test_tiles_add_up_to_the_whole(features: Tensor) -> None:
    tiles = [features[..., y, x] for y in (slice(0, 3), slice(3, 7)) for x in (slice(0, 5), slice(5, 6))]
    for full in (True, False):
        first, *others = [moments(tile, full=full) for tile in tiles]
        found = sum(others, start=first)
        wanted = moments(features, full=full)
        assert found.count == wanted.count == 42
        close(found.total, wanted.total)
        close(found.products, wanted.products)
        close(found.variance, wanted.variance)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_precise_sums_are_the_sums(features: Tensor, full: bool, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.rand(1, 1, 7, 6) if masked else None
    wanted = moments(features.double(), full=full, mask=mask)
    for block, chunk, narrow in ((1 << 16, 1 << 10, 64), (20, 8, 64), (20, 8, 2)):
        monkeypatch.setattr(statistics, "BLOCK", block)
        monkeypatch.setattr(statistics, "CHUNK", chunk)
        monkeypatch.setattr(statistics, "NARROW", narrow)
        found = sum_precisely(features, full=full, mask=mask)
        assert found.count == pytest.approx(wanted.count)
        close(found.total, wanted.total, 1e-6)
        close(found.products, wanted.products, 1e-6)


def test_precise_sums_hardly_depend_on_how_a_picture_is_cut() -> None:
    drawn = 30 + torch.rand(1, 4, 256, 512)
    whole = sum_precisely(drawn)
    parts = sum_precisely(drawn[..., :200]) + sum_precisely(drawn[..., 200:])
    exact = moments(drawn.double())
    error, plain = ((found.covariance - exact.covariance).abs().max() for found in (parts, moments(drawn)))
    assert error <= 1e-4
    assert plain >= 10 * error
    assert_close(parts.covariance, whole.covariance, atol=1e-4, rtol=0)


def test_the_diagonal_alone_is_the_full_ones_diagonal(features: Tensor) -> None:
    full, diagonal = moments(features), moments(features, full=False)
    assert full.full
    assert not diagonal.full
    close(diagonal.products, torch.diagonal(full.products, dim1=1, dim2=2))
    close(diagonal.variance, full.variance)
    close(diagonal.deviation(), full.deviation())


def test_pictures_mix_by_weights_in_raw_second_moments() -> None:
    """The mixture of two pictures is that of both one's positions, whose covariance is no mean of covariances."""
    first = torch.randn(1, 4, 5, 8, dtype=torch.float64) + 3
    second = 0.5 * torch.randn(1, 4, 5, 8, dtype=torch.float64) - 1
    mixed = moments(first) * 0.25 + 0.75 * moments(second)
    together = moments(torch.cat([first, second, second, second], dim=3))
    close(mixed.mean, together.mean)
    close(mixed.second, together.second)
    close(mixed.covariance, together.covariance)
    naive = 0.25 * moments(first).covariance + 0.75 * moments(second).covariance
    assert float((mixed.covariance - naive).abs().max()) > 1


def test_a_constant_channel_has_no_variance_and_a_finite_gradient() -> None:
    features = torch.full((1, 2, 4, 4), 0.1).requires_grad_()
    found = moments(features, full=False)
    assert (found.variance >= 0).all()
    assert (found.variance < 1e-7).all()
    found.deviation().sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(half: torch.dtype) -> None:
    features = (20 + torch.randn(1, 3, 32, 32)).to(half)  # sums of squares around 400,000: beyond float16
    found = moments(features)
    assert found.products.dtype == found.total.dtype == torch.float32
    assert torch.equal(found.products, moments(features.float()).products)
    close(found.mean[0], features.double().mean((2, 3))[0], 1e-5)


def test_autocast_does_not_reach_the_sums() -> None:
    features = torch.randn(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = moments(features)
    assert found.products.dtype == torch.float32
    assert torch.equal(found.products, moments(features).products)


def test_gradients_of_the_sums() -> None:
    features = torch.randn(2, 3, 3, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(1, 1, 3, 2, dtype=torch.float64)

    def flat(found: Moments) -> Tensor:
        return torch.cat([found.total.flatten(), found.products.flatten(), found.deviation().flatten()])

    assert torch.autograd.gradcheck(lambda f: flat(moments(f)), features)
    assert torch.autograd.gradcheck(lambda f: flat(moments(f, full=False, mask=mask)), features)


def test_normalised_features_are_centred_with_deviation_one() -> None:
    features = 1e4 + 0.5 * torch.randn(2, 3, 16, 20)  # raw second moments would leave nothing of the deviation
    found = normalize(features)
    assert_close(found.mean((2, 3)), torch.zeros(2, 3), atol=5e-3, rtol=0)
    assert_close(found.std((2, 3), correction=0), torch.ones(2, 3), atol=1e-3, rtol=0)


def test_channel_stats_are_the_naive_ones(features: Tensor) -> None:
    mean, deviation = channel_stats(features, eps=1e-5)
    assert mean.shape == deviation.shape == (2, 5, 1, 1)
    for i, one in enumerate(features.double().numpy()):
        close(mean[i].flatten(), twin.mean(one), 1e-5)
        close(deviation[i].flatten(), twin.deviation(one, 1e-5), 1e-5)


def test_channel_stats_keep_the_precision_of_double(features: Tensor) -> None:
    mean, deviation = channel_stats(features, eps=1e-5)
    for i, one in enumerate(features.double().numpy()):
        close(mean[i].flatten(), twin.mean(one))
        close(deviation[i].flatten(), twin.deviation(one, 1e-5))


def test_a_flat_channel_normalises_to_zero() -> None:
    assert normalize(torch.full((1, 2, 4, 4), 0.25)).abs().max() < 1e-3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_by_products_is_that_of_the_formula(layout: torch.memory_format, masked: bool) -> None:
    """Once and twice: what is learned through it may be differentiated again."""
    start = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout)
    mask = torch.rand(1, 1, 4, 5, dtype=torch.float64) if masked else None

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        weighted = x if mask is None else x * mask
        return weighted.sum((2, 3)), torch.einsum("bchw,bdhw->bcd", weighted, x)

    def ours(x: Tensor) -> tuple[Tensor, Tensor]:
        found = moments(x, mask=mask)
        return found.total, found.products

    slopes = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)
    results = []
    for way in (ours, formula):
        x = start.clone(memory_format=torch.preserve_format).requires_grad_()
        (first,) = torch.autograd.grad(way(x), x, slopes, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), x)
        results.append((*way(x), first, second))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
