"""How vgg19-slim is made: folding, initialising, the terms of the loss, the file that ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from impasto.networks.backbone import SLIM, VGG19_WIDTHS, Backbone, slim_backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.layers import Conv
from impasto.training.backbone_distillation import (
    LAYERS,
    Distillation,
    Scaffold,
    correlations,
    disturb,
    gram_error,
    initialize,
)
from impasto.training.loop import TrainOptions, train
from impasto.training.pictures import Pictures
from impasto.weights import load_weights, save_weights
from reference import features as twin
from tiny import random_slim


@pytest.fixture(scope="module")
def teacher() -> Backbone:
    """Something with VGG-19's layers and widths that a student may learn from."""
    return random_slim(seed=9, heads=True)


@pytest.fixture
def crops(picture: Tensor) -> Tensor:
    """Four crops, (4, 3, 32, 32)."""
    return torch.cat([picture[..., top : top + 32, left : left + 32] for top in (0, 16) for left in (0, 32)])


@pytest.fixture
def task(teacher: Backbone, crops: Tensor) -> Distillation:
    return Distillation(teacher, crops)


def embedding_error(student: nn.Module, teacher: nn.Module, image: Tensor) -> dict[str, float]:
    """Each layer's mean squared error relative to the teacher's variance."""
    with torch.no_grad():
        found, wanted = student(image, LAYERS), teacher(image, LAYERS)
    return {layer: float((found[layer] - wanted[layer]).square().mean() / wanted[layer].var()) for layer in LAYERS}


# --- the scaffold


@pytest.mark.parametrize("unit", [True, False])
def test_folding_gives_what_the_scaffold_gives_in_evaluation(unit: bool) -> None:
    conv, plain = Conv(5, 7), Conv(5, 7)
    scaffold = Scaffold(conv, unit=unit)
    nn.init.uniform_(scaffold.norm.weight, 0.5, 2)
    nn.init.normal_(scaffold.norm.bias)
    for _ in range(20):
        scaffold(3 * torch.randn(2, 5, 9, 9) + 1)
    scaffold.eval()
    scaffold.fold(plain)
    x = torch.randn(2, 5, 9, 11)
    assert_close(plain(x), scaffold(x), atol=1e-4, rtol=1e-4)
    scaffold.train()
    assert not torch.allclose(plain(x), scaffold(x), atol=1e-2)  # a batch's own statistics are others


@pytest.mark.parametrize("unit", [True, False])
def test_a_scaffold_that_keeps_does_what_the_convolution_does(unit: bool) -> None:
    conv = Conv(5, 7)
    scaffold = Scaffold(conv, unit=unit, keep=True).eval()
    x = torch.randn(1, 5, 6, 8)
    assert_close(scaffold(x), conv(x), atol=1e-4, rtol=1e-4)


def test_a_unit_matrix_has_the_size_of_muons_steps() -> None:
    scaffold = Scaffold(Conv(5, 7))
    assert scaffold.matrix.shape == (7, 45)
    assert float(scaffold.matrix.detach().norm()) == pytest.approx(7**0.5)


# --- the pieces of the loss


def test_gram_error_by_hand() -> None:
    features = torch.rand(2, 4, 5, 5)
    assert float(gram_error(features, features)) == 0
    assert float(gram_error(2 * features, features)) == pytest.approx(9)  # ((4 G - G) / G)^2
    other = torch.rand(2, 4, 5, 5)
    pairs = zip(features.double().numpy(), other.double().numpy(), strict=True)
    wanted = [twin.gram_loss(one, two, "relative") for one, two in pairs]
    assert float(gram_error(features, other)) == pytest.approx(sum(wanted) / 2, rel=1e-5)


def test_disturbed_photographs() -> None:
    contents, styles = torch.full((2000, 3, 4, 4), 0.4), torch.full((2000, 3, 4, 4), 0.9)
    found = disturb(contents, styles)
    assert found.shape == contents.shape
    assert found.min() >= 0
    assert found.max() <= 1
    noisy = found.std((1, 2, 3)) > 1e-6
    assert float(noisy.float().mean()) == pytest.approx(0.3, abs=0.04)
    blended = (found.mean((1, 2, 3)) > 0.4 + 1e-4) & ~noisy
    assert float(blended.sum() / (~noisy).sum()) == pytest.approx(0.2, abs=0.04)
    untouched = ~noisy & ~blended
    assert torch.equal(found[untouched], contents[untouched])
    torch.manual_seed(3)
    first = disturb(contents, styles)
    torch.manual_seed(3)
    assert torch.equal(disturb(contents, styles), first)


