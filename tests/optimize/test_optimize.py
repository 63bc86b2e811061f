"""The engine: known minima, exact counts, recovery from NaN, interruption, averages, stages."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import ImpastoError
from impasto.images.tensors import resize
from impasto.optimize.descent import (
    RETRIES,
    Average,
    ImageParameter,
    Pixels,
    Scale,
    Settings,
    coarse_to_fine,
    optimize_image,
)
from impasto.progress import Step

SHAPE = (1, 3, 4, 5)
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class Bowl:
    """A convex objective with its minimum, of both its terms together, at `target`; counts how often it is asked."""

    def __init__(self, target: Tensor) -> None:
        self.target, self.calls = target, 0
        self.steepness = torch.linspace(1, 10, target.numel()).view_as(target)
        self.images: list[Tensor] = []

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        self.images.append(image.detach().clone())
        apart = (image - self.target) * self.steepness.sqrt()
        return {"half": 0.5 * apart.square().sum(), "other": 0.5 * apart.square().sum()}


class Slope:
    """The sum of all pixels, whose gradient is 1 everywhere; NaN at the calls given, counted from 1."""

    def __init__(self, broken: tuple[int, ...] | None = (), sign: float = 1.0) -> None:
        self.broken, self.sign, self.calls = broken, sign, 0
        self.seen: list[float] = []

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        self.seen.append(float(image.detach()[0, 0, 0, 0]))
        broken = self.broken is None or self.calls in self.broken
        return {"slope": self.sign * image.sum() * (math.nan if broken else 1.0)}


def target() -> Tensor:
    return 0.1 + 0.8 * torch.rand(SHAPE)


def grey(value: float = 0.5) -> Tensor:
    return torch.full(SHAPE, value)


SETTINGS = {
    "lbfgs": Settings(40, "lbfgs", 1.0),
    "adam": Settings(400, "adam", 0.05, decay=0.5, decay_every=50),
    "gd": Settings(300, "gd", 0.08),
}


# --- known minima


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("normalised", [False, True], ids=["pixels", "normalised"])
def test_a_convex_objective_is_brought_to_its_minimum(name: str, normalised: bool) -> None:
    bowl = Bowl(target())
    space = {"mean": MEAN, "std": STD} if normalised else {}
    settings = SETTINGS[name]
    if normalised and name == "gd":
        settings = Settings(600, "gd", 1.5)  # the gradient and the step are both a std smaller
    result = optimize_image(bowl, Pixels(grey(), clamp=False, **space), settings)
    assert_close(result.image, bowl.target, atol=2e-3, rtol=0)
    assert not result.interrupted
    assert result.losses[0].keys() == {"half", "other"}
    assert sum(result.losses[-1].values()) < 1e-3 * sum(result.losses[0].values())


def test_the_minimum_of_two_terms_lies_between_theirs_by_weight() -> None:
    def both(image: Tensor) -> dict[str, Tensor]:
        return {"a": 3 * (image - 0.2).square().sum(), "b": (image - 0.8).square().sum()}

    result = optimize_image(both, Pixels(grey()), Settings(10, "lbfgs"))
    assert_close(result.image, grey((3 * 0.2 + 0.8) / 4))


def test_lbfgs_is_far_ahead_of_plain_descent_on_an_ill_conditioned_bowl() -> None:
    wanted = target()
    losses = {}
    for name, rate in (("lbfgs", 1.0), ("gd", 0.08)):
        losses[name] = sum(optimize_image(Bowl(wanted), Pixels(grey()), Settings(30, name, rate)).losses[-1].values())
    assert losses["lbfgs"] < 0.1 * losses["gd"]


# --- counts


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("steps", [1, 7])
def test_evaluations_are_counted_exactly(name: str, steps: int) -> None:
    bowl, noted = Bowl(target()), []
    settings = Settings(steps, name, 0.01)  # type: ignore[arg-type]
    result = optimize_image(bowl, Pixels(grey()), settings, on_step=noted.append)
    assert bowl.calls == steps == len(result.losses)
    assert [step.index for step in noted] == list(range(1, steps + 1))
    assert {step.total for step in noted} == {steps}
    assert [step.terms for step in noted] == result.losses
    assert noted[0].loss == pytest.approx(sum(result.losses[0].values()))


def test_the_rate_decays_at_the_given_steps() -> None:
    """Plain descent down a slope moves by the rate itself."""
    slope = Slope()
    optimize_image(slope, Pixels(grey()), Settings(7, "gd", 0.01, decay=0.5, decay_every=3))
    moved = [a - b for a, b in zip(slope.seen, slope.seen[1:], strict=False)]
    assert moved == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005, 0.005], rel=1e-3)


def test_adams_first_step_is_the_rate_and_its_options_arrive() -> None:
    result = optimize_image(Slope(), Pixels(grey()), Settings(1, "adam", 0.1))
    assert_close(result.image, grey(0.4))
    damped = optimize_image(Slope(), Pixels(grey()), Settings(1, "adam", 0.1, epsilon=1.0))
    assert_close(damped.image, grey(0.45))  # 0.1 * 1 / (1 + 1)


def test_the_objective_sees_the_augmented_image() -> None:
    bowl, seen = Bowl(target()), []

    def brighter(image: Tensor) -> Tensor:
        seen.append(image.detach().clone())
        return image + 0.05

    result = optimize_image(bowl, Pixels(grey(), clamp=False), SETTINGS["lbfgs"], augment=brighter)
    assert len(seen) == bowl.calls == 40
    assert torch.equal(bowl.images[3], seen[3] + 0.05)
    assert_close(result.image, bowl.target - 0.05, atol=1e-3, rtol=0)


def test_on_step_sees_the_picture_as_it_is() -> None:
    pictures: list[Tensor] = []
    slope = Slope()
    result = optimize_image(
        slope, Pixels(grey()), Settings(3, "gd", 0.1), on_step=lambda step: pictures.append(step.image())
    )
    assert [float(picture[0, 0, 0, 0]) for picture in pictures] == pytest.approx([0.4, 0.3, 0.2])
    assert torch.equal(pictures[-1], result.image)
    assert not result.image.requires_grad


def test_the_same_run_gives_the_same_bits() -> None:
    wanted, start = target(), torch.rand(SHAPE)
    for settings in SETTINGS.values():
        one, two = (optimize_image(Bowl(wanted), Pixels(start), settings) for _ in range(2))
        assert torch.equal(one.image, two.image)
        assert one.losses == two.losses


def test_the_start_is_not_changed() -> None:
    start = grey()
    optimize_image(Bowl(target()), Pixels(start), SETTINGS["gd"])
    assert torch.equal(start, grey())


# --- NaN


@pytest.mark.parametrize("name", SETTINGS)
def test_an_objective_that_fails_at_times_is_recovered_from(name: str) -> None:
    class Shaky(Bowl):
        def __call__(self, image: Tensor) -> dict[str, Tensor]:
            terms = super().__call__(image)
            return {k: v * math.nan for k, v in terms.items()} if self.calls in (3, 4, 9) else terms

    bowl = Shaky(target())
    settings = SETTINGS[name]
    result = optimize_image(bowl, Pixels(grey()), settings)
    assert bowl.calls == settings.steps + 3
    assert len(result.losses) == settings.steps
    assert all(math.isfinite(value) for terms in result.losses for value in terms.values())
    assert_close(result.image, bowl.target, atol=0.02, rtol=0)


def test_recovery_goes_back_to_the_best_image_with_half_the_rate() -> None:
    slope = Slope(broken=(3, 5))
    optimize_image(slope, Pixels(grey()), Settings(5, "gd", 0.08))
    # 0.5, 0.42, NaN at 0.34; back to 0.42 at rate 0.04, NaN at 0.38; back to 0.42 at rate 0.02, then 0.40 and 0.38
    assert slope.seen == pytest.approx([0.5, 0.42, 0.34, 0.42, 0.38, 0.42, 0.40], rel=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_objective_that_always_fails_is_an_error(name: str) -> None:
    slope, parameter = Slope(broken=None), Pixels(grey())
    with pytest.raises(ImpastoError, match="smaller steps did not help"):
        optimize_image(slope, parameter, Settings(20, name, 0.1))  # type: ignore[arg-type]
    assert slope.calls == RETRIES + 1
    assert torch.equal(parameter().detach(), grey())


@pytest.mark.parametrize("name", SETTINGS)
def test_a_gradient_that_is_nan_never_reaches_the_picture(name: str) -> None:
    """The root of 0 is finite, its gradient is not."""
    calls: list[Tensor] = []

    def rooted(image: Tensor) -> dict[str, Tensor]:
        calls.append(image.detach())
        loss = (image - 0.3).square().sum()
        return {"loss": loss + (image * 0).sqrt().sum() if len(calls) in (2, 3) else loss}

    result = optimize_image(rooted, Pixels(grey()), Settings(40, name, 0.05))  # type: ignore[arg-type]
    assert torch.isfinite(result.image).all()
    assert all(torch.isfinite(image).all() for image in calls)
    assert float((result.image - 0.3).abs().max()) < 0.15


# --- interruption


def interrupt_at(count: int) -> Callable[[Step], None]:
    def on_step(step: Step) -> None:
        if step.index == count:
            raise KeyboardInterrupt

    return on_step


def test_an_interruption_keeps_the_best_image() -> None:
    bowl = Bowl(target())
    diverging = Settings(50, "gd", 0.6)
    result = optimize_image(bowl, Pixels(grey(), clamp=False), diverging, on_step=interrupt_at(4))
    losses = [sum(terms.values()) for terms in result.losses]
    assert result.interrupted
    assert len(losses) == bowl.calls == 4
    best = losses.index(min(losses))
    assert best < 3
    assert torch.equal(result.image, bowl.images[best].clamp(0, 1))


def test_an_interruption_within_the_objective_keeps_the_best_image_too() -> None:
    class Interrupting(Bowl):
        def __call__(self, image: Tensor) -> dict[str, Tensor]:
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().__call__(image)

    bowl = Interrupting(target())
    result = optimize_image(bowl, Pixels(grey()), SETTINGS["lbfgs"])
    assert result.interrupted
    losses = [sum(terms.values()) for terms in result.losses]
    assert len(losses) == 5
    assert_close(result.image, bowl.images[losses.index(min(losses))])


def test_other_errors_are_not_swallowed() -> None:
    def broken(step: Step) -> None:
        raise ValueError("the log is full")

    with pytest.raises(ValueError, match="the log is full"):
        optimize_image(Bowl(target()), Pixels(grey()), SETTINGS["gd"], on_step=broken)


# --- averages


def test_an_average_of_one_is_exactly_that_one() -> None:
    average, first = Average(0.99), torch.rand(1, 3, 16, 16)
    average.update(first)
    assert torch.equal(average.value(), first)


def test_an_average_by_hand() -> None:
    average = Average(0.5)
    for value in (1.0, 3.0, 5.0):
        average.update(torch.tensor(value, requires_grad=True))
    assert float(average.value()) == pytest.approx((0.125 * 1 + 0.25 * 3 + 0.5 * 5) / 0.875)
    assert not average.value().requires_grad


def test_the_averaged_picture_is_the_result() -> None:
    for steps, wanted in ((1, 0.4), (3, (0.125 * 0.4 + 0.25 * 0.3 + 0.5 * 0.2) / 0.875)):
        result = optimize_image(Slope(), Pixels(grey()), Settings(steps, "gd", 0.1, average=0.5))
        assert_close(result.image, grey(wanted))


# --- pixels


def test_clamping_at_every_step_or_only_at_the_end() -> None:
    for clamp in (True, False):
        slope = Slope(sign=-1)  # upwards without end
        result = optimize_image(slope, Pixels(grey(), clamp=clamp), Settings(5, "gd", 0.3))
        assert float(result.image.max()) == 1
        assert max(slope.seen) == pytest.approx(1.0 if clamp else 1.7)


def test_clamping_in_normalised_space() -> None:
    slope = Slope(sign=-1)
    optimize_image(slope, Pixels(grey(), mean=MEAN, std=STD, clamp=True), Settings(9, "gd", 2.0))
    assert max(slope.seen) == pytest.approx(1.0)


def test_normalised_pixels_give_the_picture_back() -> None:
    image = torch.rand(SHAPE)
    parameter = Pixels(image, mean=MEAN, std=STD)
    assert_close(parameter().detach(), image, atol=1e-6, rtol=0)
    assert_close(parameter.values.detach(), (image - MEAN) / STD)
    assert [name for name, _ in parameter.named_parameters()] == ["values"]


def test_normalised_pixels_move_by_their_deviation() -> None:
    """Adam's first step is the rate in normalised space, so the rate times the deviation in the picture."""
    result = optimize_image(Slope(), Pixels(grey(), mean=MEAN, std=STD), Settings(1, "adam", 0.1))
    assert_close(result.image, grey() - 0.1 * STD)


