"""Commands that go on after kill -9, at random moments, end with the pictures of a run that nobody killed."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from clips import pan, write_clip
from impasto.images.files import read_image, write_image
from impasto.images.video import read_frames
from impasto.training.loop import CHECKPOINT
from impasto.weights import load_weights
from tiny import painting

pytestmark = pytest.mark.slow
KILLS = 4
SEEDS = [int(word) for word in os.environ.get("IMPASTO_KILL_SEEDS", "0 1").split()]
"""What decides when the runs are killed."""
CODE = (
    "import sys; from impasto.weights import checkpoints; checkpoints.PAUSE = 0.0; "
    "from impasto.cli.main import main; sys.exit(main())"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photo, a painting and a folder of pictures."""
    write_image(painting(96, 128, seed=1), tmp_path / "photo.png")
    write_image(painting(90, 90, seed=2), tmp_path / "painting.png")
    (tmp_path / "photos").mkdir()
    for number in range(6):
        write_image(painting(80, 96, seed=10 + number), tmp_path / "photos" / f"{number}.png")
    return tmp_path


def run(words: Sequence[str], folder: Path, seconds: float | None = None) -> bool:
    """The command, which keeps its state at every step; it is killed after some seconds; returns whether it ended."""
    process = subprocess.Popen([sys.executable, "-c", CODE, *words], cwd=folder, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    assert process.returncode == 0, errors.decode()[-2000:]
    return True


def time_of(words: Sequence[str], folder: Path) -> float:
    begun = time.monotonic()
    run(words, folder)
    return time.monotonic() - begun


def kill_and_go_on(
    words: Callable[[], Sequence[str]],
    folder: Path,
    seconds: float,
    seed: int,
    done: Callable[[], bool] = lambda: False,
) -> None:
    """Kill the command some times, then let it end.

    seconds: how long it takes; words: asked before each start; done: whether it was killed after its work.
    """
    draw = random.Random(seed)
    for _ in range(KILLS):
        if run(words(), folder, draw.uniform(0.4, 1.0) * seconds) or done():
            return
    run(words(), folder)


ADAM = ("--optimizer", "adam", "--learning-rate", "0.02")
OPTIMISED = {
    "gatys lbfgs": ("stylize", "photo.png", "painting.png", "-m", "gatys", "--size", "96", "--steps", "30"),
    "gatys adam": ("stylize", "photo.png", "painting.png", "-m", "gatys", "--size", "96", "--steps", "30", *ADAM),
    "nnst": ("stylize", "photo.png", "painting.png", "-m", "nnst", "--size", "96", "--steps", "10"),
    "texture": ("texture", "painting.png", "--size", "96x64", "--steps", "20", "--coarse-steps", "20"),
    "tileable": ("texture", "painting.png", "photo.png", "--size", "64", "--steps", "30", "--tileable"),
}


@pytest.mark.parametrize("kind", OPTIMISED)
@pytest.mark.parametrize("seed", SEEDS)
def test_optimised_pictures(folder: Path, kind: str, seed: int) -> None:
    words = OPTIMISED[kind]
    seconds = time_of([*words, "-o", "whole.png"], folder)
    state, out = folder / "run.safetensors", folder / "out.png"
    killed = [*words, "-o", out.name, "--checkpoint", state.name]
    kill_and_go_on(lambda: killed, folder, seconds, seed, lambda: out.exists() and not state.exists())
    assert torch.equal(read_image(folder / "out.png"), read_image(folder / "whole.png"))
    assert not state.exists()


def assert_six_equal(folder: Path) -> None:
    """Six pictures in the folder `whole`, and the same ones in `out`."""
    names = [path.name for path in (folder / "whole").glob("*.png")]
    assert len(names) == 6
    for name in names:
        assert torch.equal(read_image(folder / "out" / name), read_image(folder / "whole" / name))


def test_batches(folder: Path) -> None:
    words = ["batch", "photos", "--style", "painting.png", "-m", "adain"]
    seconds = time_of([*words, "-o", "whole"], folder)
    kill_and_go_on(lambda: [*words, "-o", "out"], folder, seconds, 2)
    assert_six_equal(folder)


FAST = ("--steps", "12", "--batch", "1", "--crop", "64", "--side", "80", "--checkpoint-every", "2")
TRAININGS = {
    "johnson": ("train", "johnson", "--content", "photos", "--style", "painting.png", *FAST),
    "texture": ("train", "texture", "--style", "painting.png", "--style", "photo.png", *FAST[:2], *FAST[4:]),
    "classifier features": ("transfer", "fit", "classes", "--steps", "400", "--checkpoint-every", "5"),
    "classifier full": ("transfer", "fit", "classes", "--mode", "full", *FAST),
    "classifier lora": ("transfer", "fit", "classes", "--mode", "lora", *FAST),
}


@pytest.mark.parametrize("kind", TRAININGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_trainings(folder: Path, kind: str, seed: int) -> None:
    words, name = TRAININGS[kind], f"{kind.split()[0]}.safetensors"
    for number, path in enumerate(sorted((folder / "photos").iterdir())):
        place = folder / "classes" / "ab"[number % 2] / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)

    def again() -> list[str]:
        return [*words, "-o", "out", "--resume" if (folder / "out" / CHECKPOINT).exists() else "--force"]

    seconds = time_of([*words, "-o", "whole"], folder)
    report = folder / "out" / "report.json"
    kill_and_go_on(
        again, folder, seconds, seed, report.exists if words[0] == "transfer" else (folder / "out" / name).exists
    )
    found, wanted = (load_weights(folder / place / name).tensors for place in ("out", "whole"))
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(found[key], tensor), key


def test_pictures_to_evaluate(folder: Path) -> None:
    (folder / "paintings").mkdir()
    shutil.copy(folder / "painting.png", folder / "paintings")
    words = ["evaluate", "photos", "paintings", "--size", "64", "--offsets", "0", "-m", "gatys", "--steps", "5"]
    words += [word for name in ("painted", "lpips", "cfsd", "artfid") for word in ("--skip", name)]
    seconds = time_of([*words, "--make", "whole"], folder)
    kill_and_go_on(lambda: [*words, "--make", "out"], folder, seconds, 5)
    assert_six_equal(folder)


def test_videos(folder: Path) -> None:
    write_clip(pan(painting(48, 96), 12, 48, 64, 2), folder / "clip.mp4")
    words = ["video", "clip.mp4", "painting.png", "-m", "adain", "--smooth", "0.9"]
    seconds = time_of([*words, "-o", "whole.mp4"], folder)
    kill_and_go_on(lambda: [*words, "-o", "out.mp4"], folder, seconds, 4, (folder / "out.mp4").exists)
    found, wanted = ([frame.image for frame in read_frames(folder / name)] for name in ("out.mp4", "whole.mp4"))
    assert len(found) == len(wanted) == 12
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 0.25  # the frames are equal; what the encoder makes of them need not be