def test_correlation_with_itself_is_1_whatever_its_scale(teacher: Backbone, picture: Tensor) -> None:
    class Scaled(nn.Module):
        def forward(self, image: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
            return {layer: 3 * features + 2 for layer, features in teacher(image, layers).items()}

    images = [picture, picture.flip(3)[..., :40]]
    for student in (teacher, Scaled()):
        found = correlations(student, teacher, images)
        assert set(found) == set(LAYERS)
        assert found == pytest.approx(dict.fromkeys(LAYERS, 1.0), abs=1e-6)


def test_correlation_is_that_of_all_features_together(teacher: Backbone, picture: Tensor) -> None:
    other = random_slim(seed=10, heads=True)
    images = [picture, picture.flip(3)[..., :40]]
    found = correlations(other, teacher, images)
    for layer in LAYERS:
        pair = [
            torch.cat([network(image, [layer])[layer].flatten() for image in images]).double()
            for network in (other, teacher)
        ]
        assert found[layer] == pytest.approx(float(torch.corrcoef(torch.stack(pair))[0, 1]), abs=1e-6)
        assert found[layer] < 0.95


# --- the start


def test_an_initialised_student_is_nearer_than_one_at_random(teacher: Backbone, crops: Tensor, picture: Tensor) -> None:
    random, student = random_slim(seed=2, heads=True), slim_backbone(heads=True)
    initialize(student, teacher, crops)
    before, after = (embedding_error(network, teacher, picture) for network in (random, student))
    for layer in LAYERS:
        assert after[layer] < 0.5 * before[layer], layer


def test_an_initialised_students_layers_have_mean_0_and_deviation_1(teacher: Backbone, crops: Tensor) -> None:
    student = slim_backbone(heads=True)
    initialize(student, teacher, crops)
    for layer, features in student(crops, [f"conv{block}_1" for block in range(1, 6)]).items():
        values = features.detach().transpose(0, 1).flatten(1)
        assert_close(values.mean(1), torch.zeros(len(values)), atol=1e-3, rtol=0, msg=layer)
        assert_close(values.std(1, correction=0), torch.ones(len(values)), atol=1e-2, rtol=0, msg=layer)


def test_heads_are_the_least_squares_maps(teacher: Backbone, crops: Tensor) -> None:
    """No small change of a head's weights comes nearer to the teacher before the ReLU."""
    student = slim_backbone(heads=True)
    initialize(student, teacher, crops)
    wanted = teacher(crops, ["relu2_1"])["relu2_1"]
    x = nn.Sequential(*[student.steps[name] for name in ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1")])
    inputs = student.steps["relu2_1"](student.steps["conv2_1"](x((crops - student.mean) / student.std))).detach()
    conv = student.heads["relu2_1"][0]
    error = float((conv(inputs) - wanted).square().mean().detach())
    for _ in range(5):
        conv.weight.data.add_(change := 0.05 * torch.randn_like(conv.weight))
        assert float((conv(inputs) - wanted).square().mean().detach()) > error
        conv.weight.data.sub_(change)


# --- the task


def test_terms_are_one_a_layer_and_the_gram_matrices(task: Distillation, crops: Tensor) -> None:
    terms = task(crops[:2], crops[2:], 0.0)
    assert list(terms) == [*LAYERS, "gram"]
    assert all(torch.isfinite(term) and term > 0 for term in terms.values())


def test_layer_weights_and_gram_weight_count(teacher: Backbone, crops: Tensor) -> None:
    found = []
    for layer_weights, gram_weight in (((1.0,) * 5, 0.1), ((2.0, 1.0, 1.0, 1.0, 0.5), 0.3)):
        torch.manual_seed(4)
        task = Distillation(teacher, crops, gram_weight, layer_weights)
        found.append({name: float(term.detach()) for name, term in task(crops[:2], crops[2:], 0.0).items()})
    plain, weighted = found
    shares = {"relu1_1": 2.0, "relu2_1": 1.0, "relu3_1": 1.0, "relu4_1": 1.0, "relu5_1": 0.5, "gram": 3.0}
    assert weighted == pytest.approx({name: shares[name] * plain[name] for name in plain}, rel=1e-4)


def test_the_normalisations_learn_until_the_last_fifth(task: Distillation, crops: Tensor) -> None:
    norm = task.student.steps["conv2_1"].norm
    for progress, learns in ((0.0, True), (0.79, True), (0.81, False), (1.0, False), (0.1, True)):
        before = norm.running_mean.clone()
        task(crops[:2], crops[2:], progress)
        assert torch.equal(norm.running_mean, before) != learns, progress


def test_all_that_learns_has_a_gradient_and_an_optimiser(task: Distillation, crops: Tensor) -> None:
    sum(task(crops[:2], crops[2:], 0.0).values()).backward()
    learning = [parameter for parameter in task.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in learning)
    moved = [p for optimizer in task.optimizers(1e-3) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, moved)) == sorted(map(id, learning))
    assert not any(parameter.grad is not None for parameter in task._teacher[0].parameters())


def test_the_folded_student_is_the_one_that_learned(task: Distillation, crops: Tensor, picture: Tensor) -> None:
    for _ in range(5):
        task(crops[:2], crops[2:], 0.0)
    task.eval()
    with torch.no_grad():
        found, wanted = task.folded()(picture, LAYERS), task.student(picture, LAYERS)
    for layer in LAYERS:
        assert_close(found[layer], wanted[layer], atol=1e-4 * float(wanted[layer].abs().max()), rtol=0)


def made(seed: int) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(4, 3, 10, 12, generator=generator)
    return Pictures([(255 * image).byte().repeat_interleave(4, 1).repeat_interleave(4, 2) for image in small])


def test_a_short_training_lowers_the_loss_and_ships_a_backbone(
    task: Distillation, teacher: Backbone, picture: Tensor, tmp_path: Path
) -> None:
    losses: list[float] = []
    options = TrainOptions(steps=60, batch=2, crop=32, learning_rate=2e-3)
    path = train(
        task, made(0), made(1), options, tmp_path, on_step=lambda report: losses.append(sum(report.terms.values()))
    )
    assert len(losses) == 60
    assert all(torch.isfinite(torch.tensor(losses)))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert load_weights(path).config == {"backbone": SLIM, "heads": list(VGG19_WIDTHS), "steps": 60}
    with_heads, plain = load_backbone(f"{SLIM}+heads", weights=path), load_backbone(SLIM, weights=path)
    assert with_heads.digest == plain.digest == load_weights(path).digest
    with torch.no_grad():
        found, wanted = with_heads(picture, LAYERS), task.folded()(picture, LAYERS)
    for layer, width in zip(LAYERS, VGG19_WIDTHS, strict=True):
        assert found[layer].shape[1] == width
        assert_close(found[layer], wanted[layer], atol=0.01 * float(wanted[layer].abs().max()), rtol=0)  # fp16
    assert plain(picture, ["relu5_1"])["relu5_1"].shape == (1, 128, 3, 4)


def test_going_on_from_a_trained_student_starts_where_it_stopped(
    task: Distillation, teacher: Backbone, crops: Tensor, picture: Tensor, tmp_path: Path
) -> None:
    for _ in range(3):
        task(crops[:2], crops[2:], 0.0)
    save_weights(task.shippable(), tmp_path / "slim.safetensors", task.config())
    file = load_weights(tmp_path / "slim.safetensors")
    onwards = Distillation(teacher, crops, start=file)
    onwards(crops[:2], crops[2:], 0.0)  # whatever the progress, nothing settles anew
    before = load_backbone(f"{SLIM}+heads", weights=file.path)
    with torch.no_grad():
        found, again, wanted = (
            onwards.student(picture, LAYERS),
            onwards.folded()(picture, LAYERS),
            before(picture, LAYERS),
        )
    for layer in LAYERS:
        limit = 1e-3 * float(wanted[layer].abs().max())
        assert_close(found[layer], wanted[layer], atol=limit, rtol=0)
        assert_close(again[layer], wanted[layer], atol=limit, rtol=0)
