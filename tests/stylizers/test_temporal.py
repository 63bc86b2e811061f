"""The temporal loss: what it is, and that an optimised video flickers less by it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from clips import pan
from impasto.images.flow import warping_error
from impasto.methods.gatys import Gatys
from impasto.optimize.losses import ContentLoss, Objective, TemporalLoss, Term
from impasto.optimize.tiled_objective import TiledObjective
from impasto.progress import Step
from impasto.stylizers.video_coherence import Coherence
from reference.temporal import temporal_loss
from tiny import narrow_slim, painting, tiny_gatys

STEP = 2
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}


def known_flow(frames: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """What tells the flow between two of the `frames` of a pan."""

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        i, j = (next(k for k, frame in enumerate(frames) if torch.equal(frame, one)) for one in (first, second))
        flow = torch.zeros(1, 2, *first.shape[-2:])
        flow[:, 0] = (i - j) * STEP
        return flow

    return estimate


def paint(method: Gatys, frames: list[Tensor], held: float, *, carried: float = 0.0) -> list[Tensor]:
    coherence = Coherence(method, carried=carried, held=held, estimate=known_flow(frames))
    style = painting(40, 40, seed=9)
    return [coherence.paint(frame, lambda frame=frame: method.stylize(frame, style)) for frame in frames]


def error_of(results: list[Tensor], frames: list[Tensor]) -> float:
    flow = known_flow(frames)(frames[0], frames[1])
    return sum(warping_error(a, b, flow, -flow) or 0.0 for a, b in pairwise(results))


@pytest.fixture
def frames() -> list[Tensor]:
    return pan(painting(32, 64), 4, 32, 48, STEP)


# --- the loss


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=["float32", "float64"])
def test_the_loss_is_the_naive_one(dtype: torch.dtype) -> None:
    image, moved = torch.rand(2, 1, 3, 5, 7, dtype=dtype)
    mask = torch.rand(1, 1, 5, 7, dtype=dtype)
    found = TemporalLoss(moved, mask)(image)
    assert found.dtype == dtype
    wanted = temporal_loss(*(part[0].double().numpy() for part in (image, moved)), mask[0, 0].double().numpy())
    assert float(found) == pytest.approx(wanted, rel=TOLERANCES[dtype])


def test_the_loss_by_hand() -> None:
    """Of twelve values three count, one pixel's: differences of 1, 2 and 3."""
    moved, image = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 9.0)
    image[0, :, 1, 0] = torch.tensor([1.0, 2.0, 3.0])
    mask = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    assert float(TemporalLoss(moved, mask)(image)) == pytest.approx((1 + 4 + 9) / 12)
    assert float(TemporalLoss(moved, 0.5 * mask)(image)) == pytest.approx((1 + 4 + 9) / 24)


def test_the_gradient_is_that_of_finite_differences() -> None:
    moved, mask = torch.rand(1, 3, 3, 4, dtype=torch.float64), torch.rand(1, 1, 3, 4, dtype=torch.float64)
    image = torch.rand(1, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(TemporalLoss(moved, mask), image)


def test_where_the_mask_is_0_nothing_has_a_say() -> None:
    moved, mask = torch.rand(1, 3, 6, 8), torch.ones(1, 1, 6, 8)
    mask[..., 2:4, 3:7] = 0
    hidden = (mask == 0).expand_as(moved)
    image = torch.rand(1, 3, 6, 8, requires_grad=True)
    loss = TemporalLoss(moved, mask)
    (slope,) = torch.autograd.grad(loss(image), image)
    assert slope[hidden].abs().max() == 0
    assert slope[~hidden].abs().min() > 0
    other = torch.where(hidden, torch.rand(1, 3, 6, 8), image.detach())
    elsewhere = torch.where(hidden, torch.rand(1, 3, 6, 8), moved)
    assert torch.equal(loss(other), loss(image))
    assert torch.equal(TemporalLoss(elsewhere, mask)(image), loss(image))
    assert float(TemporalLoss(moved, torch.zeros_like(mask))(image.detach())) == 0


def test_in_tiles_it_is_the_same() -> None:
    image, content, moved = (painting(97, 131, seed=seed) for seed in (3, 4, 5))
    mask = (painting(97, 131, seed=6)[:, :1] > 0.4).float()
    network = narrow_slim()
    terms = [
        Term("content", "relu2_1", ContentLoss(network(content, ["relu2_1"])["relu2_1"], "relative")),
        Term("temporal", "image", TemporalLoss(moved, mask), 30.0),
    ]
    whole = Objective(network, terms)
    found = []
    for objective in (whole, TiledObjective(whole, network, (97, 131), 48)):
        leaf = image.clone().requires_grad_()
        values = objective(leaf)
        (slope,) = torch.autograd.grad(values["content"] + values["temporal"], leaf)
        found.append((values["temporal"].detach(), slope))
    assert found[0][0] > 0.1
    assert_close(found[1][0], found[0][0])
    assert (found[1][1] - found[0][1]).abs().max() <= 1e-4 * found[0][1].abs().max()


# --- frames


def test_it_is_minimised_from_the_second_frame_on_until_a_cut(frames: list[Tensor]) -> None:
    method, style = tiny_gatys(steps=2), painting(40, 40, seed=9)
    other = 1 - painting(32, 48, seed=20) ** 3
    coherence = Coherence(method, held=5.0, estimate=known_flow([*frames, other]))
    seen = []
    for frame in (*frames[:3], other):
        coherence.paint(frame, lambda frame=frame: method.stylize(frame, style))
        seen.append("temporal" in method.losses)
        assert (method.more_terms, method.start_from) == ((), None)
    assert seen == [False, True, True, False]
    assert coherence.cuts == 1


def test_without_weight_nothing_is_changed(frames: list[Tensor]) -> None:
    """A weight of 0 is the run without the term, and without flow none is measured."""

    def measure(first: Tensor, second: Tensor) -> Tensor:
        pytest.fail("the flow was measured")

    method, style = tiny_gatys(steps=2), painting(40, 40, seed=9)
    coherence = Coherence(method, estimate=measure)
    for frame in frames[:2]:
        found = coherence.paint(frame, lambda frame=frame: method.stylize(frame, style))
    assert "temporal" not in method.losses
    assert (found - method.stylize(frames[1], style)).abs().max() <= 0.5 / 255 + 1e-6


def test_the_term_counts_at_the_full_size_alone(frames: list[Tensor]) -> None:
    method = tiny_gatys(octaves=1, least_side=16, coarse_steps=2, steps=2)
    method.more_terms = (Term("temporal", "image", TemporalLoss(frames[1], torch.ones(1, 1, 32, 48)), 3.0),)
    seen: list[tuple[int, bool]] = []

    def note(step: Step) -> None:
        seen.append((step.image().shape[-1], "temporal" in step.terms))

    method.stylize(frames[0], painting(40, 40, seed=9), on_step=note)
    assert seen == [(24, False), (24, False), (48, True), (48, True)]


def test_a_video_flickers_less_with_it(frames: list[Tensor]) -> None:
    """Beside a run that starts from the last result and mixes it in, too; the random network's style weighs much."""
    method, weight = tiny_gatys(steps=20), 30_000.0
    without = error_of(paint(method, frames, 0.0, carried=0.1), frames)
    assert error_of(paint(method, frames, weight, carried=0.1), frames) < 0.6 * without
    assert error_of(paint(method, frames, weight), frames) < 0.6 * without
