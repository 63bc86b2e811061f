"""What keeps samples apart: derangements, Li's term, Ulyanov's term, and a generator that collapses without."""

from __future__ import annotations

import collections
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from cli_support import use_one_thread
from impasto.errors import OptionError
from impasto.ops.moments import moments
from impasto.optimize.losses import CovarianceLoss
from impasto.textures.diversity import derangement, diversity_loss, julesz_loss
from reference import textures as reference
from tiny import narrow_slim, painting

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_a_derangement_leaves_nothing_in_its_place(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        order = derangement(count, generator)
        assert sorted(order.tolist()) == list(range(count))
        assert not any(place == number for place, number in enumerate(order.tolist()))


def test_all_derangements_come_as_often() -> None:
    generator = torch.Generator().manual_seed(1)
    seen = collections.Counter(tuple(derangement(4, generator).tolist()) for _ in range(1800))
    assert len(seen) == 9
    assert min(seen.values()) > 140
    assert max(seen.values()) < 260


def test_one_sample_is_too_few() -> None:
    with pytest.raises(OptionError, match="use 2 or more"):
        derangement(1)
    with pytest.raises(OptionError, match="use 2 or more"):
        julesz_loss(torch.zeros(1, 3))


def test_the_terms_are_those_of_the_papers() -> None:
    features = torch.randn(4, 3, 5, 2, dtype=torch.float64)
    partners = torch.tensor([2, 3, 1, 0])
    assert float(diversity_loss(features, partners)) == pytest.approx(
        reference.diversity(features.numpy(), partners.tolist())
    )
    assert float(julesz_loss(features)) == pytest.approx(reference.julesz(features.numpy()))


def test_no_gradient_runs_into_the_partners() -> None:
    features = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    partners = torch.tensor([1, 2, 0])
    (found,) = torch.autograd.grad(diversity_loss(features, partners), features)
    others = features.detach()[partners]
    assert_close(found, -2 * (features.detach() - others) / features.numel())


def test_samples_that_are_the_same_have_a_finite_gradient() -> None:
    samples = torch.ones(3, 4, requires_grad=True)
    julesz_loss(samples).backward()  # type: ignore[no-untyped-call]
    assert samples.grad is not None
    assert bool(torch.isfinite(samples.grad).all())


class Seeded(nn.Module):
    """A generator that knows every pixel's place, as Li's does: nothing but the term keeps it from one picture."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.picture = nn.Parameter(0.5 + 0.1 * torch.randn(3, 16, 16, generator=generator))
        self.ways = torch.randn(8, 3, 16, 16, generator=generator)
        self.strength = nn.Parameter(torch.full((8, 1, 1, 1), 0.05))

    def forward(self, noise: Tensor) -> Tensor:
        return self.picture + torch.einsum("bn,nchw->bchw", noise, self.ways * self.strength)


def train(term: Callable[[Tensor], Tensor], weight: float, steps: int = 150) -> tuple[float, float]:
    """The spread of the samples' pixels and the texture loss after a training with that diversity term."""
    network, layers = narrow_slim(), ("relu1_1", "relu2_1")
    targets = {k: CovarianceLoss(moments(v)) for k, v in network(painting(32, 32), layers).items()}
    generator, noise = Seeded(), torch.Generator().manual_seed(3)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.01)

    def texture(samples: Tensor) -> Tensor:
        seen = network(samples, layers)
        return torch.stack([targets[layer](seen[layer]) for layer in layers]).mean()

    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
        samples = generator(torch.randn(4, 8, generator=noise))
        loss = texture(samples) + weight * term(samples)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        samples = generator(torch.randn(64, 8, generator=noise))
        return float(samples.std(0).mean()), float(texture(samples))


def by_partners(samples: Tensor) -> Tensor:
    return diversity_loss(samples, derangement(len(samples), torch.Generator().manual_seed(4)))


@pytest.fixture(scope="module")
def plain() -> tuple[float, float]:
    """Spread and texture loss without a term."""
    return train(julesz_loss, 0.0)


def test_without_a_term_a_generator_collapses(plain: tuple[float, float]) -> None:
    spread, _ = train(julesz_loss, 0.0, steps=0)
    assert spread > 0.1
    assert plain[0] <= 1e-2


@pytest.mark.parametrize(("term", "weights"), [(by_partners, (5.5, 6.0)), (julesz_loss, (0.002, 0.005))])
def test_the_more_of_a_term_the_more_samples_differ(
    term: Callable[[Tensor], Tensor], weights: tuple[float, float], plain: tuple[float, float]
) -> None:
    (some, _), (more, loss) = (train(term, weight) for weight in weights)
    untrained = train(term, 0.0, steps=0)[1]
    assert 5 * plain[0] < some < more
    assert loss < plain[1] + 0.1 * (untrained - plain[1])  # a tenth of what was learnt, at most
