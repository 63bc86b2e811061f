"""Backbones: named layers, torchvision's own values, gradients to the picture alone."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import Tensor, nn

from impasto.errors import ImpastoError, OptionError, WeightsError
from impasto.networks.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SLIM,
    SLIM_WIDTHS,
    VGG19_WIDTHS,
    Backbone,
    slim_backbone,
)
from impasto.networks.backbones import BACKBONES, TORCHVISION, load_backbone
from impasto.networks.layers import count_parameters, freeze
from impasto.weights import load_weights, save_weights

models = pytest.importorskip("torchvision.models")
from impasto.networks import torchvision_backbones  # noqa: E402

# Where torchvision's `features` hold each convolution and each pooling, block by block, as the field counts them.
INDICES = {
    "vgg19": ([[0, 2], [5, 7], [10, 12, 14, 16], [19, 21, 23, 25], [28, 30, 32, 34]], [4, 9, 18, 27, 36]),
    "vgg16": ([[0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]], [4, 9, 16, 23, 30]),
    "vgg16_bn": ([[0, 3], [7, 10], [14, 17, 20], [24, 27, 30], [34, 37, 40]], [6, 13, 23, 33, 43]),
}


def index_table(name: str) -> dict[str, int]:
    """Layer name -> index in torchvision's ``features``."""
    convolutions, poolings = INDICES[name]
    kinds = ("conv", "bn", "relu") if name.endswith("_bn") else ("conv", "relu")
    table = {f"pool{block}": index for block, index in enumerate(poolings, start=1)}
    for block, indices in enumerate(convolutions, start=1):
        for number, index in enumerate(indices, start=1):
            table |= {f"{kind}{block}_{number}": index + i for i, kind in enumerate(kinds)}
    return table


@pytest.fixture(scope="module", params=["vgg16", "vgg19", "vgg16_bn"])
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Backbone]:
    """torchvision's network, untouched, and ours with the same random weights."""
    torch.manual_seed(1)
    reference = models.get_model(request.param, weights=None).eval()
    _stir_norms(reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "get_model", lambda name, weights: copy.deepcopy(reference))
        backbone = load_backbone(request.param, pretrained=False)
    return reference, backbone


def _stir_norms(model: nn.Module) -> None:
    """Give batch norms statistics that no single batch has."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)


def _scaled(image: Tensor) -> Tensor:
    return (image - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def _taps(model: nn.Module, image: Tensor) -> list[Tensor]:
    """What each of torchvision's layers gives before the next one works on it in place."""
    taps, x = [], _scaled(image)
    with torch.no_grad():
        for layer in model.features:
            x = layer(x)
            taps.append(x.clone())
    return taps


def test_vgg_layers_are_torchvisions_bit_for_bit(pair: tuple[nn.Module, Backbone], picture: Tensor) -> None:
    reference, backbone = pair
    table = index_table(backbone.name)
    assert sorted(table.values()) == list(range(len(reference.features)))
    by_index = sorted(table, key=table.__getitem__)
    assert backbone.layers == ("image", *by_index, "logits")

    image = picture[:, :, :40, :33]
    taps, found = _taps(reference, image), backbone(image, backbone.layers)
    assert torch.equal(found["image"], image)
    for layer, index in table.items():
        assert torch.equal(found[layer], taps[index]), layer
    with torch.no_grad():
        assert torch.equal(found["logits"], reference(_scaled(image)))


def test_a_convolution_keeps_its_negative_values_beside_its_relu(pair: tuple[nn.Module, Backbone]) -> None:
    _, backbone = pair
    found = backbone(torch.rand(1, 3, 32, 32), ("conv4_1", "relu4_1"))
    assert found["conv4_1"].min() < 0
    assert found["relu4_1"].min() == 0
    assert not any(getattr(module, "inplace", False) for module in backbone.modules())


def test_batch_equals_its_items(pair: tuple[nn.Module, Backbone]) -> None:
    _, backbone = pair
    images = torch.rand(2, 3, 32, 32)
    both = backbone(images, ["relu5_1"])["relu5_1"]
    for image, features in zip(images, both, strict=True):
        torch.testing.assert_close(backbone(image[None], ["relu5_1"])["relu5_1"][0], features)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "squeezenet1_1"])
