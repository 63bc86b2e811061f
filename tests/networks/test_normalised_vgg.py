"""The normalised VGG-19 from tiny random files, against the same network written out by hand, both in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.errors import OptionError, WeightsError
from impasto.networks.normalised_vgg import NormalisedVGG
from impasto.weights import save_weights

BLOCKS, WIDTHS = (2, 2, 4, 4, 1), (4, 8, 8, 8, 8)
HEAD_WIDTHS = (5, 6, 7, 8, 9)
FIRSTS = [f"relu{block}_1" for block in range(1, 6)]


def tensors(deepest: str = "conv5_1", heads: bool = False) -> dict[str, Tensor]:
    """Random weights up to `deepest`, with a head for every first layer of a block."""
    out, inputs = {"conv0.weight": torch.randn(3, 3, 1, 1), "conv0.bias": torch.randn(3)}, 3
    for block, (count, width, wide) in enumerate(zip(BLOCKS, WIDTHS, HEAD_WIDTHS, strict=True), start=1):
        for number in range(1, count + 1):
            name = f"conv{block}_{number}"
            if name > deepest:
                break
            out[f"{name}.weight"] = torch.randn(width, inputs, 3, 3) / (3 * inputs) ** 0.5
            out[f"{name}.bias"] = torch.randn(width)
            inputs = width
            if heads and number == 1:
                out[f"head{block}_1.weight"] = torch.randn(wide, width, 1, 1)
                out[f"head{block}_1.bias"] = torch.randn(wide)
    return out


def naive(weights: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    """All layers, and the heads' by the name ``head...``, step by step."""
    weights = {name: tensor.double() for name, tensor in weights.items()}
    x = F.conv2d(image, weights["conv0.weight"], weights["conv0.bias"])
    found = {"image": image, "conv0": x}
    for name in (key.split(".")[0] for key in weights if key.startswith("conv") and key.endswith("weight")):
        if name == "conv0":
            continue
        if name.endswith("_1") and name != "conv1_1":
            x = F.max_pool2d(x, 2)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weights[f"{name}.weight"], weights[f"{name}.bias"])
        found[name] = x
        x = found[name.replace("conv", "relu")] = x.relu()
        head = name.replace("conv", "head")
        if f"{head}.weight" in weights:
            found[head] = F.conv2d(x, weights[f"{head}.weight"], weights[f"{head}.bias"]).relu()
    return found


def write(path: Path, weights: dict[str, Tensor]) -> Path:
    save_weights(weights, path, {}, half=False)
    return path


@pytest.mark.parametrize("size", [(32, 32), (37, 51)])
def test_every_layer_is_the_naive_ones(tmp_path: Path, size: tuple[int, int]) -> None:
    weights = tensors()
    model = NormalisedVGG([write(tmp_path / "x.safetensors", weights)]).double()
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    expected = naive(weights, image)
    found = model(image, expected)
    assert set(found) == set(expected)
    for layer, features in expected.items():
        torch.testing.assert_close(found[layer], features)


def test_heads_give_the_layers_that_they_are_named_after(tmp_path: Path) -> None:
    weights = tensors(heads=True)
    model = NormalisedVGG([write(tmp_path / "x.safetensors", weights)]).double()
    image = torch.rand(1, 3, 32, 40, dtype=torch.float64)
    expected, found = naive(weights, image), model(image, FIRSTS)
    for layer, width in zip(FIRSTS, HEAD_WIDTHS, strict=True):
        torch.testing.assert_close(found[layer], expected[layer.replace("relu", "head")])
        assert found[layer].shape[1] == width


def test_exact_files_come_before_files_with_heads(tmp_path: Path) -> None:
    exact, thin = tensors("conv3_1"), tensors(heads=True)
    write(tmp_path / "b.safetensors", exact)
    write(tmp_path / "a.safetensors", thin)
    model = NormalisedVGG.from_folder(tmp_path).double()
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    found, first, second = model(image, [*FIRSTS, "conv2_2"]), naive(exact, image), naive(thin, image)
    for layer in ("relu1_1", "conv2_2", "relu2_1", "relu3_1"):
        torch.testing.assert_close(found[layer], first[layer])
    for layer in ("relu4_1", "relu5_1"):
        torch.testing.assert_close(found[layer], second[layer.replace("relu", "head")])


def test_the_digest_depends_on_every_file(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{name}.safetensors", tensors("conv1_2")) for name in "ab")
    digests = {NormalisedVGG(paths).digest for paths in ([one], [two], [one, two])}
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests)


def test_it_is_frozen_but_lets_gradients_through(tmp_path: Path) -> None:
    model = NormalisedVGG([write(tmp_path / "x.safetensors", tensors())])
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    model(image, ["relu5_1"])["relu5_1"].square().sum().backward()
    assert image.grad is not None
    assert bool(image.grad.any())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_layers_out_of_reach(tmp_path: Path) -> None:
    exact = NormalisedVGG([write(tmp_path / "x.safetensors", tensors("conv3_1"))])
    with pytest.raises(WeightsError, match=r"vgg19-normalised does not reach relu4_1, relu5_1"):
        exact(torch.rand(1, 3, 32, 32), FIRSTS)
    headed = NormalisedVGG([write(tmp_path / "y.safetensors", tensors(heads=True))])
    with pytest.raises(WeightsError, match="does not reach conv1_1"):
        headed(torch.rand(1, 3, 32, 32), ["conv1_1"])


def test_pictures_too_small_to_mirror(tmp_path: Path) -> None:
    model = NormalisedVGG([write(tmp_path / "x.safetensors", tensors())])
    with pytest.raises(OptionError, match="at least 32 px a side, not 40x31"):
        model(torch.rand(1, 3, 31, 40), ["relu5_1"])
    shallow = NormalisedVGG([write(tmp_path / "y.safetensors", tensors("conv1_2"))])
    assert shallow(torch.rand(1, 3, 2, 2), ["relu1_2"])["relu1_2"].shape == (1, 4, 2, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"steps.conv1_1.weight": torch.ones(1)}, "steps.conv1_1.weight is no layer of it"),
        ({"conv1_1.weight": torch.ones(4)}, "conv1_1.weight is no layer of it"),
        ({"conv9_1.bias": torch.ones(4)}, "conv9_1.bias is no layer of it"),
        ({"conv1_1.bias": torch.ones(5)}, "conv1_1.bias is 5 instead of"),
        ({"conv2_2.weight": torch.ones(8, 8, 3, 3)}, "conv2_2.bias is missing"),
        ({"conv5_1.bias": torch.ones(5)}, "conv5_1.bias is left over"),
        ({"head5_1.weight": torch.ones(1, 1, 1, 1), "head5_1.bias": torch.ones(1)}, "heads for layers that it lacks"),
    ],
)
def test_files_of_something_else(tmp_path: Path, changes: dict[str, Tensor], reason: str) -> None:
    path = write(tmp_path / "x.safetensors", tensors("conv2_1") | changes)
    with pytest.raises(WeightsError, match=r"x\.safetensors does not hold") as error:
        NormalisedVGG([path])
    assert reason in str(error.value)


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no safetensors file"):
        NormalisedVGG.from_folder(tmp_path)
