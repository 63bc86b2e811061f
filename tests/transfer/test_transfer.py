"""Transfer learning: splits without overlap, features kept, frozen weights that stay, LoRA's identities, digits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError
from impasto.images.files import write_image
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import load_backbone
from impasto.networks.classifiers import HEAD, Head, attach_head, cut, load_classifier, merged
from impasto.networks.layers import count_parameters
from impasto.training.loop import train
from impasto.transfer.class_folders import ClassFolders, Sample
from impasto.transfer.examples import Examples, FeatureExamples, FeatureStore, Labels, draw, read_examples
from impasto.transfer.lora import adapt, adapters
from impasto.transfer.report import FitReport, Verdict, judge
from impasto.transfer.tasks import FinetuneTask, FitOptions, LinearTask, make_header
from impasto.weights import load_weights
from recipe_support import digest_of, random_classifier
from tiny import narrow_slim, random_vgg


def silent(done: int, total: int) -> None:
    """What `on_item` does here."""


def colour(red: float, green: float, blue: float, seed: int) -> Tensor:
    noise = 0.1 * torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(seed))
    return noise + torch.tensor([red, green, blue]).view(1, 3, 1, 1) * 0.8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, red, green and blue, of eight pictures each, one broken file, one double."""
    root = tmp_path_factory.mktemp("classes")
    for label, name in enumerate(("blue", "green", "red")):
        for i in range(8):
            target = root / name / ("deeper" if i % 2 else "") / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(colour(*(float(label == 2 - c) for c in range(3)), seed=10 * label + i), target)
    (root / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    shutil.copy(root / "red" / "0.png", root / "red" / "again.png")
    (root / ".hidden").mkdir()
    return root


# --- class folders


def test_classes_pictures_and_doubles(folder: Path) -> None:
    found = ClassFolders.find(folder)
    assert found.classes == ("blue", "green", "red")
    assert len(found.samples) == 25  # eight each and the broken one; the double counts once
    assert len({sample.digest for sample in found.samples}) == 25


@pytest.mark.parametrize("seed", range(5))
def test_train_and_test_never_share_a_file(folder: Path, seed: int) -> None:
    found = ClassFolders.find(folder)
    learn, check = found.split(0.25, seed)
    assert not {sample.digest for sample in learn} & {sample.digest for sample in check}
    assert len(learn) + len(check) == len(found.samples)
    assert [sum(sample.label == label for sample in check) for label in range(3)] == [2, 2, 2]


def test_a_renamed_picture_stays_on_its_side(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for path in sorted((other / "blue").rglob("*.png")):
        path.rename(path.with_name(f"z{9 - int(path.stem)}.png"))
    one, two = (ClassFolders.find(root).split(0.25, 0)[1] for root in (folder, other))
    assert {sample.digest for sample in one} == {sample.digest for sample in two}


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "at least two folders with pictures"),
        ({"a/1.png": 1}, "it has 1"),
        ({"a/1.png": 1, "a/2.png": 2, "b/1.png": 3}, "class 'b' needs at least two different"),
        ({"a/1.png": 1, "a/2.png": 2, "b/1.png": 1, "b/2.png": 4}, "same picture in two classes"),
    ],
)
def test_folders_that_make_no_classes(tmp_path: Path, files: dict[str, int], complaint: str) -> None:
    for name, seed in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(colour(0.5, 0.5, 0.5, seed), tmp_path / name)
    with pytest.raises(ImpastoError, match=complaint):
        ClassFolders.find(tmp_path)
    with pytest.raises(ImpastoError, match="is no folder"):
        ClassFolders.find(tmp_path / "gone")


# --- examples


def test_labels_go_with_their_pictures() -> None:
    items = [torch.full((3, 40, 40), value, dtype=torch.uint8) for value in (10, 20, 30, 31)]
    pictures = Examples(items, labels=(0, 1, 2, 2))
    labels = Labels([], labels=pictures.labels)
    for step in range(4):
        batch, wanted = pictures.batch((5, step, 0, 0), 16, 32), labels.batch((5, step, 0, 1), 16, 32)
        assert torch.equal((batch[:, 0, 0, 0] * 25.5).floor() - 1, wanted.flatten())