def test_a_bare_image_parameter_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError, match="says which image"):
        ImageParameter()()


# --- stages


def stages(counts: tuple[int, ...] = (3, 2, 4)) -> list[Scale]:
    return [Scale(4 * 2**i, 6 * 2**i, Settings(count, "gd", 0.05)) for i, count in enumerate(counts)]


def test_stages_share_one_count_and_each_has_its_size() -> None:
    noted: list[tuple[int, int, tuple[int, ...]]] = []

    def on_step(step: Step) -> None:
        noted.append((step.index, step.total, tuple(step.image().shape)))

    asked: list[Scale] = []

    def objective_at(scale: Scale, image: Tensor) -> Slope:
        asked.append(scale)
        return Slope()

    result = coarse_to_fine(stages(), torch.rand(1, 3, 9, 9), objective_at, on_step=on_step)
    assert asked == stages()
    assert [index for index, _, _ in noted] == list(range(1, 10))
    assert {total for _, total, _ in noted} == {9}
    assert [shape[2:] for _, _, shape in noted] == [(4, 6)] * 3 + [(8, 12)] * 2 + [(16, 24)] * 4
    assert result.image.shape == (1, 3, 16, 24)
    assert len(result.losses) == 9
    assert not result.interrupted


def test_each_stage_starts_from_the_enlarged_result_before_it() -> None:
    first: list[Tensor] = []
    last: list[Tensor] = []

    class Watched(Bowl):
        def __call__(self, image: Tensor) -> dict[str, Tensor]:
            if self.calls == 0:
                first.append(image.detach().clone())
            return super().__call__(image)

    start = torch.rand(1, 3, 16, 24)
    coarse_to_fine(
        stages((2, 2)),
        start,
        lambda scale, image: Watched(torch.rand(1, 3, scale.height, scale.width)),
        on_step=lambda step: last.append(step.image()),
    )
    assert torch.equal(first[0], resize(start, 4, 6))
    assert torch.equal(first[1], resize(last[1], 8, 12))


def test_an_interrupted_stage_ends_the_run_at_the_last_size() -> None:
    result = coarse_to_fine(stages(), grey(), lambda scale, image: Slope(), on_step=interrupt_at(2))
    assert result.interrupted
    assert len(result.losses) == 2
    assert result.image.shape == (1, 3, 16, 24)
    assert float(result.image.mean()) == pytest.approx(0.45, abs=1e-4)


def test_the_parameter_is_the_one_asked_for() -> None:
    made: list[Pixels] = []

    def parameter_of(image: Tensor) -> Pixels:
        made.append(Pixels(image, mean=MEAN, std=STD))
        return made[-1]

    coarse_to_fine(stages(), grey(), lambda scale, image: Slope(), parameter_of)
    assert [tuple(parameter().shape[2:]) for parameter in made] == [(4, 6), (8, 12), (16, 24)]