def test_other_networks_say_what_torchvision_says(name: str, picture: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = models.get_model(name, weights=None).eval()
    _stir_norms(reference)
    monkeypatch.setattr(models, "get_model", lambda name, weights: copy.deepcopy(reference))
    backbone = load_backbone(name, pretrained=False)
    content, style = torchvision_backbones.DEFAULT_LAYERS[name]
    together = backbone(picture, backbone.layers)
    with torch.no_grad():
        assert torch.equal(together["logits"], reference(_scaled(picture)))
    for layer in (content, *style):  # nothing that comes later has changed it
        assert torch.equal(backbone(picture, [layer])[layer], together[layer]), layer


def test_layer_names_of_the_other_networks() -> None:
    names = {n: load_backbone(n, pretrained=False).layers for n in TORCHVISION if not n.startswith("vgg")}
    blocks = [f"layer{stage}_{i}" for stage, count in enumerate((3, 4, 6, 3), start=1) for i in range(count)]
    assert names["resnet50"] == ("image", "conv1", "bn1", "relu1", "maxpool", *blocks, "logits")
    assert names["mobilenet_v3_large"] == ("image", *(f"block{i}" for i in range(17)), "logits")
    fires = ["pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5", *(f"fire{i}" for i in range(6, 10))]
    assert names["squeezenet1_1"] == ("image", "conv1", "relu1", *fires, "logits")


@pytest.mark.parametrize("name", TORCHVISION)
def test_default_layers_exist_and_go_deeper(name: str) -> None:
    with torch.device("meta"):
        steps = list(torchvision_backbones.take_apart(models.get_model(name, weights=None)))
    content, style = torchvision_backbones.DEFAULT_LAYERS[name]
    assert content in steps
    assert len(style) == 5
    assert sorted(style, key=steps.index) == list(style)


def test_a_network_without_layer_names_is_refused() -> None:
    with pytest.raises(OptionError, match="no layer names for a Linear"):
        torchvision_backbones.take_apart(nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["resnet50", "squeezenet1_1"])
def test_average_pooling_replaces_every_max_pooling(name: str) -> None:
    backbone = load_backbone(name, pooling="average", pretrained=False)
    assert not any(isinstance(module, nn.MaxPool2d) for module in backbone.modules())
    maximum = load_backbone(name, pretrained=False)
    maximum.load_state_dict(backbone.state_dict())
    one, other = (net(torch.rand(1, 3, 49, 41), net.layers[:-1]) for net in (backbone, maximum))
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in other.items()}


def test_average_pooling_ignores_what_lies_outside() -> None:
    backbone = load_backbone("resnet50", pooling="average", pretrained=False)
    assert torch.equal(backbone.steps["maxpool"](torch.ones(1, 1, 7, 8)), torch.ones(1, 1, 4, 4))


def test_average_pooling_of_a_vgg() -> None:
    with torch.device("meta"):
        steps = torchvision_backbones.take_apart(models.get_model("vgg16", weights=None), "average")
    assert [type(steps[f"pool{i}"]) for i in range(1, 6)] == [nn.AvgPool2d] * 5
    assert isinstance(slim_backbone(pooling="average").steps["pool4"], nn.AvgPool2d)


def test_refusals_name_what_there_is() -> None:
    with pytest.raises(OptionError, match=r"no backbone 'vgg11'.*vgg19-slim.*squeezenet1_1"):
        load_backbone("vgg11")
    for name in (SLIM, "squeezenet1_1"):
        with pytest.raises(OptionError, match="pooling is max or average, not 'median'"):
            load_backbone(name, pooling="median", pretrained=False)
    with pytest.raises(OptionError, match="no max pooling that could become average"):
        load_backbone("mobilenet_v3_large", pooling="average", pretrained=False)
    with pytest.raises(OptionError, match=r"vgg19-slim has no layer 'relu6_1'.*; it has: image, conv1_1, relu1_1"):
        slim_backbone()(torch.rand(1, 3, 16, 16), ["relu6_1"])
    with pytest.raises(OptionError, match="vgg19-slim needs pictures of at least 16 px a side, not 40x15"):
        slim_backbone()(torch.rand(1, 3, 15, 40), ["relu1_1"])


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large", "squeezenet1_1"])
def test_the_least_side_is_enough(name: str) -> None:
    backbone = load_backbone(name, pretrained=False)
    assert backbone(torch.rand(1, 3, backbone.least_side, backbone.least_side), ["logits"])["logits"].shape == (1, 1000)


def test_it_stops_at_the_deepest_layer() -> None:
    backbone, ran = slim_backbone(), []
    for name, step in backbone.steps.items():
        step.register_forward_hook(lambda module, args, out, name=name: ran.append(name))
    backbone(torch.rand(1, 3, 16, 16), ("relu2_1", "conv1_2"))
    assert ran == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1"]
    ran.clear()
    assert set(backbone(torch.rand(1, 3, 16, 16), ["image"])) == {"image"}
    assert backbone(torch.rand(1, 3, 16, 16), []) == {}
    assert ran == []


def test_gradients_reach_the_picture_and_not_the_weights() -> None:
    backbone = freeze(slim_backbone(heads=True))
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    backbone(image, ["relu5_1"])["relu5_1"].square().sum().backward()
    assert image.grad is not None
    assert bool(image.grad.any())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("name", ["resnet50", SLIM])
def test_a_loaded_backbone_is_frozen_and_stays_so_in_a_network_that_trains(name: str) -> None:
    backbone = load_backbone(name, pretrained=False)
    assert backbone.digest == "random"
    before = copy.deepcopy(backbone.state_dict())
    nn.ModuleList([backbone]).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    backbone(torch.rand(2, 3, 32, 32), backbone.layers)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (33, 16)])
