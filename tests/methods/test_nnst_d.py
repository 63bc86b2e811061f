"""Neural neighbours in one pass: the choice of places, the sizes, tiles, and the training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from cli_support import use_one_thread
from impasto.feedforward import place_painter
from impasto.feedforward.place_painter import PlacePainter, coarser_sizes, enlarged, reduced
from impasto.feedforward.stages import IMAGE, StageInput
from impasto.feedforward.tiled_run import Tiling
from impasto.images.tensors import Bytes, Floats
from impasto.methods import nnst_d
from impasto.methods.nnst_d import NNSTD, NNSTDTraining, NNSTDTrainOptions
from impasto.networks.hypercolumns import Hypercolumns
from impasto.networks.receptive_field import reach
from impasto.optimize.perceptual_loss import PerceptualLoss
from impasto.stylizers.painting_places import Places, find_bonus
from impasto.stylizers.planned_choice import COMPARED, know, plan_choice
from impasto.stylizers.styles import mix
from tiny import SLIM_COLUMN_WIDTHS, SLIM_SHAPE_WIDTHS, painting, random_slim, tiny

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


def places(count: int, channels: int, shares: tuple[float, ...] = (1.0,)) -> Places:
    owner = torch.arange(count) % len(shares)
    return Places(torch.randn(count, channels), torch.rand(count, 3), owner, torch.tensor(shares))


def test_the_choice_is_the_nearest_direction_from_the_means() -> None:
    own, photo = places(50, 24), torch.randn(1, 24, 6, 7)
    rows = photo[0].flatten(1).T
    choice = plan_choice(rows, know(own, (8, 16)), 0.0)
    columns, seen = own.columns.double(), rows.double()
    spreads = torch.cat(
        [part.var(0, correction=0).sum().sqrt().expand(part.shape[1]) for part in columns.split((8, 16), 1)]
    )
    keys = F.normalize(columns / spreads - (columns / spreads).mean(0), dim=1)
    queries = F.normalize(seen / spreads - (seen / spreads).mean(0), dim=1)
    assert torch.equal(choice.index(photo).flatten(), (queries @ keys.T).argmax(1))


def test_few_directions_choose_nearly_the_nearest() -> None:
    mixing = torch.randn(12, 3 * COMPARED)
    own = Places(torch.randn(80, 12) @ mixing, torch.rand(80, 3), torch.zeros(80, dtype=torch.long), torch.ones(1))
    photo = (torch.randn(30, 12) @ mixing).T.reshape(1, -1, 5, 6)
    known = know(own, (3 * COMPARED,))
    assert known.basis.shape == (3 * COMPARED, COMPARED)
    rows = photo[0].flatten(1).T
    choice = plan_choice(rows, known, 0.0)
    whole = F.normalize(rows * known.scale - choice.center, dim=1) @ own.keys(known.scale).T
    assert torch.equal(choice.index(photo).flatten(), whole.argmax(1))


def test_each_painting_gets_its_share() -> None:
    own, rows = places(60, 16, (0.25, 0.75)), torch.randn(800, 16)
    choice = plan_choice(rows, know(own, (16,)), 0.1)
    taken = own.owner[choice.index(rows.T.reshape(1, 16, 40, 20)).flatten()]
    assert float((taken == 0).float().mean()) == pytest.approx(0.25, abs=0.05)


def test_a_bonus_makes_the_rarer_column_the_best() -> None:
    scores = torch.tensor([[1.0, 0.0]] * 10) + torch.linspace(0, 0.1, 10)[:, None] * torch.tensor([[0.0, 1.0]])
    bonus = find_bonus(scores, torch.tensor([0.5, 0.5]))
    assert int(((scores + bonus).argmax(1) == 1).sum()) in (4, 5, 6)


def test_only_the_region_is_sampled() -> None:
    own, rows = places(40, 8), torch.randn(100, 8)
    inside = torch.zeros(100)
    inside[:30] = 1
    assert_close(
        plan_choice(rows, know(own, (8,)), 0.1, inside).center, plan_choice(rows[:30], know(own, (8,)), 0.1).center
    )


def test_sizes_halve_until_they_are_small() -> None:
    assert coarser_sizes(512, 384) == [(256, 192), (128, 96), (64, 48)]
    assert coarser_sizes(200, 101) == [(100, 50)]
    assert coarser_sizes(80, 80) == []
    assert coarser_sizes(8192, 4096)[0] == (1024, 512)


def test_a_large_photo_is_reduced_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = (painting(210, 150, seed=4)[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
    canvas = Bytes(pixels)
    whole = Floats(pixels.permute(2, 0, 1)[None].float() / 255)
    monkeypatch.setattr(place_painter, "LARGE", 64)
    assert_close(reduced(canvas, 70, 50), F.avg_pool2d(whole.image, 3), atol=1e-5, rtol=0)
    assert reduced(canvas, 40, 30).shape == (1, 3, 40, 30)


def test_a_part_is_enlarged_as_the_whole_is() -> None:
    coarse = torch.rand(1, 3, 20, 14) * 0.5 + 0.25
    whole = F.interpolate(coarse, (41, 28), mode="bicubic", align_corners=False)
    part = StageInput({IMAGE: torch.rand(1, 3, 16, 12)}, None, (), 16, 12, 8, 4)
    assert_close(enlarged(coarse, (41, 28), part), whole[..., 8:24, 4:16], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(112, 144), (125, 163)])
def test_tiles_give_the_whole_picture(size: tuple[int, int]) -> None:
    model, photo = tiny("nnst_d"), painting(*size, seed=1)
    assert isinstance(model, NNSTD)
    style = model.encode_style(painting(90, 80, seed=2))
    model.tiling = None
    whole = model.transfer(photo, style)
    model.tiling = Tiling(48)
    assert_close(model.transfer(photo, style), whole, atol=1e-4, rtol=0)


def test_the_network_sees_no_further_than_its_layers() -> None:
    network = PlacePainter(6, 4, 8, 2)
    columns = torch.randn(1, 6, 31, 31, requires_grad=True)
    rest = torch.rand(1, 3, 31, 31), torch.randn(1, 4, 31, 31), torch.rand(1, 3, 124, 124)
    network(columns, *rest, (124, 124))[0, :, 60:64, 60:64].sum().backward()
    assert columns.grad is not None
    seen = columns.grad[0].abs().sum(0).nonzero() - 15
    assert 2 < int(seen.abs().max()) <= reach([network])


def test_odd_sizes_are_continued_at_the_edge() -> None:
    network = PlacePainter(6, 4, 8, 1)
    found = network(
        torch.randn(1, 6, 7, 5), torch.rand(1, 3, 7, 5), torch.randn(1, 4, 7, 5), torch.rand(1, 3, 30, 23), (30, 23)
    )
    assert found.shape == (1, 3, 30, 23)
    assert torch.equal(found[..., 28:, :], found[..., 27:28, :].expand(1, 3, 2, 23))


def test_a_mixture_is_between_its_paintings() -> None:
    model, photo = tiny("nnst_d"), painting(64, 64, seed=1)
    dark, light = (model.encode_style(painting(64, 64, seed=3) * 0.3 + shift) for shift in (0.0, 0.7))
    means = [float(model.transfer(photo, style).mean()) for style in (dark, mix([dark, light]), light)]
    assert means[0] < means[1] < means[2]


def train(introduction: float, steps: int = 12) -> tuple[list[float], set[str], PlacePainter]:
    torch.manual_seed(0)
    backbone = Hypercolumns(random_slim(), nnst_d.SLIM_COLUMNS)
    network = PlacePainter(sum(SLIM_COLUMN_WIDTHS), sum(SLIM_SHAPE_WIDTHS), 16, 1)
    options = NNSTDTrainOptions(introduction=introduction, octaves=1, half_share=0)
    loss = PerceptualLoss(backbone, style_layers=("relu1_1", "relu2_1"), content_layers=("relu3_1",))
    learner = NNSTDTraining(backbone, loss, network, options)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    contents, styles = (torch.cat([painting(64, 64, seed=seed) for seed in seeds]) for seeds in ((1, 2), (3, 4)))
    values, terms = [], {}
    for _ in range(steps):
        terms = learner.training_terms(contents, styles, 0.5)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    return values, set(terms), network


@pytest.mark.parametrize(
    ("introduction", "terms"),
    [(1.0, {"pixels", "rebuilt"}), (0.0, {"pixels", "rebuilt", "matched", "content", "style"})],
)
def test_the_network_learns_to_rebuild_then_to_paint(
    introduction: float, terms: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nnst_d, "LOOSE", 0.0)  # or the terms differ from step to step
    values, found, _ = train(introduction, steps=30)
    assert found == terms
    assert sum(values[-5:]) < 0.95 * sum(values[:5])


def test_the_next_similar_place_is_another_one() -> None:
    columns = torch.randn(6, 4, 5)
    index = nnst_d._next_similar(columns, torch.ones(6))
    rows = columns.double().flatten(1).T
    rows = F.normalize(rows - rows.mean(0), dim=1)
    similar = rows @ rows.T - 9 * torch.eye(20, dtype=torch.float64)
    assert torch.equal(index, similar.argmax(1))


def test_gradients_reach_every_parameter() -> None:
    _, _, network = train(0.0, steps=1)
    assert all(
        parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in network.parameters()
    )


def test_a_preview_shows_photos_paintings_and_pictures() -> None:
    learner_pictures: Tensor = torch.rand(2, 3, 64, 64)
    backbone = Hypercolumns(random_slim(), nnst_d.SLIM_COLUMNS)
    network = PlacePainter(sum(SLIM_COLUMN_WIDTHS), sum(SLIM_SHAPE_WIDTHS), 16, 1)
    learner = NNSTDTraining(backbone, PerceptualLoss(backbone), network, NNSTDTrainOptions(octaves=1))
    assert learner.preview(learner_pictures, learner_pictures).shape == (1, 3, 192, 128)
    assert learner.config()["shape"] == network.shape
