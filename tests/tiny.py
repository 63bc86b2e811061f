"""Every method with tiny random weights, so that a test of it takes milliseconds and needs no file.

A new method adds its maker to METHODS; tests/test_methods.py then holds it to the contract of all methods.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from impasto.feedforward.transformation_network import slim_network
from impasto.images.tensors import resize
from impasto.methods.gatys import Gatys, GatysOptions
from impasto.methods.nnst import NNST, NNSTOptions
from impasto.networks.backbone import SLIM, SLIM_WIDTHS, VGG19_BLOCKS, Backbone, slim_backbone, vgg_steps
from impasto.networks.layers import freeze
from impasto.stylizers.base import Stylizer
from impasto.stylizers.fixed_styles import LearnedStyles, network_style
from impasto.stylizers.styles import Style

LEARNED = ("first", "second")
SLIM_COLUMN_WIDTHS, SLIM_SHAPE_WIDTHS = (16, 32, 64, 64, 128, 128), (64, 128)
NARROW_WIDTHS = (8, 16, 24, 32, 32)
VGG_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


def tiny(name: str) -> Stylizer:
    """The method called `name`, tiny; the same weights every time."""
    if name not in METHODS:
        pytest.fail(f"the method {name!r} has no tiny maker: add one to METHODS in tests/tiny.py")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return METHODS[name]()


def tiny_gatys(network: Backbone | None = None, /, **options: Any) -> Gatys:
    """Gatys with few steps over random weights, `options` on top; what ``default`` is tuned to does not matter."""
    plain = {"content_weight": 1.0, "style_weight": 10.0, "tv_weight": 0.0, "parameters": "pixels"}
    quick = {"steps": 12, "octaves": 0, **plain, **options}
    network = network or narrow_slim(pooling=options.get("pooling", "max"))
    return Gatys(GatysOptions.parse(quick, "gatys"), backbone=network)


def tiny_nnst(network: Backbone | None = None, /, **options: Any) -> NNST:
    """Neural neighbours with few steps and places over random weights, `options` on top."""
    quick = {"octaves": 1, "coarse_steps": 3, "steps": 3, "last_steps": 2, "candidates": 200, **options}
    return NNST(NNSTOptions.parse(quick, "nnst"), backbone=network or narrow_slim())


def tiny_wct() -> Stylizer:
    """WCT over the slim encoder and a decoder that never learned anything."""
    from impasto.methods.wct import WCT, WCTOptions
    from impasto.networks.layers import StepDecoder

    decoder = StepDecoder(SLIM_WIDTHS)
    _liven(decoder)
    return WCT(WCTOptions(precision="fp32"), backbone=random_slim(), decoder=decoder)


def tiny_adain() -> Stylizer:
    """AdaIN over the slim encoder and a decoder that never learned anything."""
    from impasto.methods.adain import AdaIN, AdaINOptions, slim_decoder

    decoder = slim_decoder()
    _liven(decoder)
    return AdaIN(AdaINOptions(precision="fp32"), backbone=random_slim(), decoder=decoder)


def tiny_sanet() -> Stylizer:
    """SANet over the slim encoder and a network that never learned anything."""
    from impasto.methods.sanet import SANet, SANetOptions, SANetwork

    network = SANetwork.slim()
    _liven(network)
    _calm(network)
    return SANet(SANetOptions(precision="fp32"), backbone=random_slim(), network=network)


def tiny_nnst_d() -> Stylizer:
    """Neural neighbours in one pass, by a network that never learned anything, over the slim encoder."""
    from impasto.feedforward.place_painter import PlacePainter
    from impasto.methods.nnst_d import NNSTD, NNSTDOptions

    network = PlacePainter(sum(SLIM_COLUMN_WIDTHS), sum(SLIM_SHAPE_WIDTHS), 16, 1)
    _liven(network)
    return NNSTD(NNSTDOptions(precision="fp32", candidates=200), backbone=random_slim(), network=network)


def tiny_swift() -> Stylizer:
    """A hyper network of swift's that never learned anything, over the slim encoder."""
    from impasto.methods.swift import Swift, SwiftOptions, swift_network

    backbone = random_slim()
    network = _awake(swift_network(6, 4), backbone)
    torch.nn.init.constant_(network.write_norms[0].bias[-12:], 0.3)  # the shortcuts' gains
    return Swift(SwiftOptions(precision="fp32"), backbone=backbone, network=network)


