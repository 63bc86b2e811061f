"""StyleBank: its size, what a bank changes and what not, the turns of its training, styles added later."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.layers import count_parameters
from impasto.learned import named_style
from impasto.methods.stylebank import (
    SIDE,
    StyleBank,
    StyleBankNetwork,
    StyleBankOptions,
    StyleBankTraining,
    make_bank,
    paper_network,
    slim_network,
)
from impasto.perceptual import PerceptualLoss
from impasto.styles import Style, mix
from impasto.transformation import LayerRow
from impasto.weights import manifest
from tiny import narrow_slim, painting

NAMES = ("sea", "sky", "sun")
Bits = dict[str, Tensor]


@pytest.fixture
def network() -> StyleBankNetwork:
    return slim_network(len(NAMES), width=4, residuals=1)


@pytest.fixture
def method(network: StyleBankNetwork) -> StyleBank:
    return StyleBank(StyleBankOptions(precision="fp32"), network=network, infos=[{"name": name} for name in NAMES])


def learner(network: StyleBankNetwork, **given: Any) -> StyleBankTraining:
    paintings = [painting(seed=seed) for seed in range(len(network.banks) - given.get("fixed", 0))]
    infos = [{"name": str(number)} for number in range(len(network.banks))]
    return StyleBankTraining(network, PerceptualLoss(narrow_slim(), style_weight=8), paintings, infos, **given)


def gradients(module: nn.Module) -> Bits:
    return {name: own.grad.clone() for name, own in module.named_parameters() if own.grad is not None}


def step(task: StyleBankTraining, photos: Tensor, seed: int = 3) -> tuple[dict[str, float], Bits]:
    """The terms of one step and the gradient of their sum."""
    torch.manual_seed(seed)
    task.zero_grad()
    terms = task.training_terms(photos, photos, 0.0)
    torch.stack(list(terms.values())).sum().backward()
    return {name: float(term.detach()) for name, term in terms.items()}, gradients(task.network)


def length(found: Bits) -> float:
    """The norm of encoder's and decoder's gradient."""
    return float(sum(own.double().square().sum() for name, own in found.items() if "banks" not in name) ** 0.5)


# --- sizes


def test_the_papers_banks_have_so_many_parameters_a_style() -> None:
    with torch.device("meta"):
        network = paper_network(3)
    assert count_parameters(network.bank(1)) == 1_179_648
    assert count_parameters(network.banks) == 3 * 1_179_648


def test_the_papers_network_halves_and_doubles_513_px() -> None:
    sides = []
    network = paper_network(1)
    for layer in (*network.encoder.row, *network.decoder.row):
        layer.register_forward_hook(lambda module, given, found: sides.append(found.shape[-1]))
    with torch.no_grad():
        painted = network(torch.rand(1, 3, 17, 513), [0])
    assert painted.shape == (1, 3, 17, 513)
    assert [side for side, before in zip(sides, [513, *sides], strict=False) if side != before] == [257, 129, 257, 513]


# --- what a bank is


def test_another_bank_changes_nothing_but_what_lies_behind_it(network: StyleBankNetwork, picture: Tensor) -> None:
    seen: list[Tensor] = []
    network.encoder.row[-1].register_forward_hook(lambda module, given, found: seen.append(found))
    first, second = (network(picture, [number]) for number in (0, 1))
    assert torch.equal(*seen)
    assert not torch.equal(first, second)
    encoded = network.encode(picture)
    for number, painted in enumerate((first, second)):
        banked = network.bank(number).run(encoded, picture.shape, SIDE)
        assert torch.equal(network.decode(banked, picture.shape), painted)


def test_a_bank_is_its_styles_alone(network: StyleBankNetwork, picture: Tensor) -> None:
    before = [network(picture, [number]) for number in range(3)]
    rebuilt = network.rebuild(picture)
    network.bank(1).row[0].conv.weight.data += 0.1
    after = [network(picture, [number]) for number in range(3)]
    assert [torch.equal(*pair) for pair in zip(before, after, strict=True)] == [True, False, True]
    assert torch.equal(network.rebuild(picture), rebuilt)


def test_samples_of_a_batch_go_through_their_own_banks(network: StyleBankNetwork, picture: Tensor) -> None:
    batch = torch.cat([picture, picture.flip(3), picture])
    found = network(batch, [2, 0, 1])
    for number, (image, painted) in enumerate(zip(batch, found, strict=True)):
        assert_close(painted[None], network(image[None], [(2, 0, 1)[number]]), atol=1e-5, rtol=0)


def test_a_bank_begins_as_one_that_passes_features_on(network: StyleBankNetwork) -> None:
    for layer in make_bank(16).row:
        centre = layer.conv.weight[..., 1, 1].detach()
        assert float(centre.diagonal().mean()) > 4 * float((centre - torch.diag(centre.diagonal())).abs().mean())


def test_the_method_paints_what_the_network_does(method: StyleBank, network: StyleBankNetwork, picture: Tensor) -> None:
    for number, name in enumerate(NAMES):
        wanted = network(picture, [number]).clamp(0, 1)
        assert_close(method.stylize(picture, named_style(name)), wanted, atol=1e-6, rtol=0)


def test_mixtures_and_strength_are_those_of_features(
    method: StyleBank, network: StyleBankNetwork, picture: Tensor
) -> None:
    encoded = network.encode(picture)
    sea, sun = (network.bank(number).run(encoded, picture.shape, SIDE) for number in (0, 2))
    mixed = 0.25 * sea + 0.75 * sun
    for strength in (0.0, 0.4, 1.0):
        wanted = network.decode((1 - strength) * encoded + strength * mixed, picture.shape).clamp(0, 1)
        styles = named_style("sea"), named_style("sun")
        found = method.stylize(picture, *styles, weights=[1, 3], strength=strength)
        assert_close(found, wanted, atol=1e-5, rtol=0)
    assert_close(found, method.stylize(picture, mix([method.learned["sea"], method.learned["sun"]], [1, 3])))
    rebuilt = method.stylize(picture, named_style("sky"), strength=0)
    assert_close(rebuilt, network.rebuild(picture).clamp(0, 1), atol=1e-6, rtol=0)


def test_a_bank_of_another_shape_is_refused(method: StyleBank, picture: Tensor) -> None:
    odd = Style(dict(make_bank(8).state_dict()), method.style_kind)
    with pytest.raises(OptionError, match="is no bank for stylebank: name one of the styles"):
        method.stylize(picture, odd)


# --- training


def test_painting_and_rebuilding_take_turns(network: StyleBankNetwork, picture: Tensor) -> None:
    task = learner(network)
    turns = [step(task, picture) for _ in range(6)]
    assert ["rebuilt" in terms for terms, _ in turns] == [False, False, True] * 2
    for terms, found in turns:
        assert any("banks" in name for name in found) == ("rebuilt" not in terms)
        assert {"encoder", "decoder"} <= {name.split(".")[0] for name in found}


@pytest.mark.parametrize("balance", [1.0, 0.25])
def test_rebuilding_pulls_as_hard_as_painting_did(network: StyleBankNetwork, picture: Tensor, balance: float) -> None:
    task = learner(network, balance=balance)
    step(task, picture)
    painted = length(step(task, picture)[1])
    terms, found = step(task, picture)
    assert length(found) == pytest.approx(balance * painted, rel=1e-4)
    network.zero_grad()
    error = (network.rebuild(picture) - picture).square().mean()
    error.backward()
    plain = gradients(network)
    factor = balance * painted / length(plain)
    assert terms["rebuilt"] == pytest.approx(factor * float(error.detach()), rel=1e-4)
    for name, slope in plain.items():
        assert_close(found[name], factor * slope, rtol=1e-3, atol=1e-6 * factor)


def test_the_step_that_measures_has_the_gradient_of_any_other(network: StyleBankNetwork, picture: Tensor) -> None:
    task = learner(network)
    (plain, wanted), (measured, found) = (step(task, picture) for _ in range(2))
    assert measured == pytest.approx(plain, rel=1e-5)
    assert wanted.keys() == found.keys()
    for name, slope in wanted.items():
        assert_close(found[name], slope, rtol=1e-3, atol=1e-5 * float(slope.abs().max()))


def test_training_learns_to_rebuild_and_to_paint(network: StyleBankNetwork, picture: Tensor) -> None:
    task = learner(network)
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)

    def losses() -> tuple[float, float]:
        torch.manual_seed(9)
        with torch.no_grad():
            painted = sum(map(float, task._paint(picture).values()))
            return painted, float((network.rebuild(picture) - picture).square().mean())

    before = losses()
    for number in range(30):
        step(task, picture, number)
        optimizer.step()
    after = losses()
    assert after[0] < 0.9 * before[0]
    assert after[1] < 0.85 * before[1]


def test_added_styles_leave_all_else_bit_for_bit(network: StyleBankNetwork, picture: Tensor) -> None:
    before, outputs = copy.deepcopy(network.state_dict()), [network(picture, [number]) for number in range(3)]
    network.grow(1)
    new = copy.deepcopy(network.bank(3).state_dict())
    task = learner(network, fixed=3)
    optimizer = torch.optim.Adam([own for own in task.parameters() if own.requires_grad], lr=1e-2)
    for number in range(4):
        terms, found = step(task, picture, number)
        assert "rebuilt" not in terms
        assert {name[: len("banks.3.")] for name in found} == {"banks.3."}
        optimizer.step()
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(not torch.equal(tensor, new[name]) for name, tensor in network.bank(3).state_dict().items())
    assert all(torch.equal(network(picture, [number]), output) for number, output in enumerate(outputs))


def test_the_header_says_what_makes_the_network(network: StyleBankNetwork) -> None:
    config = learner(network).config()
    again = slim_network(len(config["styles"]), **config["shape"])
    assert {name: own.shape for name, own in again.state_dict().items()} == {
        name: own.shape for name, own in network.state_dict().items()
    }


def test_a_row_without_norms_of_its_own_has_plain_ones() -> None:
    row = LayerRow(make_bank(8).row, own_norms=False)
    x = torch.rand(1, 8, 12, 12)
    ones, zeros = torch.ones(1, 8), torch.zeros(1, 8)
    assert torch.equal(row.run(x, (48, 48), SIDE), row.run(x, (48, 48), SIDE, [(ones, zeros)] * 2))


# --- what ships


@pytest.mark.skipif("stylebank" not in manifest(), reason="no weights are shipped yet")
def test_the_shipped_network_rebuilds_photos_and_paints_eight_styles() -> None:
    from impasto.image import read_image, resize
    from impasto.stylizer import load

    method = load("stylebank", precision="fp32")
    photo = next(iter(sorted((Path(__file__).parent.parent / "docs" / "pictures").glob("*photo*"))))
    image = resize(read_image(photo)[:, :3], 160, 240)
    assert isinstance(method, StyleBank)
    assert len(method.learned) >= 8
    styles = list(method.learned.values())
    rebuilt = method.stylize(image, styles[0], strength=0)
    assert float(-10 * (rebuilt - image).square().mean().log10()) >= 25
    assert float((method.stylize(image, styles[0]) - image).abs().mean()) > 0.05