def test_every_class_is_drawn_equally_often() -> None:
    labels = (0,) * 90 + (1,) * 10
    drawn = [labels[i] for i in draw(labels, np.random.default_rng(0), 2000)]
    assert 0.45 < np.mean(drawn) < 0.55
    assert len(set(draw(labels, np.random.default_rng(1), 2000))) > 95


def test_features_are_computed_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ClassFolders.find(folder).samples
    path = tmp_path / "features.safetensors"
    body = cut(load_backbone(), "relu2_1")

    def store(size: int = 16) -> FeatureStore:
        return FeatureStore(body, "relu2_1", 2, size, path)

    first = store().compute(samples, silent)
    assert [Path(reason.split()[0]).name for reason in first.skipped] == ["broken.jpg"]
    assert first.items[0].shape == (2, 32, 2, 2)
    assert not torch.equal(first.items[0][0], first.items[0][1])  # the mirror image's
    other = store(20).compute(samples[:2], silent)  # of another size: not the same features
    assert not torch.equal(other.items[0], first.items[0])
    store().compute(samples, silent)

    def fail(*args: Any) -> Tensor:
        raise AssertionError("computed again")

    monkeypatch.setattr(Backbone, "forward", fail)
    again = store().compute([sample for sample in samples if sample.path.suffix == ".png"], silent)
    assert all(torch.equal(a, b) for a, b in zip(first.items, again.items, strict=True))


def test_interrupted_features_are_kept(folder: Path, tmp_path: Path) -> None:
    samples = ClassFolders.find(folder).samples[:6]
    path = tmp_path / "features.safetensors"
    store = FeatureStore(cut(load_backbone(), "relu1_1"), "relu1_1", 1, 16, path)

    def press(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.compute(samples, press)
    assert set(load_weights(path).tensors) == {sample.digest for sample in samples[:3]}


def test_a_class_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImpastoError, match=r"no picture in .* can be read: .*a\.jpg"):
        read_examples([Sample(tmp_path / "a.jpg", 0, "0")], 32, silent)


# --- tasks


def fit_options(**changes: Any) -> FitOptions:
    quick = {"steps": 6, "batch": 6, "crop": 32, "side": 36, "grid": 2, "preview_every": 3, **changes}
    return FitOptions.parse(quick, "transfer fit")


def finetune(mode: str, **changes: Any) -> FinetuneTask:
    options = fit_options(mode=mode, **changes)
    torch.manual_seed(1)
    body = cut(narrow_slim(), "relu3_1")
    head = Head(24, 3, options.grid)
    header = make_header(options, body, "relu3_1", ("blue", "green", "red"))
    return FinetuneTask(header, attach_head(body, "relu3_1", head), options)


def examples(folder: Path) -> tuple[Examples, Labels]:
    found = read_examples(ClassFolders.find(folder).samples, 36, silent)
    return found, Labels(found.items, labels=found.labels)


def body_weights(task: FinetuneTask) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in task.network.state_dict().items() if not k.startswith(HEAD) and "lora_" not in k}


