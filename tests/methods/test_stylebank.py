"""StyleBank: its size, what a bank changes and what not, the turns of its training, styles added later."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from cli_support import Outcome, make_picture
from impasto.cli.main import main
from impasto.commands import train as cli_training
from impasto.errors import OptionError
from impasto.feedforward.filter_banks import SIDE, StyleBankNetwork, make_bank, paper_network, slim_network
from impasto.feedforward.stages import run_whole
from impasto.feedforward.tiled_run import Tiling
from impasto.feedforward.transformation_network import LayerRow
from impasto.images.files import write_image
from impasto.images.tensors import resize
from impasto.methods import load
from impasto.methods.stylebank import StyleBank, StyleBankOptions, StyleBankTraining
from impasto.networks.layers import count_parameters
from impasto.optimize.perceptual_loss import PerceptualLoss
from impasto.stylizers.styles import Style, mix, named_style
from impasto.training.loop import StepReport
from impasto.weights import load_weights, manifest, save_weights
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
        wanted = torch.lerp(wanted, picture, (1 - strength) ** 4)
        styles = named_style("sea"), named_style("sun")
        found = method.stylize(picture, *styles, weights=[1, 3], strength=strength)
        assert_close(found, wanted, atol=1e-5, rtol=0)
    assert_close(found, method.stylize(picture, mix([method.learned["sea"], method.learned["sun"]], [1, 3])))
    rebuilt = run_whole(method.stages(method.learned["sky"], 0.0), picture)
    assert_close(rebuilt, network.rebuild(picture).clamp(0, 1), atol=1e-6, rtol=0)


def test_a_bank_of_another_shape_is_refused(method: StyleBank, picture: Tensor) -> None:
    odd = Style(dict(make_bank(8).state_dict()), method.style_kind)
    with pytest.raises(OptionError, match="is no bank for stylebank: name one of the styles"):
        method.stylize(picture, odd)


# --- regions


def two_masks() -> list[Tensor]:
    """Two that overlap, with a part that neither covers, (1, 1, 48, 64)."""
    first, second = torch.zeros(1, 1, 48, 64), torch.zeros(1, 1, 48, 64)
    first[..., 8:40, :36], second[..., 20:, 28:60] = 1, 1
    return [first, second]


def run_bank(bank: LayerRow, features: Tensor, weights: Tensor) -> Tensor:
    """A bank over features by the moments of a region, (1, 1, h, w), written out."""
    for layer, (scale, shift) in zip(bank.row, bank.norms, strict=True):
        y = layer(features, features.shape)
        share = weights / weights.sum()
        mean = (share * y).sum((2, 3), keepdim=True)
        variance = (share * (y - mean).square()).sum((2, 3), keepdim=True)
        normal = (y - mean) / (variance + 1e-5).sqrt()
        features = (scale[..., None, None] * normal + shift[..., None, None]).relu()
    return features


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_regions_are_banks_on_parts_of_the_features(
    method: StyleBank, network: StyleBankNetwork, picture: Tensor, strength: float
) -> None:
    masks = two_masks()
    found = method.stylize(picture, named_style("sea"), named_style("sun"), masks=masks, strength=strength)
    encoded = network.encode(picture)
    total = (masks[0] + masks[1]).clamp_min(1)
    mixed = encoded
    for number, mask in zip((0, 2), masks, strict=True):
        small, share = (F.avg_pool2d(region, SIDE) for region in (mask, mask / total))
        mixed = mixed + strength * share * (run_bank(network.bank(number), encoded, small) - encoded)
    painted = network.decode(mixed, picture.shape).clamp(0, 1)
    covered = (masks[0] + masks[1]).clamp(0, 1) * (1 - (1 - strength) ** 4)
    assert_close(found, torch.lerp(picture, painted, covered), atol=1e-4, rtol=0)


def test_regions_take_one_pass_of_encoder_and_decoder(
    method: StyleBank, network: StyleBankNetwork, picture: Tensor
) -> None:
    passes = []
    for layer in (network.encoder.row[0], network.decoder.row[-1]):
        layer.register_forward_hook(lambda module, given, found: passes.append(module))
    method.stylize(picture, named_style("sea"), named_style("sun"), masks=two_masks())
    assert len(passes) == 2


def test_all_styles_everywhere_is_their_mixture(method: StyleBank, picture: Tensor) -> None:
    styles, white = (named_style("sea"), named_style("sky")), torch.ones(1, 1, 48, 64)
    found = method.stylize(picture, *styles, masks=[white, white])
    assert_close(found, method.stylize(picture, *styles), atol=1e-5, rtol=0)


@pytest.mark.parametrize("keep", [0, 1 << 30])
def test_regions_in_tiles_are_the_whole(network: StyleBankNetwork, keep: int) -> None:
    method = StyleBank(
        StyleBankOptions(precision="fp32"), network=network.double(), infos=[{"name": name} for name in NAMES]
    )
    photo = torch.rand(1, 3, 57, 78)
    masks = [resize(mask, 57, 78).clamp(0, 1) for mask in two_masks()]
    results = []
    for cut in (None, Tiling(16, keep)):
        method.tiling = cut
        results.append(method.stylize(photo, named_style("sea"), named_style("sun"), masks=masks))
        assert method.cut == cut
    assert (results[1] - results[0]).abs().max() <= 1e-6
    assert (results[0] - method.stylize(photo, named_style("sea"), masks=masks[:1])).abs().max() > 0.01


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
    for number in range(60):
        step(task, picture, number)
        optimizer.step()
    after = losses()
    assert after[0] < 0.75 * before[0]  # 0.33 to 0.42 by processor: rounding errors grow from step to step
    assert after[1] < 0.9 * before[1]  # 0.71 to 0.74


@torch.no_grad()
def paint_all(network: StyleBankNetwork, picture: Tensor) -> list[Tensor]:
    """The picture by each of the first three banks."""
    return [network(picture, [number]) for number in range(3)]


def test_added_styles_leave_all_else_bit_for_bit(network: StyleBankNetwork, picture: Tensor) -> None:
    before, outputs = copy.deepcopy(network.state_dict()), paint_all(network, picture)
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
    assert all(map(torch.equal, paint_all(network, picture), outputs))


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


# --- from the command line

TOY = ("--batch", "1", "--crop", "32", "--side", "40", "--style-side", "32", "--width", "4", "--residuals", "1")


@pytest.fixture
def train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    for folder, name, seed in (("photos", "a", 1), ("art", "sea", 2), ("art", "sky", 3), ("more", "sun", 4)):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_image(make_picture(seed, 40, 50), tmp_path / folder / f"{name}.png")

    def run(style: str, output: str, *words: str) -> Outcome:
        capsys.readouterr()
        files = ["--content", str(tmp_path / "photos"), "--style", str(tmp_path / style)]
        code = main(["train", "stylebank", *files, "-o", str(tmp_path / output), "--quiet", *TOY, *words])
        return Outcome(code, *capsys.readouterr())

    return run


def test_a_resumed_run_knows_whose_turn_it_is(
    train: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("art", "whole", "--steps", "4").good()
    show = cli_training._Line.show

    def press(line: object, report: StepReport) -> None:
        show(line, report)  # type: ignore[arg-type]
        if report.step == 2:  # the next one rebuilds
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(cli_training._Line, "show", press)
        assert train("art", "parts", "--steps", "4").code == 130
    train("art", "parts", "--steps", "4", "--resume").good()
    whole, parts = (load_weights(tmp_path / name / "stylebank.safetensors").tensors for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() == slim_network(2, 4, 1).state_dict().keys()
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())


def test_a_style_is_added_and_the_others_paint_as_before(train: Callable[..., Outcome], tmp_path: Path) -> None:
    train("art", "run", "--steps", "1").good()
    known, more = tmp_path / "run" / "stylebank.safetensors", tmp_path / "more" / "stylebank.safetensors"
    train("more", "more", "--steps", "2", "--from", str(known), "--add").good()
    before, after = (load("stylebank", weights=str(path)) for path in (known, more))
    assert isinstance(before, StyleBank)
    assert isinstance(after, StyleBank)
    assert list(after.learned) == ["sea", "sky", "sun"]
    assert after.style_kind == before.style_kind
    old, new = load_weights(known).tensors, load_weights(more).tensors
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())
    photo = make_picture(5, 40, 50)
    for name, style in before.learned.items():
        painted = before.stylize(photo, style)
        assert torch.equal(after.stylize(photo, named_style(name)), painted)
        assert torch.equal(after.stylize(photo, style), painted)  # cards of before still fit


def test_what_training_can_not_begin_with_is_refused(train: Callable[..., Outcome], tmp_path: Path) -> None:
    save_weights({"a": torch.ones(1)}, tmp_path / "odd.safetensors", {"method": "wct"})
    train("art", "run", "--steps", "1").good()
    known = str(tmp_path / "run" / "stylebank.safetensors")
    for words, message in (
        (("--add",), "say with --from FILE"),
        (("--from", str(tmp_path / "odd.safetensors")), "was not made by `impasto train stylebank`"),
        (("--from", known, "--add"), "knows sea, sky already"),
    ):
        done = train("art", "out", "--steps", "1", *words)
        assert done.code == 2
        assert message in done.err
        assert done.err.count("\n") == 1
        assert not (tmp_path / "out").exists()
    assert "knows 2 styles, not 1: use --add" in train("more", "out", "--steps", "1", "--from", known).err


# --- what ships


def like_a_photo() -> Tensor:
    """Shapes of all sizes in colours that are near grey, as photographs have them, (1, 3, 160, 240)."""
    generator = torch.Generator().manual_seed(2)
    sizes = ((4, 0.4), (12, 0.3), (36, 0.2), (80, 0.1))
    noises = [share * torch.rand(1, 3, size, size * 3 // 2, generator=generator) for size, share in sizes]
    colours = torch.stack([resize(noise, 160, 240) for noise in noises]).sum(0)
    return torch.lerp(colours.mean(1, keepdim=True), colours, 0.5).clamp(0, 1)


@pytest.mark.skipif("stylebank" not in manifest(), reason="no weights are shipped yet")
def test_the_shipped_network_rebuilds_photos_and_paints_eight_styles() -> None:
    method = load("stylebank", precision="fp32")
    assert isinstance(method, StyleBank)
    assert len(method.learned) >= 8
    image = like_a_photo()
    for style in method.learned.values():
        with torch.no_grad():
            rebuilt = run_whole(method.stages(style, 0.0), image)
        assert float(-10 * (rebuilt - image).square().mean().log10()) >= 25
        assert float((method.stylize(image, style) - image).abs().mean()) > 0.05
