"""`impasto invert`, `inspect`, `dream`, `attack` and `transfer` from the command line: what they write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import Tensor

from cli_support import Shell, make_backbone, make_picture, open_shell, use_one_thread
from impasto.commands import network_command
from impasto.images.files import read_image, read_metadata, write_image
from impasto.optimize import losses
from impasto.transfer.class_folders import Sample
from impasto.transfer.examples import FeatureStore
from impasto.vision.dreams import DreamOptions
from impasto.weights import load_weights

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
SLIM = ("--backbone-weights", "slim.safetensors")
FEW = ("--steps", "2", "--size", "48", "--quiet")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def shell(backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return open_shell(tmp_path, backbone, capsys)


# --- invert


def test_invert_one_layer_and_a_set(shell: Shell) -> None:
    done = shell.run("invert", "photo.png", "--layer", "relu2_2", *SLIM, *FEW).good()
    assert done.out == "photo-relu2_2.png\n"
    assert read_image("photo-relu2_2.png").shape == (1, 3, 36, 48)
    record = json.loads(read_metadata("photo-relu2_2.png")["impasto"])
    assert (record["command"], record["options"]["steps"]) == ("invert", 2)
    assert record["pictures"][0]["file"] == "photo.png"
    found = shell.run("invert", "photo.png", "--style-layers", "relu1_1,relu2_1", *SLIM, *FEW, "--json").good().json
    assert found["output"] == "photo-style-relu2_1.png"
    assert found["inversions"][0]["layers"] == ["relu1_1", "relu2_1"]


def test_invert_all_layers_on_a_sheet(shell: Shell) -> None:
    found = shell.run("invert", "photo.png", "--painting", "sea.png", *SLIM, *FEW, "--json").good().json
    layers = [one["layers"] for one in found["inversions"]]
    assert layers[:5] == [["relu1_2"], ["relu2_2"], ["relu3_2"], ["relu4_2"], ["relu5_1"]]
    assert [len(one) for one in layers[5:]] == [1, 2, 3, 4, 5]
    assert read_image("photo-layers.png").shape[3] > 6 * 256


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("invert",), "name one picture"),
        (("invert", "photo.png", "--layer", "relu9_1"), "no layer 'relu9_1'"),
        (("invert", "photo.png", "--layer", "relu1_1", "--style-layers", "relu1_1"), "--layer or --style-layers"),
        (("invert", "photo.png", "--layer", "relu1_1", "--painting", "sea.png"), "--painting is for the sheet"),
        (("invert", "photo.png", "--stepz", "3"), "did you mean --steps"),
        (("invert", "photo.png", "--pooling", "median"), "--pooling is one of auto, max, average"),
        (("inspect", "photo.png"), "a photo and a layer go together"),
        (("inspect", "-o", "x.png"), "the table goes to the screen"),
        (("inspect", "photo.png", "--layer", "no"), "no layer 'no'"),
        (("dream",), "name a target"),
        (("dream", "--class", "unicorn"), "no class 'unicorn'"),
        (("dream", "--class", "ship", "--layer", "relu1_1"), "name a target"),
        (("dream", "--class", "ship", "--preset", "no"), "it has: default, noise, beginners"),
        (("dream", "--class", "ship", "extra"), "'extra' is too much"),
        (("dream", "--layer", "relu1_1", "--channel", "2", "--unit", "one"), "--unit takes ROW,COLUMN"),
        (("dream", "--class", "ship", "--unit", "1,1"), "go with --layer"),
        (("dream", "--layer", "relu1_1", "--channel", "999"), "no channel 999"),
        (("attack", "photo.png"), "--target CLASS"),
        (("attack", "--target", "ship"), "name one picture"),
        (("attack", "photo.png", "--target", "ship", "-o", "x.jpg"), "only .png keeps"),
        (("attack", "gone.png", "--target", "ship"), "gone.png can't be opened"),
        (("attack", "photo.png", "--target", "ship", "--epsilon", "300"), "epsilon"),
        (("attack", "photo.png", "--target", "ship", "--classifier", "no"), "no classifier 'no'"),
        (("transfer", "fit", "-o", "run"), "name one folder"),
        (("transfer", "fit", "gone", "-o", "run"), "gone is no folder"),
        (("transfer", "fit", "."), "-o RUNDIR"),
        (("transfer", "fit", ".", "-o", "run", "--mode", "magic"), "mode"),
        (("transfer", "predict"), "name pictures"),
        (("transfer", "predict", "gone.png"), "gone.png can't be opened"),
        (("transfer", "predict", "photo.png", "--classifier", "slim.safetensors"), "holds no classifier"),
    ],
)
def test_mistakes_are_reported_in_a_line_and_nothing_is_written(
    shell: Shell, words: tuple[str, ...], complaint: str
) -> None:
    before = shell.names()
    done = shell.run(*words, "--quiet")
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert done.err.count("\n") == 1
    assert shell.names() == before


@pytest.mark.parametrize("command", [("invert",), ("dream",), ("attack",), ("transfer", "fit")])
def test_options_are_listed(shell: Shell, command: tuple[str, ...]) -> None:
    out = shell.run(*command, "--list-options").good().out
    assert "--steps  whole number, at least 1; default" in out


# --- inspect


def test_inspect_lists_layers(shell: Shell) -> None:
    pytest.importorskip("torchinfo")
    table = shell.run("inspect").good().out.splitlines()
    assert table[0].split() == ["layer", "output", "parameters", "multiply-adds", "field", "stride"]
    assert table[1].split() == ["conv1_1", "16x224x224", "448", "22,478,848", "3", "1"]
    found = shell.run("inspect", "--backbone", "squeezenet1_1", "--json").good().json
    assert found["layers"][-1]["receptive_field"] == "whole"


def test_inspect_shows_what_a_layer_sees(shell: Shell) -> None:
    done = shell.run("inspect", "photo.png", "--layer", "relu1_1", *SLIM).good()
    assert done.out == "photo-relu1_1.png\nphoto-relu1_1-gram.png\n"
    assert "correlation" in done.err
    found = shell.run("inspect", "photo.png", "--layer", "relu1_1", *SLIM, "--force", "--json").good().json
    assert (len(found["gram"]), found["shape"]) == (16, [16, 36, 48])
    again = shell.run("inspect", "photo.png", "--layer", "relu1_1", *SLIM).good()
    assert again.out == "photo-relu1_1-2.png\nphoto-relu1_1-2-gram.png\n"
    Path("photo-relu1_1.png").unlink()  # its second picture is still there, and stays as it is
    once_more = shell.run("inspect", "photo.png", "--layer", "relu1_1", *SLIM).good()
    assert once_more.out == "photo-relu1_1-3.png\nphoto-relu1_1-3-gram.png\n"
    refused = shell.run("inspect", "photo.png", "--layer", "relu1_1", *SLIM, "-o", "photo-relu1_1.png")
    assert (refused.code, "photo-relu1_1-gram.png exists already" in refused.err) == (2, True)


def test_the_time_of_all_steps_is_estimated_from_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    clock = iter([100.0, 106.0])
    monkeypatch.setattr(network_command.time, "monotonic", lambda: next(clock))
    options = DreamOptions(steps=50, first_steps=40)
    seconds = network_command.expected_seconds(lambda few: seen.append((few.steps, few.first_steps)), options)
    assert seen == [(1, 0), (network_command.PILOT, 0)]
    assert seconds == pytest.approx(6.0 * 90 / network_command.PILOT)


# --- dream and attack, with the shipped classifier


def test_dream_of_a_class_and_of_a_channel(shell: Shell) -> None:
    found = shell.run("dream", "--class", "Giraffe", *FEW, "--json").good().json
    assert (found["output"], found["class"]) == ("dream-giraffe.png", "giraffe")
    assert 0 <= found["probability"] <= 1
    assert json.loads(read_metadata("dream-giraffe.png")["impasto"])["seed"] == 0
    shell.run(
        "dream", "--layer", "relu2_1", "--channel", "3", "--unit", "1,2", *SLIM, "--backbone", "vgg19-slim", *FEW
    ).good()
    assert read_image("dream-relu2_1-3-1-2.png").shape == (1, 3, 48, 48)
    shell.run("dream", "--class", "6", "--preset", "beginners", "--first-steps", "1", "-o", "p.png", *FEW).good()


def test_attack_tells_both_classes_and_writes_the_difference(shell: Shell) -> None:
    said = shell.run("transfer", "predict", "photo.png", "--json", "--top", "8").good().json["pictures"][0]["classes"]
    source, target = next(iter(said)), list(said)[-1]
    found = shell.run("attack", "photo.png", "--target", target, "--steps", "12", "--json").good().json
    assert (found["source"], found["target"]) == (source, target)
    assert found["output"] == f"photo-as-{target}.png"
    assert found["verdicts"][0]["before"]["source"] == pytest.approx(said[source], abs=0.02)
    assert 0 < found["l_infinity"] <= 8 / 255 + 1e-6
    assert read_image(found["difference"]).shape == (1, 3, 224, 224)
    again = shell.run("transfer", "predict", found["output"], "--json").good().json["pictures"][0]["classes"]
    assert again[target] == pytest.approx(found["verdicts"][0]["after"]["target"], abs=1e-4)
    assert found["verdicts"][0]["fooled"]
    refused = shell.run("attack", "photo.png", "--target", source, "-o", "x.png")
    assert (refused.code, "already: name another" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("dream", "--class", "ship", "--size", "32"), "dream-ship.png"),
        (("invert", "photo.png", "--layer", "relu1_1", "--size", "48"), "photo-relu1_1.png"),
        (("invert", "photo.png", "--size", "48"), "photo-layers.png"),
    ],
)
def test_after_ctrl_c_the_best_so_far_is_written(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], path: str
) -> None:
    total_variation, calls = losses.TotalVariation.__call__, []

    def press(self: losses.TotalVariation, image: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return total_variation(self, image)

    monkeypatch.setattr(losses.TotalVariation, "__call__", press)
    done = shell.run(*command, "--quiet")
    assert (done.code, done.out) == (130, f"{path}\n")
    assert done.err == "interrupted: what was written is the best so far\n"
    assert read_image(path).isfinite().all()


# --- transfer


@pytest.fixture
def classes(shell: Shell) -> Shell:
    """Two classes, dark and bright."""
    for label, name in enumerate(("dark", "bright")):
        (shell.folder / "classes" / name).mkdir(parents=True)
        for i in range(6):
            image = 0.2 * make_picture(10 * label + i, 40, 40) + 0.7 * label
            write_image(image, shell.folder / "classes" / name / f"{i}.png")
    return shell


@pytest.mark.parametrize("mode", ["features", "full", "lora"])
def test_fit_test_report_and_predict(classes: Shell, mode: str) -> None:
    pytest.importorskip("accelerate")
    if mode == "lora":
        pytest.importorskip("peft")
    few = ("--steps", "40", "--crop", "32", "--side", "36", "--layer", "relu2_1", "--batch", "8", "--mode", mode)
    fit = ("transfer", "fit", "classes", "-o", "run", *SLIM, *few, "--learning-rate", "0.03")
    rehearsed = classes.run(*fit, "--dry-run", "--json").good().json
    assert rehearsed["test"] == {"bright": 2, "dark": 2}
    assert not (classes.folder / "run").exists()
    found = classes.run(*fit, "--json", "--quiet").good().json
    assert found["accuracy"] == 1.0
    assert (found["steps"], found["confusion"]) == (40, [[2, 0], [0, 2]])
    report = json.loads((classes.folder / "run" / "report.json").read_text())
    assert len(report["test_files"]) == 4
    assert "Accuracy 100.0% on 4" in (classes.folder / "run" / "report.md").read_text()
    header = load_weights("run/classifier.safetensors").config
    assert (header["mode"], header["classes"]) == (mode, ["bright", "dark"])
    assert classes.run(*fit).code == 2
    predict = ("transfer", "predict", "classes/dark/1.png", "--classifier", "run/classifier.safetensors", *SLIM)
    assert classes.run(*predict).good().out.startswith("classes/dark/1.png: dark ")


def test_interrupted_features_are_kept(classes: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    look, calls = FeatureStore._look, []

    def press(self: FeatureStore, sample: Sample) -> Tensor:
        calls.append(sample)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return look(self, sample)

    monkeypatch.setattr(FeatureStore, "_look", press)
    fit = ("transfer", "fit", "classes", "-o", "run", *SLIM, "--steps", "3", "--crop", "32", "--layer", "relu1_1")
    done = classes.run(*fit, "--quiet")
    assert (done.code, done.out) == (130, "")
    assert "the same command goes on" in done.err
    assert len(load_weights("run/features.safetensors").tensors) == 3
    classes.run(*fit, "--quiet").good()
    assert len(calls) == 4 + 8 - 3


def test_errors_become_a_picture(classes: Shell) -> None:
    pytest.importorskip("accelerate")
    few = ("--steps", "3", "--crop", "32", "--layer", "relu1_1", "--test-share", "0.5", "--json", "--quiet")
    fit = ("transfer", "fit", "classes", "-o", "run", *SLIM, *few)
    sheet = classes.folder / "run" / "errors.png"
    for i in range(6):  # what is dark and what is bright is a matter of chance now
        for name, seed in (("dark", i), ("bright", 50 + i)):
            write_image(make_picture(seed, 40, 40), classes.folder / "classes" / name / f"{i}.png")
    assert classes.run(*fit).good().json["errors"]
    assert read_image(sheet).shape[2] >= 128
    for i in range(6):
        for name, value in (("dark", 0.1), ("bright", 0.9)):
            image = (0.05 * make_picture(i, 40, 40) + value).clamp(0, 1)
            write_image(image, classes.folder / "classes" / name / f"{i}.png")
    assert classes.run(*fit, "--force", "--steps", "60").good().json["errors"] == []
    assert not sheet.exists()
