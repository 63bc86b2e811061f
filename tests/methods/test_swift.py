"""swift: its network is metanet's without the grid and with shortcuts; what it starts from and what it learns."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.feedforward.hypernetwork import GeneratedNetwork, HyperNetwork, condense, start_doubling, widen
from impasto.methods import load
from impasto.methods.metanet import slim_network
from impasto.methods.swift import Swift, swift_network
from impasto.networks.layers import DoublingConv, double
from impasto.optimize.losses import similarity_map, structure_gap
from impasto.optimize.perceptual_loss import PerceptualLoss
from impasto.stylizers import generated_network
from impasto.stylizers.generated_network import SLIM_MOMENTS, HyperTraining, read_moments
from impasto.stylizers.styles import Style, load_style
from tiny import painting, random_slim, tiny


def made(**shape: bool) -> HyperNetwork:
    torch.manual_seed(3)
    network = HyperNetwork(SLIM_MOMENTS, 5, 4, output="sigmoid", affine=True, **shape)
    network.start_reading(read_moments(random_slim(), torch.rand(6, 3, 16, 16) ** torch.rand(6, 1, 1, 1)))
    network.last.weight.data *= 4
    return network


def vectors() -> Tensor:
    return read_moments(random_slim(), torch.cat([painting(32, 32, seed=seed) for seed in (1, 2)]))


def test_a_shortcut_adds_what_had_the_size_on_the_way_down() -> None:
    """Written once more with hooks: the outputs of layers 1 and 0 join those of layers 13 and 14."""
    torch.manual_seed(1)
    network = GeneratedNetwork(4, affine=True, doubling=True, shortcuts=True)
    x = torch.rand(1, 3, 24, 20)
    plain = network(x)
    assert [gain.numel() for gain in network.gains] == [8, 4]
    seen: dict[int, Tensor] = {}

    def norm(y: Tensor) -> Tensor:
        return F.instance_norm(y, eps=1e-5)

    y = x - 0.5
    for number, layer in enumerate(network.row):
        side = {1: 2, 13: 2, 0: 1, 14: 1, 15: 1}.get(number, 4)
        kept = y if layer.form.opens else kept if number else y  # noqa: F821
        y = layer(y, (24 // side, 20 // side))
        y = norm(y) if layer.form.norm else y
        y = y.relu() if layer.form.relu else y
        y = y + kept if layer.form.closes else y
        seen[number] = y
        for end, start, gain in ((13, 1, 0.4), (14, 0, -0.2)):
            y = y + gain * seen[start] if number == end else y
    with torch.no_grad():
        network.gains[0].fill_(0.4)
        network.gains[1].fill_(-0.2)
    found = network(x)
    assert_close(found, y + 0.5, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 0.01


def test_without_gains_shortcuts_change_nothing() -> None:
    plain, other = made(doubling=True), made(doubling=True, shortcuts=True)
    values = dict(other.state_dict())
    for name, tensor in plain.state_dict().items():
        values[name] = torch.cat([tensor, values[name][len(tensor) :] * 0]) if "write_norms" in name else tensor
    other.load_state_dict(values)
    images = torch.rand(2, 3, 32, 28)
    assert_close(other(images, vectors()), plain(images, vectors()))


def test_kernels_that_repetition_can_do_are_taken_over_exactly() -> None:
    kernel = torch.randn(5, 6, 3, 3)
    phases = torch.tensor([[0.0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    wide = (phases @ kernel @ phases.T).permute(1, 0, 2, 3)
    doubling = DoublingConv(6, 5)
    doubling.weight.data, doubling.bias = wide.contiguous(), None
    x = torch.randn(1, 6, 7, 9)
    inside = (..., slice(2, -2), slice(2, -2))
    assert_close(doubling(x)[inside], F.conv2d(double(x), kernel, padding=1)[inside], atol=1e-5, rtol=1e-5)
    before, after = made(), made(doubling=True, shortcuts=True)
    layer = before.write[12]
    assert isinstance(layer, nn.Linear)
    smooth = torch.randn(8, 16, 3, 3)
    layer.bias.data = (phases @ smooth @ phases.T).permute(1, 0, 2, 3).flatten()
    start_doubling(after, before)
    assert_close(after.write[12].bias, smooth.flatten(), atol=1e-4, rtol=1e-4)


def test_it_begins_nearly_as_the_network_that_it_starts_from_and_without_its_grid() -> None:
    before, after = made(), made(doubling=True, shortcuts=True)
    start_doubling(after, before)
    with torch.no_grad():
        (numbers,) = after.generate(after.encode(vectors()[:1]))
    assert all(float(numbers[f"gains.{i}"].abs().max()) == 0 for i in range(2))
    for name in after.sizes:
        own = after.template.get_submodule(name.removesuffix(".weight"))
        if numbers[name].shape[-1] == 3 and own.in_channels > own.out_channels:  # a way up, in the middle of a flat map
            flat = F.conv2d(torch.ones(1, own.in_channels, 8, 8), numbers[name])
            assert_close(flat, flat[..., :1, :1].expand_as(flat))
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        found, wanted = after(images, vectors()), before(images, vectors())
    assert (found - wanted).square().mean() < 0.25 * wanted.var()


def test_a_widened_network_makes_the_very_same_networks() -> None:
    torch.manual_seed(2)
    network = HyperNetwork(12, 3, 4, affine=True, doubling=True, shortcuts=True)
    paintings = torch.rand(30, 12)
    network.start_reading(paintings)
    wide = widen(network, 7, paintings)
    assert wide.hidden == 7
    before, after = (each.generate(each.encode(paintings[:2])) for each in (network, wide))
    for one, other in zip(before, after, strict=True):
        for name, values in one.items():
            assert_close(other[name], values)
    added = wide.encode(paintings).view(30, -1, 7)[..., 3:]
    assert (
        float(added.detach().abs().amax((0, 1)).min()) > 0
    )  # the added numbers differ between paintings: they can learn


def test_a_condensed_network_makes_nearly_the_same_networks() -> None:
    network = made()
    paintings = read_moments(random_slim(), torch.rand(40, 3, 16, 16) ** torch.rand(40, 1, 1, 1))
    for layer in network.write:  # two of the five hidden numbers count for little
        assert isinstance(layer, nn.Linear)
        layer.weight.data[:, :2] *= 1e-3
    small = condense(network, 3, paintings)
    assert small.shape == {**network.shape, "hidden": 3}
    with torch.no_grad():
        whole, less = (each.generate(each.encode(paintings[:4])) for each in (network, small))
    for before, after in zip(whole, less, strict=True):
        for name in network.sizes:
            assert_close(after[name], before[name], atol=2e-3 * float(before[name].abs().max()), rtol=0)
    assert after.keys() == before.keys()


def test_shortcuts_need_a_group_that_makes_their_gains() -> None:
    with pytest.raises(OptionError, match="add affine"):
        HyperNetwork(20, 3, 4, shortcuts=True)


def test_the_stages_are_the_network_at_odd_sizes_too() -> None:
    method = tiny("swift")
    assert isinstance(method, Swift)
    for size in ((48, 64), (37, 51)):
        photo, art = torch.rand(1, 3, *size), painting()
        style = method.encode_style(art)
        whole = method.build_for(style)(photo).clamp(0, 1)
        assert_close(method.transfer(photo, style), whole, atol=2e-4, rtol=0)
        assert whole.std() > 0.02


def test_the_shipped_size() -> None:
    """Counted by hand: the fast network's, with 3x3 instead of 4x4 on the way up, and 24 gains."""
    network = swift_network()
    fixed = 3 * 8 * 81 * 2 + 8
    generated = 9 * (8 * 16 + 16 * 32 + 10 * 32 * 32 + 32 * 16 + 16 * 8)
    assert sum(size.numel() for size in network.sizes.values()) == generated
    (numbers,) = network.generate(torch.zeros(1, 15 * 15))
    norms = 2 * (16 + 32 + 10 * 32 + 16 + 8)
    assert sum(value.numel() for value in numbers.values()) == fixed + generated + norms + 24