def test_only_the_head_learns_while_the_backbone_is_frozen(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    frozen = finetune("full", frozen_share=1.0)
    before, head = body_weights(frozen), frozen.head.get_parameter("linear.weight").detach().clone()
    train(frozen, *examples(folder), frozen.options, tmp_path / "frozen")
    assert all(torch.equal(value, before[name]) for name, value in body_weights(frozen).items())
    assert not torch.equal(frozen.head.get_parameter("linear.weight"), head)
    free = finetune("full", frozen_share=0.5)
    train(free, *examples(folder), free.options, tmp_path / "free")
    assert not torch.equal(body_weights(free)["steps.conv1_1.weight"], before["steps.conv1_1.weight"])
    assert (tmp_path / "frozen" / "preview-000003.png").is_file()


def test_batch_norms_stay_as_they_are(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    options = fit_options(mode="full", frozen_share=0.0, steps=2)
    body = cut(random_vgg("vgg16_bn"), "relu2_2")
    header = make_header(options, body, "relu2_2", ("blue", "green", "red"))
    task = FinetuneTask(header, attach_head(body, "relu2_2", Head(12, 3, 2)), options)
    before = {name: value.clone() for name, value in task.network.named_buffers()}
    train(task, *examples(folder), options, tmp_path)
    assert "steps.bn1_1.running_mean" in before
    assert all(torch.equal(value, before[name]) for name, value in task.network.named_buffers())


def test_the_lessons_count_of_what_learns() -> None:
    torchvision = pytest.importorskip("torchvision")
    from impasto.networks.torchvision_backbones import take_apart

    with torch.device("meta"):
        steps = take_apart(torchvision.models.vgg16())
        network = attach_head(Backbone("vgg16", steps), "pool5", Head(512, 2, 7))
    body = sum(count_parameters(step) for name, step in network.steps.items() if name != "logits")
    assert count_parameters(network.steps["logits"]) == 50_178
    assert body + 50_178 == 14_764_866


def test_an_interrupted_fit_resumes_with_the_same_bits(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")

    def press(report: Any) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    whole = finetune("full", frozen_share=0.5)
    train(whole, *examples(folder), whole.options, tmp_path / "whole")
    parts = finetune("full", frozen_share=0.5)
    with pytest.raises(KeyboardInterrupt):
        train(parts, *examples(folder), parts.options, tmp_path / "parts", on_step=press)
    resumed = finetune("full", frozen_share=0.5)
    train(resumed, *examples(folder), resumed.options, tmp_path / "parts", resume=True)
    assert digest_of(resumed.network) == digest_of(whole.network)


# --- LoRA


def test_lora_starts_as_the_base_and_merges_into_it(picture: Tensor) -> None:
    pytest.importorskip("peft")
    base = random_classifier().backbone
    with torch.no_grad():
        before = base(picture, {"logits", "relu2_2"})
        adapted = random_classifier().backbone
        layers = adapt(adapted, rank=2, alpha=4)
        at_start = adapted(picture, {"logits", "relu2_2"})
        assert all(torch.equal(at_start[name], before[name]) for name in before)
        for layer in layers.values():
            nn.init.normal_(layer.get_submodule("lora_B.default").get_parameter("weight"), std=0.1)
        moved = adapted(picture, {"logits", "relu2_2"})
        assert not torch.allclose(moved["relu2_2"], before["relu2_2"], atol=1e-2)
        base.load_state_dict(merged(base.state_dict(), adapters(layers), 2.0, "test"))
        again = base(picture, {"logits", "relu2_2"})
    for name in again:
        assert torch.allclose(again[name], moved[name], atol=1e-5, rtol=1e-5)


def test_lora_leaves_the_base_and_counts_as_the_paper(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("accelerate")
    task = finetune("lora", rank=2)
    before = body_weights(task)
    convs = [(i, o) for i, o in ((3, 8), (8, 8), (8, 16), (16, 16), (16, 24))]
    learning = sum(p.numel() for name, p in task.network.named_parameters() if p.requires_grad and "lora_" in name)
    assert learning == sum(2 * (i * 9 + o) for i, o in convs)
    train(task, *examples(folder), task.options, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in body_weights(task).items())
    names = set(load_weights(tmp_path / "classifier.safetensors").tensors)
    assert names == {f"{HEAD}linear.weight", f"{HEAD}linear.bias"} | {
        f"adapters.steps.conv{layer}.{part}" for layer in ("1_1", "1_2", "2_1", "2_2", "3_1") for part in ("down", "up")
    }


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_backbone_learns_slower_than_the_head(mode: str) -> None:
    pytest.importorskip("peft")
    task = finetune(mode, body_rate=0.1)
    (optimizer,) = task.optimizers(0.01)
    head, rest = optimizer.param_groups
    assert {id(parameter) for parameter in head["params"]} == {id(parameter) for parameter in task.head.parameters()}
    assert (head["lr"], rest["lr"]) == (0.01, pytest.approx(0.001))
    assert len(rest["params"]) == 10  # kernels and biases of five convolutions, or two kernels of each adapter


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large"])
def test_lora_on_torchvisions_networks(name: str) -> None:
    pytest.importorskip("peft")
    backbone = load_backbone(name, pretrained=False)
    layer = backbone.layers[5]
    with torch.no_grad():
        before = backbone(torch.ones(1, 3, 32, 32), {layer})[layer]
        adapted = cut(backbone, layer)
        assert adapt(adapted, rank=4, alpha=4)
        assert torch.equal(adapted(torch.ones(1, 3, 32, 32), {layer})[layer], before)


# --- files and report


@pytest.mark.parametrize("mode", ["features", "full", "lora"])
def test_a_file_alone_gives_the_classifier(mode: str, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    if mode == "lora":
        pytest.importorskip("peft")
    options = fit_options(mode=mode, steps=150 if mode == "features" else 12, learning_rate=0.02, frozen_share=0.2)
    torch.manual_seed(0)
    body = cut(load_backbone(), "relu2_1")
    header = make_header(options, body, "relu2_1", ("blue", "green", "red"))
    samples = ClassFolders.find(folder).samples
    task: LinearTask | FinetuneTask
    if mode == "features":
        pictures = FeatureStore(body, "relu2_1", 2, 32, tmp_path / "f").compute(samples, silent)
        task = LinearTask(header, torch.stack([item[0] for item in pictures.items]), 0.01)
        pair = pictures, Labels([], labels=pictures.labels)
    else:
        task = FinetuneTask(header, attach_head(body, "relu2_1", Head(32, 3, 2)), options)
        pair = examples(folder)
    train(task, *pair, options, tmp_path)
    model = load_classifier(str(tmp_path / "classifier.safetensors"))
    assert (model.classes, model.size) == (("blue", "green", "red"), 32)
    image = model.square(colour(0.9, 0.1, 0.1, seed=99))
    if isinstance(task, FinetuneTask):
        wanted = task.network(image, {"logits"})["logits"]
    else:
        wanted = task.linear(
            (Head(32, 3, 2).pool(body(image, {"relu2_1"})["relu2_1"]).flatten(1) - task.mean) / task.deviation
        )
    assert torch.allclose(model.logits(image), wanted.detach(), atol=0.05)
    if mode == "features":
        report = judge(model, samples)
        assert (report.accuracy, report.errors) == (1.0, [])
        assert report.error_sheet(model) is None


def test_the_report_counts(folder: Path) -> None:
    samples = ClassFolders.find(folder).samples
    blue, green = (next(s for s in samples if s.label == label) for label in (0, 1))
    verdicts = (Verdict(blue, 0, 0.9), Verdict(blue, 1, 0.6), Verdict(green, 1, 0.8), Verdict(green, 2, 0.7))
    report = FitReport(("blue", "green", "red"), verdicts)
    assert report.confusion.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert report.accuracy == 0.5
    assert report.recalls == {"blue": 0.5, "green": 0.5, "red": 0.0}
    assert [verdict.probability for verdict in report.errors] == [0.7, 0.6]
    assert "| blue | 1 | 1 | 0 | 50% |" in report.to_markdown()
    assert report.to_json()["errors"][0]["said"] == "red"
    sheet = report.error_sheet(random_classifier(3, size=32), cell=32)
    assert sheet is not None
    assert sheet.shape[2] >= 2 * 32


def test_digits(tmp_path: Path) -> None:
    """scikit-learn's handwritten digits by a linear layer on the embedded backbone's features."""
    pytest.importorskip("accelerate")
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    body = cut(load_backbone(), "relu3_1")
    images = torch.from_numpy(digits.images[:1000] / 16).float()[:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        large = nn.functional.interpolate(images, (32, 32), mode="bicubic").clamp(0, 1)
        features = nn.functional.adaptive_avg_pool2d(body(large, {"relu3_1"})["relu3_1"], 4)
    labels = digits.target[:1000].tolist()
    known = FeatureExamples([torch.stack([f, f]) for f in features[:750]], labels=tuple(labels[:750]))
    options = fit_options(grid=4, steps=200, batch=64, learning_rate=0.003)
    task = LinearTask(make_header(options, body, "relu3_1", tuple("0123456789")), features[:750], 0.3)
    train(task, known, Labels([], labels=known.labels), options, tmp_path)
    model = load_classifier(str(tmp_path / "classifier.safetensors"))
    right = model.logits(large[750:]).argmax(1) == torch.tensor(labels[750:])
    assert float(right.float().mean()) > 0.9
