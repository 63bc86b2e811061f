"""The training loop: pictures, rates, checkpoints, exact resume, limits, what happens at NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from impasto.errors import ImpastoError, OptionError, WeightsError
from impasto.images.files import read_image
from impasto.training import loop
from impasto.training.loop import CHECKPOINT, MethodTask, StepReport, Task, TrainOptions, one_cycle, train
from impasto.training.pictures import Pictures
from impasto.weights import load_weights

pytest.importorskip("accelerate")
COLOURS = torch.tensor([[0.2, 0.5, 0.3], [0.9, -0.1, 0.2], [0.0, 0.3, 0.6]])


class ColourMap(Task):
    """A 1x1 convolution learns a matrix of colours, disturbed by noise; some calls break, counted from 1."""

    name = "colours"

    def __init__(self, broken: tuple[int, ...] = (), damage: str = "loss") -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 3, 1)
        self.broken, self.damage, self.calls = broken, damage, 0
        self.seen: list[tuple[Tensor, Tensor, float]] = []

    def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
        self.calls += 1
        self.seen.append((contents, styles, progress))
        image = torch.cat([contents, styles])
        wanted = torch.einsum("ij,bjhw->bihw", COLOURS, image)
        noise = 0.01 * torch.randn_like(image)
        terms = {"colours": (self.map(image + noise) - wanted).square().mean()}
        if self.calls in self.broken:
            zero = self.map.weight.sum() * 0
            terms["broken"] = zero.sqrt() if self.damage == "gradient" else zero * math.nan
        return terms


def pictures(seed: int = 0, count: int = 3, side: int = 40) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    items = [torch.randint(0, 256, (3, side, side + 4 * i), generator=generator).to(torch.uint8) for i in range(count)]
    return Pictures(items)


def options(kind: type[TrainOptions] = TrainOptions, **given: Any) -> TrainOptions:
    return kind(**{"steps": 12, "batch": 2, "crop": 32, "learning_rate": 0.05, **given})


def run(folder: Path, task: Task | None = None, **given: Any) -> tuple[Path, list[StepReport]]:
    reports: list[StepReport] = []
    resume, on_step = given.pop("resume", False), given.pop("on_step", lambda report: None)

    def both(report: StepReport) -> None:
        reports.append(report)
        on_step(report)

    torch.manual_seed(5)
    task = task or ColourMap()
    return train(task, pictures(0), pictures(1), options(**given), folder, resume=resume, on_step=both), reports


def stop_at(step: int, error: type[BaseException]) -> Callable[[StepReport], None]:
    def on_step(report: StepReport) -> None:
        if report.step == step:
            raise error

    return on_step


# --- the rate


def test_one_cycle_by_hand() -> None:
    assert one_cycle(0, 1.0) == pytest.approx(1 / 25)
    assert one_cycle(0.05, 1.0) == pytest.approx((1 / 25 + 1) / 2)
    assert one_cycle(0.1, 1.0) == pytest.approx(1)
    assert one_cycle(0.55, 1.0) == pytest.approx((1 + 1e-4) / 2)
    assert one_cycle(0.325, 1.0) == pytest.approx(1e-4 + (1 - 1e-4) * (2 + math.sqrt(2)) / 4)
    assert one_cycle(1, 1.0) == one_cycle(1.5, 1.0) == pytest.approx(1e-4)
    assert one_cycle(0.3, 0.02) == pytest.approx(0.02 * one_cycle(0.3, 1.0))


def test_one_cycle_rises_then_falls() -> None:
    rates = [one_cycle(i / 100, 1.0) for i in range(101)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert one_cycle(0.25, 1.0, warm=0.5) == pytest.approx((1 / 25 + 1) / 2)


def test_every_step_has_its_rate(tmp_path: Path) -> None:
    _, reports = run(tmp_path)
    assert [report.step for report in reports] == list(range(1, 13))
    assert [report.learning_rate for report in reports] == pytest.approx([one_cycle(i / 12, 0.05) for i in range(12)])
    assert [report.progress for report in reports] == pytest.approx([i / 12 for i in range(1, 13)])


def test_groups_keep_their_proportions_and_the_gradient_its_limit(tmp_path: Path) -> None:
    """Plain descent with a gradient cut to length 1 moves by the rate, 1/25 of the highest at first."""

    class Steep(ColourMap):
        def forward(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
            return {"steep": 1e6 * self.map.weight.sum() + 1e6 * self.map.bias.sum()}

        def optimizers(self, learning_rate: float) -> list[torch.optim.Optimizer]:
            groups = [{"params": [self.map.weight]}, {"params": [self.map.bias], "lr": 10 * learning_rate}]
            return [torch.optim.SGD(groups, lr=learning_rate)]

    task = Steep()
    before = task.map.weight.detach().clone(), task.map.bias.detach().clone()
    run(tmp_path, task, steps=1, learning_rate=0.5)
    share = 0.5 / 25 / math.sqrt(12)  # nine weights and three biases share the gradient's length
    assert_close(before[0] - task.map.weight.detach(), torch.full((3, 3, 1, 1), share), rtol=1e-4, atol=1e-6)
    assert_close(before[1] - task.map.bias.detach(), torch.full((3,), 10 * share), rtol=1e-4, atol=1e-6)


# --- which artworks


class Staying(TrainOptions):
    """The same artworks for five steps."""

    @property
    def steps_an_artwork(self) -> int:
        return 5


def test_artworks_stay_for_as_many_steps_as_the_options_say(tmp_path: Path) -> None:
    torch.manual_seed(5)
    task = ColourMap()
    run(tmp_path / "whole", task, kind=Staying)
    contents, styles, _ = zip(*task.seen, strict=True)
    changed = [not torch.equal(one, two) for one, two in pairwise(styles)]
    assert [number + 1 for number, yes in enumerate(changed) if yes] == [5, 10]
    assert not any(torch.equal(one, two) for one, two in pairwise(contents))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", kind=Staying, on_step=stop_at(7, KeyboardInterrupt))
    again = ColourMap()
    run(tmp_path / "parts", again, kind=Staying, resume=True)
    assert torch.equal(again.seen[0][1], styles[7])
    assert torch.equal(again.map.weight, task.map.weight)


# --- a whole run


def test_a_run_learns_and_writes_its_file(tmp_path: Path) -> None:
    path, reports = run(tmp_path / "new" / "folder", steps=400)
    assert path == tmp_path / "new" / "folder" / "colours.safetensors"
    assert reports[-1].terms["colours"] < 0.01 * reports[0].terms["colours"]
    file = load_weights(path)
    assert file.config == {"steps": 400}
    assert file.tensors["map.weight"].dtype == torch.float16
    assert_close(file.tensors["map.weight"].float().squeeze(), COLOURS, atol=0.1, rtol=0)


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    files = [run(tmp_path / str(i), seed=seed)[0].read_bytes() for i, seed in enumerate((1, 1, 2))]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_step_sees_its_own_batches(tmp_path: Path) -> None:
    task = ColourMap()
    run(tmp_path, task, seed=3)
    for step, (contents, styles, progress) in enumerate(task.seen):
        assert contents.shape == styles.shape == (2, 3, 32, 32)
        assert torch.equal(contents, pictures(0).batch((3, step, 0, 0), 2, 32))
        assert torch.equal(styles, pictures(1).batch((3, step, 0, 1), 2, 32))
        assert progress == pytest.approx(step / 12)


def test_previews_and_a_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    torch.manual_seed(5)
    train(ColourMap(), pictures(), pictures(), options(preview_every=5), tmp_path, log=True)
    assert sorted(p.name for p in tmp_path.glob("preview-*")) == ["preview-000005.png", "preview-000010.png"]
    assert read_image(tmp_path / "preview-000005.png").shape == (1, 3, 32, 32)
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_bfloat16_trains_too(tmp_path: Path) -> None:
    _, reports = run(tmp_path, precision="bf16", steps=60)
    assert reports[-1].terms["colours"] < 0.2 * reports[0].terms["colours"]


def test_options_are_validated() -> None:
    for name, value in {"steps": 0, "minutes": 0, "batch": 0, "crop": 31, "precision": "fp8", "clip": -1}.items():
        with pytest.raises(OptionError, match=name):
            TrainOptions.parse({name: value}, "train")


def test_a_task_without_a_loss_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Task defines no loss"):
        Task()(torch.zeros(1), torch.zeros(1), 0.0)


def test_a_methods_learner_is_trained_and_its_network_ships(tmp_path: Path) -> None:
    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Conv2d(3, 3, 1)
            self.frozen = nn.Conv2d(3, 3, 1).requires_grad_(False)

        def training_terms(self, contents: Tensor, styles: Tensor, progress: float) -> dict[str, Tensor]:
            return {"copy": (self.network(contents) - styles).square().mean()}

        def preview(self, contents: Tensor, styles: Tensor) -> Tensor:
            return self.network(contents[:1])

        def config(self) -> dict[str, Any]:
            return {"method": "copy"}

    learner = Learner()
    path, _ = run(tmp_path, MethodTask("copy", learner))
    assert path.name == "copy.safetensors"
    file = load_weights(path)
    assert set(file.tensors) == {"weight", "bias"}
    assert file.config == {"method": "copy", "steps": 12}
    assert torch.equal(file.tensors["weight"], learner.network.weight.detach().half())


# --- interruption and resume


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_resumed_run_gives_the_same_bits_as_one_never_interrupted(tmp_path: Path, error: type[BaseException]) -> None:
    """Ctrl-C leaves a checkpoint of that very step, a crash the last regular one."""
    whole, reports = run(tmp_path / "whole", checkpoint_every=4)
    with pytest.raises(error):
        run(tmp_path / "parts", checkpoint_every=4, on_step=stop_at(7, error))
    assert not (tmp_path / "parts" / "colours.safetensors").exists()
    done = 7 if error is KeyboardInterrupt else 4
    assert load_weights(tmp_path / "parts" / CHECKPOINT).config["step"] == done
    task = ColourMap()
    nn.init.constant_(task.map.weight, 9)  # what a new process starts with does not matter
    parts, rest = run(tmp_path / "parts", task, checkpoint_every=4, resume=True)
    assert [report.step for report in rest] == list(range(done + 1, 13))
    assert [report.terms for report in rest] == [report.terms for report in reports[done:]]
    assert parts.read_bytes() == whole.read_bytes()


def test_resuming_a_finished_run_only_writes_its_file_again(tmp_path: Path) -> None:
    path, _ = run(tmp_path)
    before = path.read_bytes()
    path.unlink()
    again, reports = run(tmp_path, resume=True)
    assert reports == []
    assert again.read_bytes() == before


def test_time_before_an_interruption_counts(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    seconds = float(load_weights(tmp_path / CHECKPOINT).config["seconds"])
    assert seconds > 0
    _, reports = run(tmp_path, steps=3, resume=True)
    assert reports[0].seconds > seconds


@pytest.mark.parametrize("damage", ["missing", "truncated", "random"])
def test_a_checkpoint_that_cannot_be_read_is_reported(tmp_path: Path, damage: str) -> None:
    run(tmp_path, steps=2)
    path = tmp_path / CHECKPOINT
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "truncated" else b"\x07" * 500)
    with pytest.raises(WeightsError, match=CHECKPOINT):
        run(tmp_path, resume=True)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    class Other(ColourMap):
        name = "other"

    run(tmp_path, steps=2)
    with pytest.raises(ImpastoError, match="is a checkpoint of 'colours', not of 'other'"):
        run(tmp_path, Other(), resume=True)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    wider = ColourMap()
    wider.map = nn.Conv2d(3, 5, 1)
    with pytest.raises(ImpastoError, match="another network"):
        run(tmp_path, wider, resume=True)


# --- NaN


@pytest.mark.parametrize("damage", ["loss", "gradient"])
def test_nan_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path: Path, damage: str) -> None:
    torch.manual_seed(5)  # as `run` does
    task = ColourMap(broken=(6,), damage=damage)
    with pytest.raises(ImpastoError, match=f"the {damage} is not finite at step 5"):
        run(tmp_path, task, checkpoint_every=1)
    assert torch.isfinite(task.map.weight).all()
    assert not (tmp_path / "colours.safetensors").exists()
    assert load_weights(tmp_path / CHECKPOINT).config["step"] == 5
    path, reports = run(tmp_path, resume=True)
    assert len(reports) == 7
    assert path.read_bytes() == run(tmp_path / "whole")[0].read_bytes()


# --- the clock


def test_the_clock_ends_a_run_at_its_lowest_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(10_000_000))
    monkeypatch.setattr(loop._Run, "seconds", property(lambda self: next(now) / 1000))
    _, reports = run(tmp_path, steps=100_000, minutes=1 / 60)
    assert 50 < len(reports) < 1000
    assert 0.98 < reports[-1].progress <= 1
    assert 0.98 < reports[-1].seconds < 1.1
    assert max(report.learning_rate for report in reports) == pytest.approx(0.05, rel=0.02)
    assert reports[-1].learning_rate < 0.01 * 0.05
    assert load_weights(tmp_path / "colours.safetensors").config == {"steps": len(reports)}


def test_steps_are_the_most_there_may_be_within_the_minutes(tmp_path: Path) -> None:
    _, reports = run(tmp_path, steps=4, minutes=1000)
    assert len(reports) == 4
    assert [report.progress for report in reports] == pytest.approx([0.25, 0.5, 0.75, 1])


# --- pictures


def coordinates(height: int, width: int) -> Tensor:
    """A picture whose red is its row and whose green is its column."""
    rows, columns = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    return torch.stack([rows.expand(height, width), columns.expand(height, width), torch.zeros(height, width)]).byte()


def test_crops_are_cut_whole_and_mirrored_by_chance() -> None:
    crops = (Pictures([coordinates(50, 60)]).batch((0,), 64, 32) * 255).round().long()
    tops, lefts, mirrored = set(), set(), 0
    for crop in crops:
        flipped = bool(crop[1, 0, 0] > crop[1, 0, -1])
        top, left = int(crop[0, 0, 0]), int(crop[1, 0].min())
        wanted = coordinates(50, 60)[:, top : top + 32, left : left + 32].long()
        assert torch.equal(crop.flip(2) if flipped else crop, wanted)
        tops.add(top)
        lefts.add(left)
        mirrored += flipped
    assert min(tops) <= 2
    assert max(tops) >= 16  # of 0 ... 18
    assert min(lefts) <= 2
    assert max(lefts) >= 26  # of 0 ... 28
    assert 16 < mirrored < 48


def test_batches_depend_on_the_seed_alone() -> None:
    made = pictures()
    first = made.batch((1, 2, 3), 4, 32)
    torch.manual_seed(99)
    np.random.seed(99)
    made.batch((7,), 4, 32)
    assert torch.equal(made.batch((1, 2, 3), 4, 32), first)
    assert not torch.equal(made.batch((1, 2, 4), 4, 32), first)
    assert first.shape == (4, 3, 32, 32)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
