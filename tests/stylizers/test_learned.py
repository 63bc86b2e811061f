"""Methods that paint in the styles that they have learned: their networks' facts, names, cards, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import impasto
from cli_support import Outcome, Shell, make_picture, use_one_thread
from impasto.cli.main import main
from impasto.errors import OptionError
from impasto.feedforward.stages import run_whole
from impasto.feedforward.transformation_network import TransformationNetwork, slim_network
from impasto.images.files import write_image
from impasto.methods.conditional_norm import ConditionalNetwork, ConditionalNorm
from impasto.methods.johnson import Johnson, join, paper_network
from impasto.networks.layers import count_parameters, fill
from impasto.ops.moments import Moments, moments
from impasto.optimize.perceptual_loss import (
    PerceptualLoss,
    covariance_gap,
    draw_places,
    earth_mover_gap,
    gram_gap,
    pick_targets,
    similarity_gap,
    stack_targets,
)
from impasto.stylizers.fixed_styles import PaintingTraining
from impasto.stylizers.styles import Style, load_style, mix, save_style
from impasto.weights import digest_numbers, load_weights, save_weights
from tiny import narrow_slim, painting, tiny, varied

one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
TOY = ("--steps", "3", "--batch", "1", "--crop", "32", "--side", "40", "--style-side", "32", "--quiet")
SMALL = ("--width", "4", "--residuals", "1")


# --- the network


def test_johnsons_network_has_the_papers_size() -> None:
    network = paper_network()
    assert sum(count_parameters(layer) for layer in network.row) == 1_676_035
    assert count_parameters(network) == 1_679_235


def test_a_network_is_filled_without_being_built(picture: Tensor) -> None:
    made = TransformationNetwork(4, 1, output="sigmoid", norm_last=True, bias=False)
    values = {name: torch.rand_like(value) for name, value in made.state_dict().items()}
    with torch.device("meta"):
        template = TransformationNetwork(4, 1, output="sigmoid", norm_last=True, bias=False)
    filled = fill(template, values)
    made.load_state_dict(values)
    assert_close(filled(picture), made(picture))
    assert not filled.training
    assert not any(parameter.requires_grad for parameter in filled.parameters())
    assert all(parameter.is_meta for parameter in template.parameters())  # it stays as it was
    assert template.training
    for wrong in (
        {**values, "more": torch.ones(1)},
        {**values, "shifts.0": torch.ones(7)},
        dict(list(values.items())[1:]),
    ):
        with pytest.raises(RuntimeError, match="names or shapes"):
            fill(template, wrong)


def test_conditional_norms_network_has_the_papers_size() -> None:
    for styles in (1, 5):
        network = ConditionalNetwork(styles)
        assert count_parameters(network.shared) == 1_674_432
        assert count_parameters(network) - count_parameters(network.shared) == 3206 * styles


@pytest.mark.parametrize("size", [(64, 48), (61, 47), (16, 16), (17, 19)])
def test_a_picture_of_the_same_size(size: tuple[int, int]) -> None:
    network = varied(TransformationNetwork(4, 2))
    assert network(torch.rand(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("size", [(48, 64), (45, 51)])
def test_the_stages_are_the_network(size: tuple[int, int]) -> None:
    model = tiny("johnson")
    assert isinstance(model, Johnson)
    photo = torch.rand(1, 3, *size)
    style = model.learned["first"]
    network = TransformationNetwork(**model.shape)
    network.load_state_dict(dict(style))
    with torch.no_grad():
        assert_close(run_whole(model.stages(style), photo), network(photo).clamp(0, 1), atol=1e-5, rtol=0)


def test_brightness_and_contrast_of_what_is_normalised_do_not_matter() -> None:
    """The first norm takes them away, so that a photo and a paler one of it are painted alike."""
    network = varied(TransformationNetwork(4, 2, bias=False)).double()
    photo = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    wanted = network(photo)
    network.layers[0].conv.weight.data *= 3
    assert ((network(photo) - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.parametrize(("contrast", "brightness"), [(0.6, 0.3), (1.5, -0.2)])
def test_brightness_and_contrast_of_the_photo_do_not_matter_either(contrast: float, brightness: float) -> None:
    network = varied(TransformationNetwork(4, 2, bias=False)).double()
    photo = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    wanted = network(photo)
    assert ((network(contrast * photo + brightness) - wanted).norm() / wanted.norm()) < 1e-3


def test_without_a_style_a_network_learns_to_give_the_photo_back(picture: Tensor) -> None:
    loss = PerceptualLoss(narrow_slim(), style_weight=0.0)
    task = PaintingTraining("johnson", slim_network(8, 1), loss, painting(), {"name": "none"})
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-2)
    contents = []
    for _ in range(60):
        content = task.training_terms(picture, picture, 0.0)["content"]
        contents.append(float(content.detach()))
        optimizer.zero_grad()
        content.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert min(contents[-10:]) < 0.75 * contents[0]  # 0.4 to 0.47 by processor: rounding errors grow from step to step


def test_residual_sums_are_not_rectified() -> None:
    forms = [layer.form for layer in paper_network().row]
    assert [form.relu for form in forms if form.closes] == [False] * 5
    assert [form.norm for form in forms].count(True) == 15


# --- many styles


def test_a_batch_of_several_styles_is_its_samples() -> None:
    network = varied(ConditionalNetwork(3, 4, 2))
    photos, numbers = torch.rand(3, 3, 32, 40), torch.tensor([2, 0, 1])
    together = network(photos, numbers)
    for i in range(3):
        assert_close(network(photos[i : i + 1], numbers[i : i + 1]), together[i : i + 1], atol=1e-5, rtol=0)


def test_one_hot_weights_are_the_style_itself(picture: Tensor) -> None:
    model = tiny("conditional_norm")
    assert isinstance(model, ConditionalNorm)
    first, second = model.learned.values()
    assert torch.equal(model.transfer(picture, mix([first, second], [1, 0])), model.transfer(picture, first))
    assert torch.equal(model.transfer(picture, mix([first, first])), model.transfer(picture, first))
    halves = mix([first, second])
    assert_close(halves["3.scale"], (first["3.scale"] + second["3.scale"]) / 2)


def test_networks_mix_by_what_they_paint(picture: Tensor) -> None:
    model = tiny("johnson")
    assert isinstance(model, Johnson)
    first, second = model.learned.values()
    one, two = (model.transfer(picture, style) for style in (first, second))
    assert_close(model.transfer(picture, mix([first, second], [1, 3])), one / 4 + two * 3 / 4, atol=1e-5, rtol=0)


def test_a_damaged_network_card_is_refused(picture: Tensor) -> None:
    model = tiny("johnson")
    assert isinstance(model, Johnson)
    broken = Style(dict(list(model.learned["first"].items())[:-1]), model.style_kind)
    with pytest.raises(OptionError, match="no whole network for johnson"):
        model.transfer(picture, broken)


@pytest.mark.parametrize("name", ["johnson", "conditional_norm"])
def test_styles_are_found_by_name_and_by_what_they_are(name: str) -> None:
    model = tiny(name)
    assert isinstance(model, Johnson | ConditionalNorm)
    known = model.learned["second"]
    known.info.update(title="Sea", artist="Nobody")
    for info in ({"name": "second"}, {"title": "Sea", "artist": "Nobody"}):
        assert model.accept_style(Style({}, "moments/other", info)) is known
    with pytest.raises(OptionError, match=rf"{name} knows no style 'third': .*first, second"):
        model.accept_style(Style({}, "name", {"name": "third"}))


# --- the loss


def test_the_gram_gap_is_relative() -> None:
    features = torch.rand(2, 4, 6, 5, dtype=torch.float64)
    found, wanted = moments(features), moments(2 * features)
    assert_close(gram_gap(found, wanted), torch.tensor((3 / 4) ** 2, dtype=torch.float64))
    assert float(gram_gap(wanted, wanted)) == 0


def test_styles_of_several_paintings_are_stacked_and_picked() -> None:
    loss = PerceptualLoss(narrow_slim(), gram_weight=1.0)
    pictures = [painting(), painting(40, 52, seed=6)]
    stacked = stack_targets([loss.targets(picture) for picture in pictures])
    picked = pick_targets(stacked, torch.tensor([1, 0, 1]))
    for layer, own in picked.moments.items():
        alone = loss.targets(pictures[1]).moments[layer]
        assert isinstance(own, Moments)
        assert_close(own.second[2], alone.second[0])
        assert_close(own.mean[0], alone.mean[0])
    painted = torch.rand(2, 3, 48, 64)
    terms = loss.terms(painted, painted, pick_targets(stacked, torch.tensor([0, 0])))
    alone_terms = loss.terms(painted, painted, loss.targets(pictures[0]))
    assert_close(terms["style"], alone_terms["style"])
    assert float(terms["content"]) < 1e-8


def test_the_covariance_gap_is_relative_and_ignores_the_mean() -> None:
    features = torch.rand(2, 4, 6, 5, dtype=torch.float64)
    found, wanted = moments(features + 3), moments(2 * features)
    assert_close(covariance_gap(found, wanted), torch.tensor((3 / 4) ** 2, dtype=torch.float64))
    assert float(covariance_gap(wanted, wanted)) < 1e-20


def test_the_earth_movers_distance_equals_its_twin() -> None:
    rng = np.random.default_rng(5)
    found, wanted = rng.normal(size=(2, 7, 5)), rng.normal(size=(2, 9, 5))
    expected = []
    for one, other in zip(found, wanted, strict=True):
        table = [[1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in other] for a in one]
        there = np.mean([min(row) for row in table])
        back = np.mean([min(row[j] for row in table) for j in range(9)])
        expected.append(max(there, back))
    unit = [torch.nn.functional.normalize(torch.from_numpy(side), dim=2) for side in (found, wanted)]
    assert float(earth_mover_gap(*unit)) == pytest.approx(np.mean(expected), rel=1e-12)
    assert float(earth_mover_gap(unit[0], unit[0])) < 1e-12


def test_places_are_drawn_centred_and_of_length_1() -> None:
    features = torch.rand(2, 6, 9, 8) + 5
    drawn = draw_places(features, 20)
    assert drawn.shape == (2, 20, 6)
    assert_close(drawn.norm(dim=2), torch.ones(2, 20))
    everywhere = draw_places(features, 100)
    centred = features.flatten(2) - features.flatten(2).mean(2, keepdim=True)
    assert_close(everywhere, torch.nn.functional.normalize(centred, dim=1).transpose(1, 2))


def test_self_similarity_equals_its_twin_and_ignores_colour_and_contrast() -> None:
    rng = np.random.default_rng(6)
    one, other = rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 3, 5))

    def similarity(features: np.ndarray) -> np.ndarray:
        flat = features.reshape(4, -1)
        flat = flat - flat.mean(1, keepdims=True)
        flat = flat / np.linalg.norm(flat, axis=0)
        distance = 1 - flat.T @ flat
        return distance / distance.sum(0)

    expected = np.abs(similarity(one) - similarity(other)).sum(0).mean()
    a, b = torch.from_numpy(one)[None], torch.from_numpy(other)[None]
    assert float(similarity_gap(a, b)) == pytest.approx(expected, rel=1e-9)
    assert float(similarity_gap(a, 3 * a + 2)) < 1e-9


def test_quarters_make_flat_areas_count() -> None:
    """Of two pictures with the same covariance the one that is flat in a half loses."""
    torch.manual_seed(8)
    busy = torch.rand(1, 3, 64, 64)
    flat = torch.cat([busy[..., :32], torch.full((1, 3, 64, 32), 0.5)], 3)
    loss = PerceptualLoss(narrow_slim(), window_weight=1.0)
    blind = PerceptualLoss(narrow_slim(), covariance_weight=1.0)
    for judge in (loss, blind):
        assert float(judge(busy, busy, busy)["style"]) < 0.2 * float(judge(flat, busy, busy)["style"])
    quarters = loss._quarters("relu2_1", torch.rand(1, 4, 7, 9))
    assert len(quarters) == 4
    assert sum(quarter.count for quarter in quarters) == 63


def test_every_new_term_has_a_gradient() -> None:
    loss = PerceptualLoss(
        narrow_slim(), covariance_weight=1.0, window_weight=1.0, neighbor_weight=1.0, similarity_weight=1.0
    )
    painted = torch.rand(2, 3, 48, 48, requires_grad=True)
    terms = loss(painted, torch.rand(2, 3, 48, 48), torch.rand(2, 3, 48, 48))
    assert set(terms) == {"content", "style", "neighbors", "similarity"}
    for term in terms.values():
        (gradient,) = torch.autograd.grad(term, painted, retain_graph=True)
        assert bool(torch.isfinite(gradient).all())
        assert float(gradient.abs().sum()) > 0


# --- training and the command line


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "art").mkdir()
    write_image(make_picture(1, 40, 50), Path("photos/a.png"))
    for number, name in enumerate(("sea", "the-scream")):
        write_image(make_picture(3 + number, 40, 44), Path("art") / f"{name}.png")
    return Shell(tmp_path, capsys)


Train = Callable[..., Outcome]


@pytest.fixture
def train(shell: Shell) -> Train:
    def run(name: str, style: str, output: str, *words: str) -> Outcome:
        return shell.run("train", name, "--content", "photos", "--style", style, "-o", output, *TOY, *words)

    return run


def test_johnson_learns_one_painting_and_paints_by_its_name(train: Train, shell: Shell) -> None:
    train("johnson", "art/sea.png", "run", *SMALL).good()
    assert load_weights(Path("run/johnson.safetensors")).config["networks"] == [{"name": "sea"}]
    shell.run(
        "stylize",
        "photos/a.png",
        "--style",
        "sea",
        "-m",
        "johnson",
        "--weights",
        "run/johnson.safetensors",
        "-o",
        "a.png",
        "--record-paths",
    ).good()
    again = shell.run("stylize", "--recipe", "a.png", "-o", "b.png").good()
    assert again.err == "" or "warning" not in again.err
    assert Path("a.png").is_file()
    refused = shell.run(
        "stylize", "photos/a.png", "art/sea.png", "-m", "johnson", "--weights", "run/johnson.safetensors"
    )
    assert refused.code == 2
    assert "sea" in refused.err
    assert train("johnson", "art", "two", *SMALL).code == 2


def test_conditional_norm_adds_a_style_and_changes_nothing_else(train: Train, shell: Shell) -> None:
    train("conditional_norm", "art/sea.png", "run", *SMALL).good()
    known = "run/conditional_norm.safetensors"
    assert train("conditional_norm", "art/sea.png", "more", "--from", known, "--add").code == 2
    train("conditional_norm", "art/the-scream.png", "more", "--from", known, "--add").good()
    before, after = (
        impasto.load("conditional_norm", weights=path) for path in (known, "more/conditional_norm.safetensors")
    )
    assert isinstance(before, ConditionalNorm)
    assert isinstance(after, ConditionalNorm)
    assert digest_numbers(before.shared()) == digest_numbers(after.shared())
    assert before.style_kind == after.style_kind
    assert list(after.learned) == ["sea", "the-scream"]
    assert after.learned["the-scream"].info["artist"] == "Edvard Munch"
    photo = make_picture(1, 40, 50)
    assert torch.equal(before.stylize(photo, before.learned["sea"]), after.stylize(photo, after.learned["sea"]))
    assert not torch.equal(after.learned["sea"]["0.scale"], after.learned["the-scream"]["0.scale"])
    listed = shell.run("styles", "--json")
    assert listed.code == 0


def test_going_on_each_painting_meets_its_own_style_whatever_the_order(train: Train, shell: Shell) -> None:
    train("conditional_norm", "art", "first", *SMALL).good()
    Path("swapped").mkdir()
    for name in ("the-scream", "sea"):
        Path(f"art/{name}.png").rename(f"swapped/{name}.png")
    again = ("--style", "swapped/sea.png", "--from", "first/conditional_norm.safetensors", "--learning-rate", "1e-9")
    train("conditional_norm", "swapped/the-scream.png", "second", *again).good()
    first, second = (load_weights(Path(run) / "conditional_norm.safetensors") for run in ("first", "second"))
    assert [style["name"] for style in second.config["styles"]] == ["sea", "the-scream"]
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert_close(second.tensors[name], tensor, atol=1e-3, rtol=0)


def test_johnson_starts_from_a_network_of_many_styles(train: Train, tmp_path: Path) -> None:
    train("conditional_norm", "art", "many", *SMALL).good()
    train(
        "johnson", "art/the-scream.png", "one", "--from", "many/conditional_norm.safetensors", "--learning-rate", "1e-9"
    ).good()
    many = impasto.load("conditional_norm", weights="many/conditional_norm.safetensors", precision="fp32")
    one = impasto.load("johnson", weights="one/johnson.safetensors", precision="fp32")
    photo = make_picture(1, 40, 50)
    assert isinstance(many, ConditionalNorm)
    assert isinstance(one, Johnson)
    wanted = many.stylize(photo, many.learned["the-scream"])
    assert_close(one.stylize(photo, one.learned["the-scream"]), wanted, atol=5e-3, rtol=0)
    train("johnson", "art/sea.png", "two", "--from", "one/johnson.safetensors").good()
    tensors, config = join(["one/johnson.safetensors", "two/johnson.safetensors"])
    save_weights(tensors, tmp_path / "both.safetensors", config)
    both = impasto.load("johnson", weights="both.safetensors", precision="fp32")
    assert isinstance(both, Johnson)
    assert list(both.learned) == ["the-scream", "sea"]
    assert torch.equal(both.stylize(photo, both.learned["the-scream"]), one.stylize(photo, one.learned["the-scream"]))


def test_a_card_of_a_network_paints(train: Train) -> None:
    train("johnson", "art/sea.png", "run", *SMALL).good()
    model = impasto.load("johnson", weights="run/johnson.safetensors")
    assert isinstance(model, Johnson)
    save_style(model.learned["sea"], "sea.safetensors")
    photo = make_picture(1, 40, 50)
    assert torch.equal(model.stylize(photo, load_style("sea.safetensors")), model.stylize(photo, model.learned["sea"]))


def test_what_johnson_can_not_go_on_from_is_refused(train: Train) -> None:
    save_weights({"a": torch.ones(1)}, "odd.safetensors", {})
    for name in ("johnson", "conditional_norm"):
        done = train(name, "art/sea.png", "run", "--from", "odd.safetensors")
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert impasto_says(name, "odd.safetensors")


def impasto_says(method: str, path: str) -> bool:
    return main(["stylize", "photos/a.png", "--style", "sea", "-m", method, "--weights", path, "-o", "x.png"]) == 2
