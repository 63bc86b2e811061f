"""Coverage, precision and their like against a float64 twin; what they say of extremes; files without a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cli_support import make_picture
from impasto.errors import ImageError, OptionError, WeightsError
from impasto.evaluation import Extras, evaluate, find_pairs
from impasto.evaluation.painted import LAYERS, PaintedScore
from impasto.evaluation.report import PAINTED
from impasto.images.files import write_image
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import load_backbone
from impasto.weights import save_weights
from tiny import painting, random_slim, random_vgg


@pytest.fixture(scope="module")
def network() -> Backbone:
    return random_vgg("vgg16")


def twin(image: dict[str, Any], painting: dict[str, Any], photo: dict[str, Any]) -> dict[str, float]:
    """The measures once more, place by place in float64; features (C, H, W) by layer."""
    found: dict[str, float] = {}
    for number, layer in (("3", "relu3_3"), ("4", "relu4_3")):
        sides = []
        for features in (image[layer], painting[layer]):
            rows = features.reshape(len(features), -1).T
            rows = rows - rows.mean(0)
            sides.append([row / np.linalg.norm(row) for row in rows])
        found[f"coverage{number}"] = float(np.mean([min(1 - p @ q for p in sides[0]) for q in sides[1]]))
        found[f"precision{number}"] = float(np.mean([min(1 - p @ q for q in sides[1]) for p in sides[0]]))
    found |= {"moments": 0.0, "gram": 0.0}
    for layer in LAYERS:
        a, b = (side[layer].reshape(len(side[layer]), -1) for side in (image, painting))
        gap = np.mean((a.mean(1) - b.mean(1)) ** 2) + np.mean((a.std(1, ddof=1) - b.std(1, ddof=1)) ** 2)
        found["moments"] += gap / b.var(1, ddof=1).mean() / len(LAYERS)
        first, second = a @ a.T / a.shape[1], b @ b.T / b.shape[1]
        found["gram"] += np.linalg.norm(first - second) / np.linalg.norm(second) / len(LAYERS)
    found["similarity_gap"] = float(np.abs(similarities(image) - similarities(photo)).sum(0).mean())
    return found


def similarities(features: dict[str, Any]) -> Any:
    rows = features["relu4_3"].reshape(len(features["relu4_3"]), -1)
    rows = rows - rows.mean(1, keepdims=True)
    rows = rows / np.linalg.norm(rows, axis=0)
    distances = 1 - rows.T @ rows
    return distances / distances.sum(0)


def test_the_measures_are_their_twins(network: Backbone) -> None:
    pictures = [painting(96, 128, seed=seed) for seed in (1, 2, 3)]
    features = [{k: v[0].double().numpy() for k, v in network(image, LAYERS).items()} for image in pictures]
    found = PaintedScore(network).compare(*pictures, "a")
    assert tuple(found) == PAINTED
    assert found == pytest.approx(twin(*features), rel=1e-4, abs=1e-6)


def test_the_painting_itself_covers_all_and_the_photo_keeps_what_is_alike(network: Backbone) -> None:
    photo, style = painting(96, 128, seed=1), painting(96, 128, seed=2)
    score = PaintedScore(network)
    copy = score.compare(style, style, photo, "style")
    for name in PAINTED[:6]:
        assert copy[name] == pytest.approx(0, abs=1e-5)
    same = score.compare(photo, style, photo, "style")
    assert same["similarity_gap"] == pytest.approx(0, abs=1e-5)
    assert all(same[name] > 1e-3 for name in PAINTED[:6])
    assert copy["similarity_gap"] > 1e-3


def test_what_lacks_half_of_a_painting_does_not_cover_it(network: Backbone) -> None:
    half, noise = painting(64, 64, seed=1), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    style = torch.cat([half, noise], 3)
    score = PaintedScore(network)
    lacking, full = (score.compare(image, style, style, "style") for image in (half, style.roll(64, 3)))
    assert lacking["coverage3"] > 2 * full["coverage3"]


def test_pictures_that_are_too_small_are_refused(network: Backbone) -> None:
    small = painting(32, 15)
    with pytest.raises((ImageError, OptionError), match="32"):
        PaintedScore(network).compare(small, small, small, "a")


def test_evaluate_reports_them(network: Backbone, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("photos", "paintings", "made")]
    for number, (folder, name) in enumerate(zip(folders, ("a", "b", "a__b"), strict=True)):
        folder.mkdir()
        write_image(make_picture(number, 64, 64), folder / f"{name}.png")
    extras = Extras()
    extras.painted = PaintedScore(network)
    found = evaluate(find_pairs(*folders), random_slim(), size=(64, 64), extras=extras)
    assert all(found.means[name] is not None for name in PAINTED)
    assert "coverage and precision by VGG-16" in found.to_markdown()
    assert found.to_json()["painted_by"] == network.digest
    plain = evaluate(find_pairs(*folders), random_slim(), size=(64, 64))
    assert plain.means["coverage3"] is None
    assert "no coverage, precision: no folder was given in which vgg16-397923af.pth could be" in plain.to_markdown()


def test_a_vgg_without_its_classifier_will_do(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in models.vgg16(weights=None).features.state_dict().items()}
    tensors: dict[str, Tensor] = {f"features.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    path = tmp_path / "vgg16.safetensors"
    save_weights(tensors, path, {}, half=True)
    network = load_backbone("vgg16", weights=path)
    assert network.layers[-1] == "pool5"
    assert network(torch.rand(1, 3, 32, 32), {"relu5_3"})["relu5_3"].shape == (1, 512, 2, 2)
    with pytest.raises(OptionError, match="has no layer 'logits'"):
        network.check_layers(["logits"])
    save_weights({name: tensors[name] for name in list(tensors)[:-1]}, path, {}, half=True)
    with pytest.raises(WeightsError, match="does not hold this network"):
        load_backbone("vgg16", weights=path)