def tiny_johnson() -> Stylizer:
    """Two transformation networks that never learned anything."""
    from impasto.methods.johnson import Johnson, JohnsonOptions

    networks = {name: varied(slim_network(4, 2)) for name in LEARNED}
    return Johnson(JohnsonOptions(precision="fp32"), networks=networks)


def tiny_texture_network() -> Stylizer:
    """Two pyramid networks that never learned anything."""
    from impasto.methods.texture_network import PyramidNetwork, TextureNetwork, TextureNetworkOptions

    networks = {name: varied(PyramidNetwork(5, 3)) for name in LEARNED}
    return TextureNetwork(TextureNetworkOptions(precision="fp32"), networks=networks)


def tiny_conditional_norm() -> Stylizer:
    """A network that never learned the two styles that it has."""
    from impasto.methods.conditional_norm import ConditionalNetwork, ConditionalNorm, ConditionalNormOptions

    infos = [{"name": name} for name in LEARNED]
    network = varied(ConditionalNetwork(len(LEARNED), 4, 2))
    return ConditionalNorm(ConditionalNormOptions(precision="fp32"), network=network, infos=infos)


def tiny_metastyle() -> Stylizer:
    """Initial parameters that never learned anything, and two networks that were not made of them."""
    from impasto.methods.metastyle import MetaStyle, MetaStyleOptions

    model = MetaStyle(MetaStyleOptions(precision="fp32"), network=varied(slim_network(4, 2)))
    model.cards |= {name: network_style(varied(slim_network(4, 2)), {"name": name}) for name in LEARNED}
    return model


def tiny_stylebank() -> Stylizer:
    """An encoder, two banks and a decoder that never learned anything."""
    from impasto.methods.stylebank import StyleBank, StyleBankOptions, slim_network

    network = varied(slim_network(len(LEARNED), 4, 1))
    network.decoder.row[-1].conv.weight.data *= 5e-4  # so that nothing black or white is painted
    infos = [{"name": name} for name in LEARNED]
    return StyleBank(StyleBankOptions(precision="fp32"), network=network, infos=infos)


def tiny_metanet() -> Stylizer:
    """A hyper network that never learned anything, over the slim encoder."""
    from impasto.methods.metanet import MetaNet, MetaNetOptions, slim_network

    backbone = random_slim()
    return MetaNet(MetaNetOptions(precision="fp32"), backbone=backbone, network=_awake(slim_network(6, 4), backbone))


def _awake(network: Any, backbone: Backbone) -> Any:
    """A hyper network that has looked at some pictures, and whose own paint strongly."""
    from impasto.stylizers.generated_network import read_moments

    network.start_reading(read_moments(backbone, torch.rand(8, 3, 16, 16) ** torch.rand(8, 1, 1, 1)))
    network.last.weight.data *= 4
    return network


def varied(module: Any) -> Any:
    """`module` with weights all different, its scales and shifts among them."""
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def styles_for(method: Stylizer) -> tuple[Tensor | Style, Tensor | Style]:
    """Two styles that `method` can paint in: paintings, or, if it knows no others, those that it has learned."""
    if isinstance(method, LearnedStyles):
        first, second = (method.learned[name] for name in LEARNED)
        return first, second
    return painting(), painting(40, 52, seed=6)


def narrow(name: str, *, double: bool = False) -> Stylizer:
    """The one-pass method called `name` over `narrow_slim`: an eighth of the work of `tiny`'s.

    double: in double precision; normalising the features of random networks blows up what is rounded.
    """
    from impasto.methods.adain import AdaIN, AdaINOptions
    from impasto.methods.sanet import SANet, SANetOptions, SANetwork
    from impasto.methods.wct import WCT, WCTOptions
    from impasto.networks.layers import StepDecoder

    if name in (*LEARNING, "metanet", "swift"):
        return _double(tiny(name)) if double else tiny(name)
    if name == "nnst_d":
        return _narrow_nnst_d(double)
    backbone, widths = narrow_slim(), NARROW_WIDTHS if name == "wct" else NARROW_WIDTHS[:4]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = lively(SANetwork(widths) if name == "sanet" else StepDecoder(widths))
    if name == "sanet":
        _calm(network)
    if double:
        backbone.double()
        network.double()
    if name == "adain":
        return AdaIN(AdaINOptions(precision="fp32"), backbone=backbone, decoder=network)
    if name == "wct":
        return WCT(WCTOptions(precision="fp32"), backbone=backbone, decoder=network)
    return SANet(SANetOptions(precision="fp32"), backbone=backbone, network=network)