def test_slim_shapes(size: tuple[int, int]) -> None:
    backbone = slim_backbone()
    assert len(backbone.layers) == 1 + 2 * 13 + 4
    found = backbone(torch.rand(2, 3, *size), backbone.layers)
    for block, width in enumerate(SLIM_WIDTHS, start=1):
        height, breadth = (side // 2 ** (block - 1) for side in size)
        assert found[f"relu{block}_1"].shape == (2, width, height, breadth)


def test_slim_is_small_and_its_heads_have_vgg19s_widths() -> None:
    assert count_parameters(slim_backbone()) == 810_128  # VGG-19 to relu5_1 has 12 944 960
    backbone = slim_backbone(heads=True)
    heads = sum((i + 1) * o for i, o in zip(SLIM_WIDTHS, VGG19_WIDTHS, strict=True))
    assert count_parameters(backbone) == 810_128 + heads
    found = backbone(torch.rand(1, 3, 16, 16), [f"relu{block}_1" for block in range(1, 6)])
    assert tuple(features.shape[1] for features in found.values()) == VGG19_WIDTHS
    assert all(features.min() >= 0 for features in found.values())


def test_heads_are_side_branches() -> None:
    plain, headed = slim_backbone(), slim_backbone(heads=True)
    plain.load_state_dict({k: v for k, v in headed.state_dict().items() if not k.startswith("heads.")})
    image = torch.rand(1, 3, 16, 16)
    expected, found = (net(image, ("relu1_1", "conv5_1")) for net in (plain, headed))
    assert torch.equal(found["conv5_1"], expected["conv5_1"])
    assert torch.equal(found["relu1_1"], headed.heads["relu1_1"](expected["relu1_1"]))


def test_slim_from_a_file_with_or_without_its_heads(tmp_path) -> None:
    path = tmp_path / "slim.safetensors"
    trained = slim_backbone(heads=True)
    save_weights(trained.state_dict(), path, {}, half=False)
    image = torch.rand(1, 3, 16, 16)
    for name, heads in ((SLIM, False), (SLIM + "+heads", True)):
        backbone = load_backbone(name, weights=path)
        assert backbone.name == name
        assert backbone.digest == load_weights(path).digest
        assert torch.equal(backbone(image, ["conv3_1"])["conv3_1"], trained(image, ["conv3_1"])["conv3_1"])
        assert bool(backbone.heads) == heads
    save_weights(slim_backbone().state_dict(), path, {})
    with pytest.raises(WeightsError, match=r"does not hold this network: heads\.relu1_1"):
        load_backbone(SLIM + "+heads", weights=path)


def test_torchvision_weights_from_either_kind_of_file(tmp_path) -> None:
    model = models.squeezenet1_1(weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "own.pth")
    save_weights(model.state_dict(), tmp_path / "same.safetensors", {}, half=False)
    image = torch.rand(1, 3, 32, 32)
    for name in ("own.pth", "same.safetensors"):
        backbone = load_backbone("squeezenet1_1", weights=tmp_path / name)
        with torch.no_grad():
            assert torch.equal(backbone(image, ["logits"])["logits"], model(_scaled(image)))
        assert len(backbone.digest) == 64
    with pytest.raises(WeightsError, match=r"own\.pth does not hold this network"):
        load_backbone("mobilenet_v3_large", weights=tmp_path / "own.pth")


def test_a_state_dict_from_before_batches_were_counted(tmp_path) -> None:
    model = models.mobilenet_v3_large(weights=None).eval()
    _stir_norms(model)
    old = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    backbone = load_backbone("mobilenet_v3_large", weights=tmp_path / "old.pth")
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(backbone(image, ["logits"])["logits"], model(_scaled(image)))


def test_every_name_loads_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(torchvision_backbones.DEFAULT_LAYERS) == set(TORCHVISION) == set(BACKBONES) - {SLIM, SLIM + "+heads"}

    def offline(name: str) -> None:
        raise WeightsError("offline")

    monkeypatch.setattr(torchvision_backbones, "load_official", offline)
    for name in TORCHVISION:
        with pytest.raises(WeightsError, match="offline"):
            load_backbone(name)


def test_slim_needs_no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "impasto.networks.torchvision_backbones"):
        monkeypatch.setitem(sys.modules, name, None)
    load_backbone(SLIM, pretrained=False)
    with pytest.raises(ImportError):
        load_backbone("vgg19", pretrained=False)


@pytest.mark.parametrize(("fault", "words"), [(ImportError, r"impasto\[backbones\]"), (RuntimeError, "does not fit")])
def test_without_torchvision_its_networks_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception], words: str
) -> None:
    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.split(".")[0] == "torchvision":
                raise fault("operator torchvision::nms does not exist")

    for name in [n for n in sys.modules if n.startswith(("torchvision", "impasto.networks.torchvision_backbones"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("impasto.networks.torchvision_backbones", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ImpastoError, match=words):
        load_backbone("vgg19", pretrained=False)
    assert load_backbone(pretrained=False).name == "vgg19-slim"