class Flat(nn.Module):
    """Features that are the picture and its square."""

    def forward(self, image: Tensor, layers: object) -> dict[str, Tensor]:
        return {layer: torch.cat([image, image.square()], 1) for layer in layers}  # type: ignore[attr-defined]


def test_all_of_it_learns_to_paint() -> None:
    network = made(doubling=True, shortcuts=True)
    loss = PerceptualLoss(Flat(), style_weight=10, structure_weight=1, content_layers=("relu4_1",))
    learner = HyperTraining("swift", random_slim(), loss, network, ramp=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    photos, art = torch.rand(2, 3, 32, 32), torch.cat([painting(32, 32, seed=seed) for seed in (1, 2)])
    seen = []
    for _ in range(8):
        terms = learner.training_terms(photos, art, 0.5)
        assert set(terms) == {"content", "style", "structure"}
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen.append(total.item())
    assert seen[-1] < 0.9 * seen[0]
    quiet = [name for name, own in network.named_parameters() if own.grad is None or not own.grad.any()]
    assert not quiet


def test_the_styles_share_grows_only_from_nothing() -> None:
    loss = PerceptualLoss(Flat(), style_weight=10, content_layers=("relu4_1",))
    photos, art = torch.rand(1, 3, 32, 32), painting(32, 32)
    network = made(doubling=True, shortcuts=True)
    from_nothing, going_on = (HyperTraining("swift", random_slim(), loss, network, ramp=ramp) for ramp in (True, False))
    late = going_on.training_terms(photos, art, 0.0)["style"]
    assert_close(from_nothing.training_terms(photos, art, 0.0)["style"], 0.1 * late)
    assert_close(from_nothing.training_terms(photos, art, 0.5)["style"], late)


def test_a_file_tells_its_method() -> None:
    learner = HyperTraining("swift", random_slim(), PerceptualLoss(Flat()), swift_network(6, 4))
    assert learner.config()["method"] == "swift"
    assert HyperNetwork(**learner.config()["shape"]).template.shape == learner.network.template.shape
    assert slim_network(6, 4).template.shape != learner.network.template.shape


def test_structural_similarity_of_windows() -> None:
    """Of two flat pictures it is the luminance's term alone; of a picture with itself 1."""
    dark, light = torch.full((1, 1, 9, 10), 0.2), torch.full((1, 1, 9, 10), 0.6)
    assert_close(similarity_map(dark, light), torch.full((1, 1, 3, 4), 0.2401 / 0.4001), atol=1e-3, rtol=0)
    x = torch.rand(1, 1, 12, 12)
    assert_close(similarity_map(x, x), torch.ones(1, 1, 6, 6))


def test_structure_sees_no_colours() -> None:
    image = torch.rand(1, 3, 16, 16)
    grey = torch.einsum("bchw,c->bhw", image, torch.tensor([0.299, 0.587, 0.114]))[:, None].expand(-1, 3, -1, -1)
    assert_close(structure_gap(image, grey), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert structure_gap(image, 1 - image) > 0.5


def test_structure_is_seen_in_full_precision_in_a_training_of_half() -> None:
    first, second = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = structure_gap(first, second)
    assert torch.equal(found, structure_gap(first, second))


def test_a_style_is_made_into_a_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made_of: list[object] = []
    fill = generated_network._fill

    def note(template: GeneratedNetwork, style: Style, device: torch.device) -> GeneratedNetwork:
        made_of.append(style)
        return fill(template, style, device)

    monkeypatch.setattr(generated_network, "_fill", note)
    model, card = load("swift"), load_style("starry-night")
    first = [model.stylize(painting(32, 40, seed=seed), card) for seed in (1, 2, 1)]
    assert len(made_of) == 1
    assert torch.equal(first[0], first[2])
    model.stylize(painting(32, 40), load_style("udnie"))
    assert len(made_of) == 2
    assert torch.equal(model.stylize(painting(32, 40, seed=1), card), first[0])
    assert len(made_of) == 3
