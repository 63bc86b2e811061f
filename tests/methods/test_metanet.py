"""Meta Networks: the published sizes, what the hyper network makes, and files of single generated networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.feedforward.hypernetwork import GeneratedNetwork, HyperNetwork, build_network, vector_of
from impasto.methods.metanet import MetaNet, slim_network
from impasto.networks.layers import DoublingConv, count_parameters
from impasto.networks.receptive_field import reach, stride_after, widest, work
from impasto.ops.moments import moments
from impasto.optimize.perceptual_loss import PerceptualLoss
from impasto.stylizers.generated_network import HyperTraining, load_network, read_moments
from impasto.stylizers.styles import Style, load_style, mix, save_style
from tiny import narrow_slim, painting, tiny

SIZES = {32: (1_730_560, 1_746_144, 226_684_672), 8: (108_160, 112_056, 17_395_072)}


def network(**options: bool | str) -> GeneratedNetwork:
    torch.manual_seed(3)
    made = build_network({"form": "generated", "width": 4, **options})
    for layer in made.row:
        nn.init.kaiming_normal_(layer.conv.weight, nonlinearity="relu")
    return made


def hyper(**options: bool | str) -> HyperNetwork:
    torch.manual_seed(4)
    return HyperNetwork(12, 5, 4, **options)  # type: ignore[arg-type]


# --- sizes


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("residual", [True, False])
def test_the_published_sizes(width: int, residual: bool) -> None:
    generated, whole, made_by = SIZES[width]
    with torch.device("meta"):
        painter = GeneratedNetwork(width, residual=residual)
        maker = HyperNetwork(hidden=128, width=width, residual=residual)
    assert maker.moments == 1920
    assert len(maker.sizes) == 14
    assert sum(size.numel() for size in maker.sizes.values()) == generated
    assert count_parameters(painter) == whole
    assert count_parameters(maker.read) + count_parameters(maker.write) == made_by
    assert count_parameters(maker) - made_by == whole - generated == {32: 15_584, 8: 3_896}[width]


def test_the_fast_network_is_a_file_of_449_kb(tmp_path: Path) -> None:
    fast = GeneratedNetwork(8)
    assert 4 * count_parameters(fast) == 448_224
    assert count_parameters(GeneratedNetwork(8, affine=True)) - count_parameters(fast) == 784


def test_the_shipped_network_is_under_8_mb() -> None:
    with torch.device("meta"):
        shipped = slim_network()
    assert 2 * sum(tensor.numel() for tensor in shipped.state_dict().values()) < 7_900_000
    assert shipped.template.shape["width"] == 8


@pytest.mark.parametrize("size", [(256, 256), (64, 100), (67, 45), (16, 18)])
def test_what_comes_out_is_as_large_as_what_goes_in(size: tuple[int, int]) -> None:
    assert network()(torch.rand(2, 3, *size)).shape == (2, 3, *size)


# --- the network


@pytest.mark.parametrize("affine", [True, False])
def test_the_scale_of_a_kernel_does_not_matter(affine: bool, picture: Tensor) -> None:
    one = network(affine=affine).double()
    before = one(picture.double())
    for number, name in enumerate(one.generated):
        one.get_parameter(name).data *= (0.5, 3.0)[number % 2]
    assert_close(one(picture.double()), before, atol=1e-3, rtol=0)
    one.row[0].conv.weight.data *= 3  # this one and the last have no norm behind them, but its bias stays
    one.row[-1].conv.weight.data *= 3
    assert (one(picture.double()) - before).abs().max() > 0.1


def test_residual_blocks_add_and_the_plain_form_has_ten_in_a_row(picture: Tensor) -> None:
    forms = {residual: [layer.form for layer in network(residual=residual).row] for residual in (True, False)}
    assert [form.closes for form in forms[True]] == [False] * 3 + [False, True] * 5 + [False] * 3
    assert [form.relu for form in forms[True]] == [True] * 3 + [True, False] * 5 + [True, True, False]
    assert not any(form.opens or form.closes for form in forms[False])
    assert [form.relu for form in forms[False]] == [True] * 15 + [False]
    for row in forms.values():
        assert [form.norm for form in row] == [False] + [True] * 14 + [False]
    skipping, plain = network(residual=True), network(residual=False)
    for one in (skipping, plain):
        for number in range(3, 13):
            one.row[number].conv.weight.data.zero_()
    assert plain(picture).std() < 1e-4
    assert skipping(picture).std() > 1e-2


def test_outputs(picture: Tensor) -> None:
    linear, squashed = network(output="linear"), network(output="sigmoid")
    assert_close(squashed(picture), (linear(picture) - 0.5).sigmoid())


# --- going up


def test_a_doubling_convolution_is_the_transposed_one_inside_and_mirrors_its_edge() -> None:
    layer, x = DoublingConv(3, 2).double(), torch.rand(1, 3, 6, 7, dtype=torch.float64)
    found = layer(x)
    plain = F.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1)
    assert found.shape == plain.shape == (1, 2, 12, 14)
    assert_close(found[..., 1:-1, 1:-1], plain[..., 1:-1, 1:-1])
    mirrored = F.pad(x, (2, 2, 2, 2), mode="reflect")
    inside = F.conv_transpose2d(mirrored, layer.weight, layer.bias, stride=2, padding=1)[..., 4:-4, 4:-4]
    assert_close(found, inside)
    assert (found - plain).abs().max() > 1e-3


@pytest.mark.parametrize("needed", [0, 1, 2, 3, 4, 7])
def test_one_pixel_less_than_the_reach_of_a_transposed_convolution_is_wrong(needed: int) -> None:
    layer = DoublingConv(1, 1).double()
    x = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    whole, halo = layer(x), reach([layer], needed)
    assert halo == needed // 2 + 1

    def by_tile(halo: int) -> Tensor:
        made: Tensor = F.conv_transpose2d(
            x[..., 16 - halo : 24 + halo, 16 - halo : 24 + halo], layer.weight, layer.bias, stride=2, padding=1
        )
        first = 2 * halo - needed
        return made[..., first : first + 16 + 2 * needed, first : first + 16 + 2 * needed]

    wanted = whole[..., 32 - needed : 48 + needed, 32 - needed : 48 + needed]
    assert_close(by_tile(halo), wanted)
    less = by_tile(halo - 1)
    assert less.shape != wanted.shape or (less - wanted).abs().max() > 1e-6


def test_a_path_with_a_transposed_convolution_is_walked() -> None:
    path = [nn.Conv2d(3, 8, 3, stride=2, padding=1), DoublingConv(8, 4)]
    assert stride_after(path) == 1
    assert reach(path) == 2 * 1 + 1
    assert work(path) == (3 * 8 * 9 + 8 * 4 * 16) / 4
    assert widest(path) == 2 * 3 + 2 * 8
    assert widest(path[1:], 2) == 2 * (8 / 4 + 4)
    assert reach([nn.ConvTranspose2d(2, 2, 3)]) == 2


# --- the hyper network


@pytest.mark.parametrize("affine", [True, False])
def test_samples_of_a_batch_have_networks_of_their_own(affine: bool) -> None:
    maker, images, vectors = hyper(affine=affine), torch.rand(2, 3, 16, 20), torch.rand(2, 12)
    together = maker(images, vectors)
    for number in range(2):
        one = build_network(maker.template.shape)
        one.load_state_dict(maker.generate(maker.encode(vectors[number : number + 1]))[0])
        assert_close(together[number : number + 1], one(images[number : number + 1]))
    assert (maker(images, vectors.flip(0)) - together).abs().max() > 1e-3


def test_everything_learns(picture: Tensor) -> None:
    maker = hyper(affine=True)
    maker(picture, torch.rand(1, 12)).square().mean().backward()
    for name, parameter in maker.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().max() > 0), name


def test_each_group_of_the_hidden_vector_makes_one_kernel() -> None:
    maker = hyper()
    hidden = torch.rand(1, 14 * 5)
    (before,) = maker.generate(hidden)
    for number, name in enumerate(maker.sizes):
        changed = hidden.clone()
        changed[:, 5 * number : 5 * number + 5] += 1
        (after,) = maker.generate(changed)
        assert [key for key, value in after.items() if not torch.equal(value, before[key])] == [name]


def test_kernels_begin_with_a_convolutions_variance() -> None:
    maker = HyperNetwork(12, 30, 8)
    hidden = F.normalize(torch.randn(50, 14, 30), dim=2).flatten(1)
    made = maker.generate(hidden)
    for name, size in maker.sizes.items():
        kernels = torch.stack([one[name] for one in made])
        taps = 4 * size[0] if size[-1] == 4 else size[1:].numel()
        assert 0.5 < kernels.std() / (2 / taps) ** 0.5 < 1.3
        assert 0.05 < kernels.std(0).mean() / kernels.std() < 0.2


def test_doubling_begins_smooth() -> None:
    maker = HyperNetwork(12, 3, 8)
    (made,) = maker.generate(torch.zeros(1, 14 * 3))
    for name in [name for name, size in maker.sizes.items() if size[-1] == 4]:
        flat = F.conv_transpose2d(torch.ones(1, made[name].shape[0], 6, 6), made[name], stride=2, padding=1)
        inside = flat[..., 2:-2, 2:-2]
        assert_close(inside, inside[..., :1, :1].expand_as(inside), atol=1e-5, rtol=1e-5)


def test_hidden_vectors_begin_as_principal_components() -> None:
    maker = hyper()
    paintings = (torch.randn(200, 3) @ torch.randn(3, 12) + 0.1 * torch.randn(200, 12)).exp()
    maker.start_reading(paintings)
    seen = maker.standardise(paintings)
    assert_close(seen.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    assert_close(seen.square().sum(1).mean(), torch.tensor(1.0), atol=1e-4, rtol=0)
    hidden = maker.encode(paintings).view(200, 14, 5)
    assert_close(hidden.square().sum(2).mean(), torch.tensor(1.0), atol=0.1, rtol=0)
    spread = hidden[:, 0].T @ hidden[:, 0] / 200
    assert_close(spread, spread.diagonal().diag(), atol=1e-4, rtol=0)


def test_a_vector_is_each_layers_means_then_its_deviations() -> None:
    maps = [torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)]
    found = vector_of([moments(one, full=False) for one in maps])
    assert found.shape == (2, 16)
    assert_close(found[:, :3], maps[0].mean((2, 3)))
    assert_close(found[:, 11:], (maps[1].var((2, 3), correction=0) + 1e-5).sqrt())


# --- the method


@pytest.fixture
def method() -> MetaNet:
    found = tiny("metanet")
    assert isinstance(found, MetaNet)
    return found


def test_mixing_is_between_hidden_vectors(method: MetaNet) -> None:
    first, second = method.encode_style(painting()), method.encode_style(painting(seed=9))
    mixed = mix([first, second], [1, 3])
    assert set(mixed) == {"hidden"}
    assert_close(mixed["hidden"], 0.25 * first["hidden"] + 0.75 * second["hidden"])


def test_a_generated_network_paints_the_same_without_the_hyper_network(
    method: MetaNet, picture: Tensor, tmp_path: Path
) -> None:
    wanted = method.stylize(picture, painting())
    made = method.generate(method.encode_style(painting()))
    save_style(made, tmp_path / "made.safetensors")
    card = load_style(tmp_path / "made.safetensors")
    assert torch.equal(method.stylize(picture, card), wanted)
    method.network.requires_grad_(False).read.weight.fill_(torch.nan)
    assert torch.equal(method.stylize(picture, card), wanted)
    with torch.no_grad():
        assert_close(load_network(card)(picture).clamp(0, 1), wanted, atol=1e-5, rtol=0)
    assert method.generate(card) is card


def test_a_generated_network_of_other_tensors_is_refused(method: MetaNet, picture: Tensor, tmp_path: Path) -> None:
    made = method.generate(method.encode_style(painting()))
    name = next(iter(made))
    short = {key: value for key, value in made.items() if key != name}
    for number, tensors in enumerate((short, {**made, name: made[name][..., :1]})):
        save_style(Style(tensors, made.kind, made.info), tmp_path / f"{number}.safetensors")
        with pytest.raises(OptionError, match="does not fit metanet"):
            method.stylize(picture, load_style(tmp_path / f"{number}.safetensors"))


def test_generated_networks_mix_by_what_they_paint(method: MetaNet, picture: Tensor) -> None:
    made = [method.generate(method.encode_style(painting(seed=seed))) for seed in (5, 9)]
    one, two = (method.stylize(picture, each) for each in made)
    assert_close(method.stylize(picture, *made, weights=[1, 3]), 0.25 * one + 0.75 * two, atol=1e-5, rtol=0)


def test_the_network_is_made_once_for_a_style(method: MetaNet, monkeypatch: pytest.MonkeyPatch) -> None:
    style, calls = method.encode_style(painting()), []
    generate = method.network.generate
    monkeypatch.setattr(method.network, "generate", lambda hidden: calls.append(1) or generate(hidden))
    for _ in range(3):
        method.stages(style)
    assert calls == [1]
    method.stages(method.encode_style(painting(seed=9)))
    assert calls == [1, 1]


def test_cards_that_hold_no_network_are_refused(method: MetaNet) -> None:
    style = method.encode_style(painting())
    with pytest.raises(OptionError, match="holds no generated network"):
        load_network(style)
    made = method.generate(style)
    del made["layers.3.conv.weight"]
    with pytest.raises(OptionError, match="damaged network"):
        load_network(made)
    with pytest.raises(OptionError, match="damaged network"):
        method.stages(made)


# --- how it learns


def test_it_learns_a_toy() -> None:
    torch.manual_seed(0)
    backbone = narrow_slim()
    maker = HyperNetwork(2 * 112, 4, 4, output="sigmoid", affine=True)
    learner = HyperTraining("metanet", backbone, PerceptualLoss(backbone, gram_weight=0.5), maker)
    contents, styles = torch.rand(2, 3, 32, 32), torch.cat([painting(32, 32, 1), painting(32, 32, 2)])
    maker.start_reading(read_moments(backbone, torch.cat([styles, contents])))
    optimizer = torch.optim.Adam(maker.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        terms = learner.training_terms(contents, styles, 0.5)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert learner.preview(contents, styles).shape == (1, 3, 3 * 32, 2 * 32)
    assert learner.config()["shape"] == maker.shape
    again = HyperNetwork(**learner.config()["shape"])
    again.load_state_dict(maker.state_dict())
