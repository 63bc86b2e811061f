"""Optimisations that were cut off go on to the same bits; memory that runs out costs tiles, not steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cli_support import Shell, make_backbone, open_shell, use_one_thread
from impasto.errors import ImpastoError
from impasto.feedforward.tiled_run import Tiling
from impasto.images.files import read_image
from impasto.methods.gatys import Gatys
from impasto.optimize import tiled_objective
from impasto.optimize.losses import Objective
from impasto.optimize.tiled_objective import TiledObjective
from impasto.progress import Step
from impasto.weights import checkpoints, save_weights
from impasto.weights.checkpoints import Checkpoint
from tiny import painting, tiny_gatys

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "lbfgs": {},
    "adam": {"optimizer": "adam", "learning_rate": 0.05, "decay": 0.5, "decay_every": 2},
    "gd": {"optimizer": "gd", "learning_rate": 0.1, "average": 0.7},
}


class Killed(Exception):
    """Stands for a process that ends here."""


def killed_after(steps: int) -> Callable[[Step], None]:
    def on_step(step: Step) -> None:
        if step.index == steps:
            raise Killed

    return on_step


def kept(model: Gatys, path: Path, identity: str = "one") -> Gatys:
    model.checkpoint = Checkpoint(path, {"run": identity}, pause=0)
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [3, 8])
def test_a_run_goes_on_to_the_same_bits(name: str, steps: int, tmp_path: Path) -> None:
    def model() -> Gatys:
        return tiny_gatys(steps=6, octaves=1, least_side=24, coarse_steps=4, **OPTIMIZERS[name])

    photo, path = painting(64, 64, seed=3), tmp_path / "run.safetensors"
    style = model().encode_style(painting())
    whole = model().transfer(photo, style, seed=1)
    with pytest.raises(Killed):
        kept(model(), path).transfer(photo, style, seed=1, on_step=killed_after(steps))
    seen: list[int] = []
    found = kept(model(), path).transfer(photo, style, seed=1, on_step=lambda step: seen.append(step.index))
    assert seen == list(range(steps, 11))  # the step in which it was killed had not been kept yet
    assert torch.equal(found, whole)


@pytest.mark.parametrize("where", ["between steps", "within a step", "between scales"])
def test_ctrl_c_keeps_the_state_however_soon_it_comes(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    def model() -> Gatys:
        return tiny_gatys(steps=6, octaves=1, least_side=24, coarse_steps=4)

    # A shell that starts the tests in the background makes them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def press() -> None:
        if where == "between scales":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGINT)

    photo, path = painting(64, 64, seed=3), tmp_path / "run.safetensors"
    style = model().encode_style(painting())
    whole = model().transfer(photo, style, seed=1)
    stopped, called = model(), []
    stopped.checkpoint = Checkpoint(path, {})  # the pause of half a minute is far from over
    objective = Gatys._objective if where == "between scales" else Objective.__call__
    owner, name = (Gatys, "_objective") if where == "between scales" else (Objective, "__call__")

    def counting(self: Any, *given: Any, **named: Any) -> Any:
        called.append(0)
        if where != "between steps" and len(called) == (2 if where == "between scales" else 3):
            press()
        return objective(self, *given, **named)

    monkeypatch.setattr(owner, name, counting)
    on_step = (lambda step: press() if step.index == 3 else None) if where == "between steps" else lambda step: None
    stopped.transfer(photo, style, seed=1, on_step=on_step)
    assert (stopped.interrupted, path.exists()) == (True, True)
    monkeypatch.setattr(owner, name, objective)
    going_on, seen = model(), []
    going_on.checkpoint = Checkpoint(path, {})
    found = going_on.transfer(photo, style, seed=1, on_step=lambda step: seen.append(step.index))
    assert seen[0] == (5 if where == "between scales" else 4)
    assert torch.equal(found, whole)


def test_what_is_not_this_runs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    Checkpoint(path, {"size": (3, 4)}, pause=0).offer(1, lambda: ({"x": torch.ones(2)}, {"rate": 0.1}))
    found = Checkpoint(path, {"size": (3, 4)}).load()
    assert found is not None
    assert (found[0], found[1][0]["x"].tolist(), found[1][1]) == (1, [1, 1], {"rate": 0.1})
    with pytest.raises(ImpastoError, match="is of a run with other options"):
        Checkpoint(path, {"size": (3, 5)}).load()
    save_weights({"x": torch.ones(2)}, path, {})
    with pytest.raises(ImpastoError, match="is no checkpoint"):
        Checkpoint(path, {"size": (3, 4)}).load()
    Checkpoint(path, {}).finish()
    assert Checkpoint(path, {}).load() is None


def test_it_is_written_only_now_and_then(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.safetensors", {}, pause=1000)
    checkpoint.offer(0, lambda: pytest.fail("too early"))
    assert not list(tmp_path.iterdir())


# --- memory


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_objective, "SMALLEST_TILE", 64)


@pytest.mark.usefixtures("small_tiles")
def test_tiles_are_halved_and_no_step_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_gatys(steps=3)
    style, photo = model.encode_style(painting()), painting(97, 131, seed=3)
    whole = model.transfer(photo, style)
    evaluate, calls = Objective.__call__, []

    def scarce(self: Objective, image: Tensor) -> dict[str, Tensor]:
        calls.append(image)
        if len(calls) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return evaluate(self, image)

    monkeypatch.setattr(Objective, "__call__", scarce)
    caplog.set_level("WARNING")
    seen: list[int] = []
    found = model.transfer(photo, style, on_step=lambda step: seen.append(step.index))
    assert seen == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == ["not enough memory: going on in tiles of 64 px"]
    assert model.cut == Tiling(64)
    assert (found - whole).abs().max() <= 1e-3


@pytest.mark.usefixtures("small_tiles")
def test_at_last_the_error_names_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_gatys(steps=3)
    style = model.encode_style(painting())

    def never(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(TiledObjective, "__call__", never)
    model.room = 1 << 20
    with pytest.raises(ImpastoError, match=r"not enough memory for 131x97 .* --size \d+ fits"):
        model.transfer(painting(97, 131, seed=3), style)


@pytest.mark.usefixtures("small_tiles")
def test_a_large_painting_is_looked_at_in_tiles() -> None:
    model = tiny_gatys()
    whole = model.encode_style(painting(130, 150))
    model.room = 1 << 20
    found = model.encode_style(painting(130, 150))
    for name, tensor in whole.items():
        assert (found[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max()


# --- the command line


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoints, "PAUSE", 0.0)
    return open_shell(tmp_path, make_backbone(tmp_path / "backbone.safetensors"), capsys)


def test_the_same_command_goes_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("photo.png", "sea.png", "-o", "out.png", "--checkpoint", "run.safetensors")
    shell.stylize(*words[:2], "-o", "whole.png").good()
    real = Checkpoint.offer

    def press(self: Checkpoint, *rest: Any, now: bool = False) -> None:
        real(self, *rest, now=now)
        if not now:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "offer", press)
        done = shell.stylize(*words)
    assert done.code == 130
    assert "the same command goes on" in done.err
    assert {"run.safetensors", "out.png"} <= shell.names()
    refused = shell.stylize(*words, "--seed", "3")
    assert refused.code == 2
    assert "other options" in refused.err
    done = shell.stylize(*words).good()
    assert "going on after 1 of 2 steps" in done.err
    assert "run.safetensors" not in shell.names()
    assert torch.equal(read_image("out.png"), read_image("whole.png"))


def test_only_optimisations_have_something_to_go_on_with(shell: Shell) -> None:
    done = shell.run("stylize", "photo.png", "sea.png", "-m", "adain", "--checkpoint", "run.safetensors")
    assert done.code == 2
    assert "adain paints in one pass" in done.err
    done = shell.stylize("photo.png", "sea.png", "--checkpoint", "run.txt")
    assert "must end in .safetensors" in done.err