def _narrow_nnst_d(double: bool) -> Stylizer:
    from impasto.feedforward.place_painter import PlacePainter
    from impasto.methods.nnst_d import NNSTD, NNSTDOptions

    one, two, three, four, _ = NARROW_WIDTHS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = lively(PlacePainter(one + two + 2 * (three + four), three + four, 8, 1))
    method = NNSTD(NNSTDOptions(precision="fp32", candidates=200), backbone=narrow_slim(), network=network)
    return _double(method) if double else method


LEARNING = ("conditional_norm", "johnson", "metastyle", "stylebank", "texture_network")
"""The methods that know only the styles that they have learned."""


def _double(method: Any) -> Stylizer:
    """A tiny method with networks of its own, in double precision."""
    for module in (value for value in vars(method).values() if isinstance(value, nn.Module)):
        module.double()
    for style in getattr(method, "learned", {}).values():
        style.update({name: tensor.double() for name, tensor in style.items()})
    found: Stylizer = method
    return found


METHODS: dict[str, Callable[[], Stylizer]] = {
    "adain": tiny_adain,
    "conditional_norm": tiny_conditional_norm,
    "gatys": lambda: tiny_gatys(octaves=1, least_side=32, coarse_steps=3, steps=4),
    "johnson": tiny_johnson,
    "metanet": tiny_metanet,
    "metastyle": tiny_metastyle,
    "nnst": tiny_nnst,
    "nnst_d": tiny_nnst_d,
    "sanet": tiny_sanet,
    "stylebank": tiny_stylebank,
    "swift": tiny_swift,
    "texture_network": tiny_texture_network,
    "wct": tiny_wct,
}


def random_slim(seed: int = 7, **options: Any) -> Backbone:
    """vgg19-slim with random weights that keep the features' size from layer to layer."""
    return _frozen(lambda: slim_backbone(**options), seed)


def narrow_slim(*, pooling: str = "max", seed: int = 7) -> Backbone:
    """vgg19-slim at half its widths and less: all of its layers, at a third of its time."""
    kind = "average" if pooling == "auto" else pooling
    steps = partial(vgg_steps, VGG19_BLOCKS, NARROW_WIDTHS, kind)
    return _frozen(lambda: Backbone(SLIM, steps(), least_side=16), seed)


def random_vgg(name: str, *, pooling: str = "max", seed: int = 7) -> Backbone:
    """A VGG of torchvision's, taken apart by its backbone's own code, but narrow, random and without classifier."""
    vgg = pytest.importorskip("torchvision.models.vgg")
    from impasto.networks.torchvision_backbones import take_apart

    plan: list[int | str] = []
    for count, width in zip(VGG_BLOCKS[name.removesuffix("_bn")], (8, 12, 16, 24, 24), strict=True):
        plan += [width] * count + ["M"]

    def build() -> Backbone:
        with torch.device("meta"):
            model = vgg.VGG(nn.Sequential(), init_weights=False)
        model.features = vgg.make_layers(plan, batch_norm=name.endswith("_bn"))
        steps = take_apart(model, pooling)
        del steps["logits"]
        return Backbone(name, steps, least_side=32)

    return _frozen(build, seed)


def painting(height: int = 48, width: int = 64, seed: int = 5) -> Tensor:
    """Blotches of colour, unlike the picture that tests share, (1, 3, height, width) in [0, 1]."""
    noise = torch.rand(1, 3, -(-height // 4), -(-width // 4), generator=torch.Generator().manual_seed(seed))
    return resize(noise, height, width)


def _frozen(build: Callable[[], Backbone], seed: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build()
        _liven(backbone)
    freeze(backbone)
    return backbone


def lively(module: Any) -> Any:
    """`module` with random weights that keep the features' size from layer to layer."""
    _liven(module)
    return module


def _calm(network: Any) -> None:
    """Let no position take all of SANet's attention, and let nothing black or white be painted."""
    for block in (network.shallow, network.deep):
        for keys in (block.f, block.g):
            keys.weight.data /= 4
    network.merge.weight.data /= 4


def _liven(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
