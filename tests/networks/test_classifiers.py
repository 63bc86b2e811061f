"""Classifiers: the head, the classes' names, the shipped one, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from impasto.errors import OptionError, WeightsError
from impasto.networks.backbones import load_backbone
from impasto.networks.classifiers import (
    CLASSIFIER,
    HEAD,
    Head,
    attach_head,
    cut,
    last_layer,
    load_classifier,
    merge_adapter,
)
from impasto.weights import load_weights, resolve, save_weights
from recipe_support import natural, random_classifier
from tiny import narrow_slim

CLASSES = ("airplane", "elephant", "flower", "giraffe", "guitar", "house", "person", "ship")


def test_a_head_adds_logits_and_leaves_the_backbone_as_it_is(picture: Tensor) -> None:
    backbone = narrow_slim()
    network = attach_head(backbone, "relu4_1", Head(32, 5, 2))
    assert network.layers[-2:] == ("relu4_1", "logits")
    assert "logits" not in backbone.layers
    found = network(picture, {"relu4_1", "logits"})
    assert torch.equal(found["relu4_1"], backbone(picture, {"relu4_1"})["relu4_1"])
    assert found["logits"].shape == (1, 5)


def test_a_head_averages_cells() -> None:
    head = Head(2, 1, 2)
    torch.nn.init.zeros_(head.linear.bias)
    head.linear.weight.data = torch.eye(8)[5:6]  # channel 1, upper right cell
    features = torch.arange(32.0).view(1, 2, 4, 4)
    assert head(features).item() == pytest.approx(float(features[0, 1, :2, 2:].mean()))


def test_a_classifier_needs_features() -> None:
    with pytest.raises(OptionError, match="deeper layer than image"):
        cut(narrow_slim(), "image")
    assert last_layer(random_classifier().backbone) == "relu5_1"


def test_classes_by_name_and_number() -> None:
    model = random_classifier(3)
    assert (model.find("b"), model.find("B"), model.find("2")) == (1, 1, 2)
    with pytest.raises(OptionError, match=r"no class '3'.*number 0 to 2; there are: a, b, c$"):
        model.find("3")
    shipped = load_classifier()
    with pytest.raises(OptionError, match="did you mean elephant"):
        shipped.find("elefant")


def test_pictures_are_cut_square() -> None:
    wide = torch.zeros(1, 3, 40, 80)
    wide[..., 20:60] = 1
    assert torch.equal(random_classifier(size=40).square(wide), torch.ones(1, 3, 40, 40))
    assert random_classifier(size=32).square(torch.rand(1, 3, 97, 131)).shape == (1, 3, 32, 32)


def test_the_shipped_classifier_knows_pictures_that_it_has_never_seen() -> None:
    model = load_classifier()
    assert model.classes == CLASSES
    assert resolve(CLASSIFIER).stat().st_size < 1_000_000
    for name, wanted in (("flower.jpg", "flower"), ("china.jpg", "house")):
        chances = model.probabilities(model.square(natural(name)))
        assert chances.sum() == pytest.approx(1.0, abs=1e-5)
        assert model.classes[int(chances.argmax())] == wanted
        assert chances.max() > 0.9


def test_torchvisions_networks_bring_imagenets_classes(tmp_path: Path) -> None:
    path = tmp_path / "squeezenet.safetensors"
    backbone = load_backbone("squeezenet1_1", pretrained=False)
    from torchvision import models

    save_weights(models.squeezenet1_1().state_dict(), path, {})
    model = load_classifier("squeezenet1_1", weights=path)
    assert (len(model.classes), model.find("Siamese cat")) == (1000, 284)
    assert model.logits(torch.rand(1, 3, 64, 64)).shape == (1, 1000)
    assert model.backbone.layers == backbone.layers


def test_merging_an_adapter_is_adding_its_product() -> None:
    weight, down, up = torch.randn(5, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.randn(5, 2, 1, 1)
    naive = weight.double().numpy().copy()
    for o, r in np.ndindex(5, 2):
        naive[o] += 0.5 * float(up[o, r]) * down[r].double().numpy()
    np.testing.assert_allclose(merge_adapter(weight, down, up, 0.5).double().numpy(), naive, atol=1e-5)


# --- files


def header(**changes: Any) -> dict[str, Any]:
    own = load_weights(resolve(CLASSIFIER)).config
    return {**own, **changes}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": "style"}, "holds no classifier"),
        ({"backbone": "alexnet"}, "no backbone 'alexnet'"),
        ({"backbone_digest": "0" * 64}, "made for other weights of vgg19-slim"),
        ({"classes": ["a", "b", "c"]}, "holds no head for its 3 classes"),
        ({"layer": "relu9_9"}, "no layer 'relu9_9'"),
        ({"layer": "relu1_1"}, "its head is not for relu1_1"),
        ({"grid": 5}, "its head is not for relu5_1"),
        ({"classes": ["a"]}, "classes"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_weights(load_weights(resolve(CLASSIFIER)).tensors, path, header(**changes))
    with pytest.raises(WeightsError, match=complaint) as error:
        load_classifier(str(path))
    assert "\n" not in str(error.value)


def test_adapters_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    tensors = dict(load_weights(resolve(CLASSIFIER)).tensors)
    for name, shape, complaint in (
        ("steps.conv9_9", (1, 16, 3, 3), "adapter for steps.conv9_9"),
        ("steps.conv1_2", (1, 8, 3, 3), "another shape"),
    ):
        pair = {f"adapters.{name}.down": torch.zeros(shape), f"adapters.{name}.up": torch.zeros(16, 1, 1, 1)}
        save_weights(tensors | pair, path, header(mode="lora"))
        with pytest.raises(WeightsError, match=complaint):
            load_classifier(str(path))


def test_what_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=rf"no classifier 'nothing'; there are: {CLASSIFIER}, vgg16"):
        load_classifier("nothing")
    with pytest.raises(WeightsError, match="does not exist"):
        load_classifier(str(tmp_path / "gone.safetensors"))
    with pytest.raises(WeightsError, match="holds no classifier"):
        load_classifier("vgg19-slim")
    path = tmp_path / "headless.safetensors"
    tensors = {k: v for k, v in load_weights(resolve(CLASSIFIER)).tensors.items() if k != f"{HEAD}linear.weight"}
    save_weights(tensors, path, header())
    with pytest.raises(WeightsError, match="holds no head"):
        load_classifier(str(path))
