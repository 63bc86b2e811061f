"""MetaStyle: the inner steps, the gradient through them, the network that ships."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from impasto.errors import OptionError
from impasto.feedforward.transformation_network import TransformationNetwork, slim_network
from impasto.methods.metastyle import MetaStyle, MetaStyleOptions, MetaStyleTraining, clip_each, paper_network
from impasto.networks.layers import count_parameters
from impasto.ops.moments import adaptive_instance_norm, moments
from impasto.optimize.perceptual_loss import PerceptualLoss
from tiny import narrow_slim, painting, varied

DOUBLE = torch.float64


def toy(network: TransformationNetwork | None = None, **options: object) -> MetaStyleTraining:
    """A learner in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = network or varied(slim_network(2, 1))
    layers = ("relu1_1", "relu2_1")
    judge = PerceptualLoss(
        narrow_slim().double(), style_layers=layers, content_layers=layers[1:], tv_weight=1.0, gram_weight=0.5
    )
    return MetaStyleTraining(network.double(), judge, **options)  # type: ignore[arg-type]


def pictures(count: int = 2, side: int = 16, seed: int = 1) -> Tensor:
    return torch.cat([painting(side, side, seed=seed + number) for number in range(count)]).double()


def outer_loss(learner: MetaStyleTraining) -> Tensor:
    terms = learner.training_terms(pictures(), pictures(seed=9), 0.0)
    return torch.stack(list(terms.values())).sum()


def outer_gradient(learner: MetaStyleTraining) -> Tensor:
    learner.zero_grad()
    outer_loss(learner).backward()
    return torch.cat([parameter.grad.flatten() for parameter in learner.parameters() if parameter.grad is not None])


# --- the inner steps


def test_an_inner_step_moves_the_3200_scales_and_shifts_of_the_papers_network_and_nothing_else() -> None:
    learner = toy(paper_network(), inner_rate=0.01)
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    start = learner.spread(1)
    moved = learner.move(start, pictures(1), learner._frozen[0].targets(pictures(1, seed=9)), torch.tensor([0]))
    assert sum(value.numel() for value in start) == sum(value.numel() for value in moved) == 3200
    for then, now in zip(start, moved, strict=True):
        assert now.shape == then.shape
        assert not torch.equal(now, then)
    after = learner.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert count_parameters(learner.network) == 1_679_235


def test_an_inner_step_is_gradient_descent_on_each_style_by_itself() -> None:
    learner = toy(inner_rate=0.05)
    (loss,) = learner._frozen
    support, styles = pictures(), pictures(seed=9)
    both = learner.move(learner.spread(2), support, loss.targets(styles), torch.arange(2))
    for number in range(2):
        own = slice(number, number + 1)
        painted = learner.network(support[own])
        total = torch.stack(list(loss(painted, support[own], styles[own]).values())).sum()
        values = [value for norm in zip(learner.network.scales, learner.network.shifts, strict=True) for value in norm]
        slopes = torch.autograd.grad(total, values)
        for value, slope, found in zip(values, slopes, both, strict=True):
            torch.testing.assert_close(found[number], value - 0.05 * slope, rtol=1e-9, atol=1e-9)


def test_inner_steps_lower_the_loss_of_the_photos_that_they_see() -> None:
    learner = toy(inner_steps=5, inner_rate=0.01)
    (loss,) = learner._frozen
    support, targets, numbers = pictures(), loss.targets(pictures(seed=9)), torch.arange(2)
    found = []
    for norms in (learner.spread(2), learner.move(learner.spread(2), support, targets, numbers)):
        painted = learner.network(support, list(zip(norms[::2], norms[1::2], strict=True)))
        found.append(float(torch.stack(list(loss.terms(painted, support, targets).values())).sum().detach()))
    assert found[1] < found[0]


# --- the outer gradient


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.5), (3, 0.02), (5, 0.02)])
def test_the_outer_gradient_is_that_of_finite_differences(steps: int, rate: float) -> None:
    learner = toy(inner_steps=steps, inner_rate=rate)
    outer_gradient(learner)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in learner.named_parameters():
        way = torch.randn(parameter.shape, generator=generator, dtype=DOUBLE)
        way /= way.norm()
        assert parameter.grad is not None
        slope = float((parameter.grad * way).sum())
        found = _difference(learner, parameter, way)
        assert slope == pytest.approx(found, rel=1e-3, abs=1e-6), name


