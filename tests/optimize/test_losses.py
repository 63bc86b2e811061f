"""Losses: each against its naive twin, by hand, and against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.networks.backbone import slim_backbone
from impasto.networks.layers import freeze
from impasto.ops.matrix_roots import square_root
from impasto.ops.moments import Moments, fit_mask, moments
from impasto.optimize.losses import (
    ContentForm,
    ContentLoss,
    CovarianceLoss,
    GramForm,
    GramLoss,
    Loss,
    MomentLoss,
    Objective,
    Term,
    TotalVariation,
    WassersteinLoss,
)
from reference import features as twin

CONTENT_FORMS, GRAM_FORMS = get_args(ContentForm), get_args(GramForm)
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}
SHAPE = (4, 5, 6)
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCES), ids=["float32", "float64"])


def drawn(dtype: torch.dtype = torch.float64, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """One sample's features with correlated channels, like a ReLU's of either sign, (1, C, H, W)."""
    mixture = torch.eye(shape[0], dtype=torch.float64) + 0.3 * torch.randn(shape[0], shape[0], dtype=torch.float64)
    return torch.einsum("ij,bjhw->bihw", mixture, torch.randn(1, *shape, dtype=torch.float64) + 0.4).to(dtype)


def independent(dtype: torch.dtype) -> Tensor:
    """Features of nearly independent channels, for which twelve Newton-Schulz steps are exact, (1, 4, 8, 9)."""
    return (torch.randn(1, 4, 8, 9, dtype=torch.float64) * torch.tensor([1, 1.5, 0.8, 1]).view(4, 1, 1)).to(dtype)


def near(found: Tensor, wanted: float, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    assert float(found) == pytest.approx(wanted, rel=TOLERANCES[dtype])


# --- against the twins

TWINS: dict[str, tuple[Callable[[Tensor], Loss], Callable[[Any, Any], float]]] = {
    **{
        f"content-{form}": (
            lambda target, form=form: ContentLoss(target, form),
            lambda found, wanted, form=form: twin.content_loss(found, wanted, form),
        )
        for form in CONTENT_FORMS
    },
    **{
        f"gram-{form}": (
            lambda target, form=form: GramLoss(moments(target), form),
            lambda found, wanted, form=form: twin.gram_loss(found, wanted, form),
        )
        for form in GRAM_FORMS
    },
    "moments": (lambda target: MomentLoss(moments(target)), lambda f, w: twin.moment_loss(f, w, 1e-5)),
    "moments-relative": (
        lambda target: MomentLoss(moments(target), relative=True),
        lambda f, w: twin.moment_loss(f, w, 1e-5, relative=True),
    ),
    "covariance": (lambda target: CovarianceLoss(moments(target)), twin.covariance_loss),
    "wasserstein": (
        lambda target: WassersteinLoss(moments(target)),
        lambda f, w: twin.wasserstein_loss(f, w, 1e-4),
    ),
}


@dtypes
@pytest.mark.parametrize("name", TWINS)
def test_losses_are_the_naive_ones(name: str, dtype: torch.dtype) -> None:
    bind, naive = TWINS[name]
    draw = independent if name == "wasserstein" else drawn
    found, wanted = draw(dtype), draw(dtype)
    near(bind(wanted)(found), naive(found[0].double().numpy(), wanted[0].double().numpy()), dtype)


@pytest.mark.parametrize("name", TWINS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    loss = TWINS[name][0](drawn(shape=(3, 3, 4)))
    assert torch.autograd.gradcheck(loss, drawn(shape=(3, 3, 4)).requires_grad_())


@pytest.mark.parametrize("name", [name for name in TWINS if name != "wasserstein"])
def test_nothing_is_lost_on_the_target_itself(name: str) -> None:
    target = drawn(torch.float32)
    assert float(TWINS[name][0](target)(target)) < 1e-9


@pytest.mark.parametrize("name", [name for name in TWINS if not name.startswith("content")])
def test_style_losses_are_blind_to_the_order_of_positions(name: str) -> None:
    loss, features = TWINS[name][0](drawn()), drawn()
    shuffled = features.flatten(2)[..., torch.randperm(30)].view_as(features)
    assert_close(loss(shuffled), loss(features))


# --- content


def test_content_forms_by_hand() -> None:
    target = torch.tensor([1.0, 3.0, 1.0, 3.0]).view(1, 1, 2, 2)  # variance 4/3
    features = target + torch.tensor([1.0, 2.0, 0.0, 1.0]).view(1, 1, 2, 2)
    assert float(ContentLoss(target, "half-sum")(features)) == pytest.approx(3)
    assert float(ContentLoss(target, "mean")(features)) == pytest.approx(1.5)
    assert float(ContentLoss(target, "relative")(features)) == pytest.approx(1.5 / (4 / 3))


def test_the_half_sums_gradient_is_the_difference_where_the_relu_is_active() -> None:
    target = drawn().relu()
    before = drawn().requires_grad_()
    after = before.relu()
    after.retain_grad()
    ContentLoss(target, "half-sum")(after).backward()
    assert_close(after.grad, (after - target).detach())
    assert before.grad is not None
    assert_close(before.grad, torch.where(before > 0, after - target, 0.0).detach())
    assert before.grad[before <= 0].abs().max() == 0
    assert (before <= 0).any()


def test_the_content_target_is_no_part_of_the_graph() -> None:
    target = drawn().requires_grad_()
    assert not ContentLoss(target).target.requires_grad


# --- Gram matrices


def test_gram_normalisations_by_hand() -> None:
    """Two channels, two positions; the Gram matrices differ by [[1, 2], [2, 4]], whose squares add up to 25."""
    features = torch.tensor([[[[1.0, 1.0]], [[2.0, 0.0]]]])  # G = [[2, 2], [2, 4]]
    wanted = Moments(2.0, torch.zeros(1, 2), moments(features).gram - torch.tensor([[[1.0, 2.0], [2.0, 4.0]]]))
    by_hand = {
        "gatys": 25 / (4 * 4 * 4),
        "leongatys": (25 / 4) / 4 * 1e3 / 4,
        "neural-style": 25 / 16 / 4,
        "magenta": (25 / 4) / 4,
        "mailcorahul": 25 / 4,
        "relative": 25.0,  # the wanted Gram, [[1, 0], [0, 0]], has a square of 1
    }
    assert set(by_hand) == set(GRAM_FORMS)
    for form, value in by_hand.items():
        assert float(GramLoss(wanted, form)(features)) == pytest.approx(value), form


def test_the_sources_normalisations_convert_into_each_other() -> None:
    found, wanted = drawn(), moments(drawn())
    gatys, leongatys, neural = (float(GramLoss(wanted, form)(found)) for form in ("gatys", "leongatys", "neural-style"))
    channels, count = SHAPE[0], SHAPE[1] * SHAPE[2]
    squares = float((moments(found).gram - wanted.gram).square().sum())
    assert neural == pytest.approx(4 / channels**2 * gatys, rel=1e-5)
    assert neural == pytest.approx(squares / (channels**4 * count**2), rel=1e-5)
    assert leongatys == pytest.approx(1e3 * squares / (channels**4 * count**2), rel=1e-5)


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(OptionError, match="'other'"):
        GramLoss(moments(drawn()), "other")(drawn())  # type: ignore[arg-type]


@pytest.mark.parametrize("form", GRAM_FORMS)
def test_a_painting_of_another_size_counts_as_one_of_the_same_size(form: GramForm) -> None:
    """A style twice as wide, of the same picture twice, is the same style."""
    found, style = drawn(), drawn()
    twice = torch.cat([style, style], dim=3)
    assert_close(GramLoss(moments(twice), form)(found), GramLoss(moments(style), form)(found))


@pytest.mark.parametrize("form", GRAM_FORMS)
def test_batches_are_averaged_over_samples_never_mixed(form: GramForm) -> None:
    target = moments(drawn())
    loss = GramLoss(target, form)
    batch = torch.cat([drawn(), drawn()])
    assert_close(loss(batch), (loss(batch[:1]) + loss(batch[1:])) / 2)


def test_the_relative_form_is_the_same_at_every_scale_and_width() -> None:
    found, wanted = drawn(), drawn()
    loss = GramLoss(moments(wanted), "relative")(found)
    assert_close(GramLoss(moments(7 * wanted), "relative")(7 * found), loss)
    wider = [torch.cat([features, features], dim=1) for features in (found, wanted)]
    assert_close(GramLoss(moments(wider[1]), "relative")(wider[0]), loss)


# --- masks


def guided(mask: Tensor) -> dict[str, Loss]:
    target = moments(drawn(torch.float32))
    return {
        "gram": GramLoss(target, mask=mask),
        "moments": MomentLoss(target, mask=mask),
        "covariance": CovarianceLoss(target, mask=mask),
        "wasserstein": WassersteinLoss(target, mask=mask),
    }


@pytest.mark.parametrize("name", ["gram", "moments", "covariance", "wasserstein"])
def test_a_guide_of_ones_is_none_and_a_hard_one_selects(name: str) -> None:
    features = drawn(torch.float32)
    torch.manual_seed(1)
    ones = guided(torch.ones(1, 1, 10, 12))[name]
    torch.manual_seed(1)
    plain = guided(None)[name]  # type: ignore[arg-type]
    assert_close(ones(features), plain(features))
    half = torch.zeros(1, 1, *SHAPE[1:])
    half[..., :3] = 1
    torch.manual_seed(1)
    left = guided(half)[name]
    assert_close(left(features), plain(features[..., :3]))


def test_nothing_outside_a_mask_has_a_gradient() -> None:
    mask = torch.zeros(1, 1, *SHAPE[1:])
    mask[..., :2, :] = 1
    for loss in guided(mask).values():
        features = drawn(torch.float32).requires_grad_()
        loss(features).backward()
        assert features.grad is not None
        assert features.grad[..., 2:, :].abs().max() == 0
        assert features.grad[..., :2, :].abs().max() > 0


def test_masks_are_averaged_down_to_the_layer() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])[None, None]
    assert fit_mask(mask, torch.zeros(1, 8, 1, 2)).tolist() == [[[[0.75, 0.0]]]]
    assert fit_mask(mask, torch.zeros(1, 8, 2, 4)) is mask
    assert fit_mask(None, torch.zeros(1, 8, 2, 4)) is None


# --- Wasserstein


def test_wasserstein_of_independent_channels_by_hand() -> None:
    """Diagonal covariances: per channel the squared difference of deviations."""
    signs = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]], dtype=torch.float64).view(1, 2, 1, 4)
    wanted = signs * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    found = signs * torch.tensor([3.0, 2.5]).view(1, 2, 1, 1) + torch.tensor([0.5, 0.0]).view(1, 2, 1, 1)
    loss = WassersteinLoss(moments(wanted), eps=0.0)(found)
    assert float(loss) == pytest.approx(0.5**2 / 2 + ((3 - 1) ** 2 + (2.5 - 2) ** 2) / 2, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_wasserstein_to_itself_is_within_the_roots_error(seed: int) -> None:
    """Twelve Newton-Schulz steps leave up to 3e-3 of the mean channel variance."""
    torch.manual_seed(seed)
    mixture = torch.randn(32, 32)
    features = torch.einsum("ij,bjhw->bihw", mixture, torch.randn(1, 32, 24, 24)).relu()
    target = moments(features)
    assert abs(float(WassersteinLoss(target)(features))) <= 5e-3 * float(target.variance.mean())


def test_matrix_roots() -> None:
    factor = torch.randn(2, 6, 6, dtype=torch.float64)
    matrix = factor @ factor.transpose(1, 2) + torch.eye(6)
    root = square_root(matrix)
    assert_close(root @ root, matrix, atol=1e-6, rtol=1e-6)
    assert_close(root[0].numpy(), twin.matrix_root(matrix[0].numpy()), atol=1e-6, rtol=1e-6)
    assert_close(square_root(torch.diag(torch.tensor([4.0, 9.0]))[None])[0], torch.diag(torch.tensor([2.0, 3.0])))


# --- the objective


class Doubling(nn.Module):
    """A backbone whose layer ``x2`` is twice the image and ``x4`` four times."""

    name, digest = "doubling", "none"

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[set[str]] = []

    def forward(self, image: Tensor, layers: set[str]) -> dict[str, Tensor]:
        self.asked.append(set(layers))
        return {layer: image * int(layer[1:]) for layer in layers}


def test_an_objective_adds_terms_of_one_name_and_leaves_out_what_weighs_nothing() -> None:
    backbone = Doubling()
    terms = [
        Term("style", "x2", torch.sum, 0.5),
        Term("style", "x4", torch.sum, 2.0),
        Term("content", "x4", torch.sum),
        Term("tv", "image", torch.amax, 10.0),
        Term("nothing", "x8", torch.sum, 0.0),
    ]
    found = Objective(backbone, terms)(torch.full((1, 3, 1, 1), 0.5))
    assert {name: float(value) for name, value in found.items()} == {"style": 13.5, "content": 6.0, "tv": 5.0}
    assert backbone.asked == [{"x2", "x4"}]


def test_an_objective_of_the_image_alone_runs_no_network() -> None:
    backbone = Doubling()
    found = Objective(backbone, [Term("tv", "image", TotalVariation("l1-sum"))])(torch.zeros(1, 3, 4, 4))
    assert float(found["tv"]) == 0
    assert backbone.asked == []


def test_an_objectives_gradient_reaches_the_image_and_no_weight() -> None:
    backbone = freeze(slim_backbone())
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    target = backbone(torch.rand(1, 3, 16, 16), {"relu1_1"})["relu1_1"]
    objective = Objective(backbone, [Term("content", "relu1_1", ContentLoss(target))])
    objective(image)["content"].backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in backbone.parameters())
