"""Attacks: the class flips, no pixel changes by more than epsilon, and the written file still fools the classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from impasto.errors import OptionError
from impasto.images.files import read_image, write_image
from impasto.networks.backbones import load_backbone
from impasto.networks.classifiers import Classifier, load_classifier
from impasto.optimize.parameterizations import EpsilonBall
from impasto.vision.attack import Attack, AttackOptions, attack, rounded
from recipe_support import digest_of, natural, random_classifier


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load_classifier()


def attack_photo(model: Classifier, **options: float) -> Attack:
    image = model.square(natural("china.jpg"))
    return attack(model, image, model.find("elephant"), AttackOptions.parse(dict(options), "attack"))


def test_a_photo_within_the_ball_flips_also_as_a_file(model: Classifier, tmp_path: Path) -> None:
    before = digest_of(model.backbone)
    found = attack_photo(model, epsilon=8, steps=12)
    assert model.classes[found.source] == "house"
    assert found.largest <= 8 / 255 + 1e-6
    write_image(found.after, tmp_path / "a.png")
    again = read_image(tmp_path / "a.png")
    assert torch.equal(again, found.after)
    chances = model.probabilities(again)[0]
    assert model.classes[int(chances.argmax())] == "elephant"
    assert chances.max() > 0.9
    verdict = found.judge(model, "house", "elephant")
    assert verdict["fooled"]
    assert verdict["before"]["source"] > 0.9 > 0.1 > verdict["after"]["source"]
    assert digest_of(model.backbone) == before


def test_without_a_limit(model: Classifier) -> None:
    found = attack_photo(model, epsilon=0, steps=25)
    assert found.judge(model, "house", "elephant")["after"]["target"] > 0.5
    assert found.length == pytest.approx(float((found.after - found.before).square().sum().sqrt()), rel=1e-4)


def test_the_difference_is_grey_where_nothing_changed() -> None:
    before = torch.zeros(1, 3, 4, 4)
    after = before.clone()
    after[..., 0, 0] = 0.02
    found = Attack(before, after, 0, 1, result=None)  # type: ignore[arg-type]
    shown = found.amplified()
    assert torch.all(shown[..., 0, 0] == 1)
    assert torch.all(shown[..., 1:, :] == 0.5)


def test_another_network_is_asked_by_name() -> None:
    model, other = random_classifier(seed=3), random_classifier(seed=4)
    image = torch.rand(1, 3, 32, 32)
    source = int(model.probabilities(rounded(image)).argmax())
    found = attack(model, image, (source + 1) % 3, AttackOptions(steps=20, epsilon=16))
    names = model.classes[found.source], model.classes[found.target]
    assert found.judge(model, *names)["fooled"]
    assert found.judge(other, *names)["before"]["said"] in "abc"


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet50"])
def test_any_backbone(name: str) -> None:
    network = load_backbone(name, pretrained=False)
    model = Classifier(name, network, tuple(map(str, range(1000))), 40)
    image = torch.rand(1, 3, 40, 40)
    found = attack(model, image, 7, AttackOptions(steps=3))
    verdict = found.judge(model, "1", "7")
    assert verdict["after"]["target"] > verdict["before"]["target"]
    assert found.largest <= 3 / 255 + 1e-6


def test_a_class_that_it_has_already() -> None:
    model, image = random_classifier(), torch.rand(1, 3, 32, 32)
    source = int(model.probabilities(rounded(image)).argmax())
    with pytest.raises(OptionError, match="already: name another"):
        attack(model, image, source, AttackOptions())


def test_the_ball() -> None:
    center = torch.tensor([0.0, 0.5, 1.0, 0.02]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    ball = EpsilonBall(center, 0.1)
    ball.values.data += torch.tensor([1.0, -1.0, 1.0, -0.05])
    ball.project()
    expected = torch.tensor([0.1, 0.4, 1.0, 0.0])
    assert torch.allclose(ball()[0, 0, 0], expected)
    ball().square().sum().backward()
    assert ball.values.grad is not None
    assert set(ball.values.grad.unique().tolist()) <= {0.0, 1.0}