def _difference(learner: MetaStyleTraining, parameter: Tensor, way: Tensor, eps: float = 1e-8) -> float:
    kept, losses = parameter.data.clone(), []
    for sign in (1, -1):
        parameter.data = kept + sign * eps * way
        losses.append(float(outer_loss(learner).detach()))
    parameter.data = kept
    return (losses[0] - losses[1]) / (2 * eps)


def test_without_a_step_the_outer_gradient_is_the_ordinary_one_on_the_other_photos() -> None:
    learner = toy(inner_rate=0.0)
    found = outer_gradient(learner)
    learner.zero_grad()
    (loss,) = learner._frozen
    query, style = pictures()[1:], pictures(seed=9)[:1]
    torch.stack(list(loss(learner.network(query), query, style).values())).sum().backward()
    ordinary = torch.cat([value.grad.flatten() for value in learner.parameters() if value.grad is not None])
    torch.testing.assert_close(found, ordinary, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(outer_gradient(toy(inner_steps=0)), ordinary, rtol=1e-8, atol=1e-10)


def test_first_order_has_the_same_loss_and_another_gradient() -> None:
    second, first = toy(inner_rate=0.1), toy(inner_rate=0.1, first_order=True)
    torch.testing.assert_close(outer_loss(first), outer_loss(second))
    a, b = outer_gradient(second), outer_gradient(first)
    assert float((a - b).norm() / a.norm()) > 0.01


def test_sums_of_features_can_be_differentiated_twice() -> None:
    def normalised(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return adaptive_instance_norm(x, shift, scale)

    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 3, 4, 5, generator=generator, dtype=DOUBLE, requires_grad=True)
    own = torch.randn(1, 3, generator=generator, dtype=DOUBLE, requires_grad=True)
    each = torch.randn(2, 3, generator=generator, dtype=DOUBLE, requires_grad=True)
    wide = torch.randn(1, 65, 2, 2, generator=generator, dtype=DOUBLE, requires_grad=True)
    sums: Callable[[Tensor], Tensor] = lambda y: moments(y, full=False).deviation()  # noqa: E731
    assert torch.autograd.gradgradcheck(normalised, (x, own, own))
    assert torch.autograd.gradgradcheck(normalised, (x, each, each))
    assert torch.autograd.gradgradcheck(sums, (wide,))


def test_steeper_gradients_than_wanted_are_shortened_style_by_style() -> None:
    steep, gentle = torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([[4.0], [0.4]])
    found = clip_each([steep, gentle], 1.0)
    torch.testing.assert_close(found[0], torch.tensor([[0.6, 0.0], [0.3, 0.0]]))
    torch.testing.assert_close(found[1], torch.tensor([[0.8], [0.4]]))
    learner = toy(inner_rate=1.0, inner_clip=1e-3)
    moved = learner.move(learner.spread(1), pictures(1), learner._frozen[0].targets(pictures(1)), torch.tensor([0]))
    step = torch.cat([(now - then).flatten() for now, then in zip(moved, learner.spread(1), strict=True)])
    assert float(step.detach().norm()) == pytest.approx(1e-3)


def test_a_batch_too_small_for_the_shots_is_a_mistake() -> None:
    with pytest.raises(OptionError, match="--batch 4"):
        toy(shots=2).training_terms(pictures(), pictures(), 0.0)


# --- the method


def test_a_painting_has_to_be_adapted_to() -> None:
    with pytest.raises(OptionError, match="impasto adapt"):
        MetaStyle(MetaStyleOptions(), network=slim_network(2, 1)).encode_style(painting())


def test_the_preview_shows_photos_artworks_and_both_paintings() -> None:
    learner = toy().float()
    learner._frozen[0].network.float()
    assert learner.preview(pictures().float(), pictures().float()).shape == (1, 3, 64, 32)
