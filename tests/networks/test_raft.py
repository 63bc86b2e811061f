"""Optical flow by RAFT, with random weights: sizes, files of weights, and that a video carries results along it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision import models

from cli_support import use_one_thread
from clips import moving_shapes, write_clip
from impasto.cli.main import main
from impasto.errors import WeightsError
from impasto.networks import raft_flow
from impasto.networks.raft_flow import Raft
from impasto.stylizers.video_coherence import Coherence
from impasto.weights import save_weights, torchvision_files
from tiny import painting, tiny

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("raft") / "raft.safetensors"
    save_weights(models.get_model("raft_small", weights=None).state_dict(), path, {})
    return path


@pytest.fixture(autouse=True)
def _few_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft_flow, "UPDATES", 2)


@pytest.mark.parametrize("size", [(48, 64), (130, 136)])
def test_it_is_torchvisions_own_answer(weights: Path, size: tuple[int, int]) -> None:
    estimate = Raft(weights)
    first, second = torch.rand(2, 1, 3, *size)
    found = estimate(first, second)
    assert found.shape == (1, 2, *size)
    assert not found.requires_grad
    height, width = (max(128, side + -side % 8) for side in size)

    def extend(image: Tensor) -> Tensor:
        rows = torch.arange(height).clamp(max=size[0] - 1)
        columns = torch.arange(width).clamp(max=size[1] - 1)
        return 2 * image[:, :, rows][..., columns] - 1

    with torch.no_grad():
        whole = estimate.network(extend(first), extend(second), num_flow_updates=2)[-1]
    torch.testing.assert_close(found, whole[..., : size[0], : size[1]])


def test_files_of_weights(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = models.get_model("raft_small", weights=None).state_dict()
    torch.save(state, tmp_path / "raft.pth")
    assert len(Raft(tmp_path / "raft.pth").digest) == 64
    save_weights({"weight": torch.zeros(3)}, tmp_path / "other.safetensors", {})
    with pytest.raises(WeightsError, match="holds no RAFT"):
        Raft(tmp_path / "other.safetensors")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=r"not at hand: put raft_small_C_T_V2-01064c6d\.pth into"):
        Raft()
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "checkpoints" / "raft_small_C_T_V2-01064c6d.pth")
    with pytest.raises(WeightsError, match="is damaged: its checksum"):
        Raft()
    monkeypatch.setattr(torchvision_files, "_hash_prefix", lambda name: "")
    assert len(Raft().digest) == 64


def test_results_are_carried_along_it() -> None:
    method = tiny("adain")
    still = torch.zeros(1, 2, 48, 64)
    asked: list[Tensor] = []

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        asked.append(first)
        return still

    coherence = Coherence(method, carried=0.5, estimate=estimate)
    frame = painting(48, 64)
    one = coherence.paint(frame, lambda: torch.zeros_like(frame))
    two = coherence.paint(frame, lambda: torch.ones_like(frame))
    assert len(asked) == 2
    assert float(one.max()) == 0
    torch.testing.assert_close(two, torch.full_like(two, 0.5), atol=0.003, rtol=0)


def test_a_video_by_raft(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    write_clip(moving_shapes(2, 32, 48), Path("clip.mp4"))
    words = ["video", "clip.mp4", "--style", "udnie", "-m", "adain", "-o", "out.mp4"]
    assert main([*words, "--flow-by", "dis", "--flow-weights", str(weights)]) == 2
    assert main([*words, "--flow-by", "nobody"]) == 2
    assert not Path("out.mp4").exists()
    assert main([*words, "--flow-weights", str(weights), "--json"]) == 0
    assert Path("out.mp4").exists()
