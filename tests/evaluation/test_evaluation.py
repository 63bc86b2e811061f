"""What stylized pictures are measured with, and the folders that are measured."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor

from cli_support import make_picture
from impasto.errors import ImageError, ImpastoError, OptionError, WeightsError
from impasto.evaluation import (
    Extras,
    Pair,
    content_loss,
    evaluate,
    find_pairs,
    load_loss_network,
    pair_up,
    ssim,
    structure_distance,
    style_loss,
    stylize_pairs,
)
from impasto.evaluation.lanczos import resize_lanczos
from impasto.evaluation.lpips_fid import ALEXNET, INCEPTION, LINEAR, LPIPS, VGG19
from impasto.evaluation.metrics import STYLE_LAYERS, describe_style, grey
from impasto.images.files import read_image, read_metadata, write_image
from impasto.methods import load
from impasto.networks.backbone import Backbone
from impasto.networks.backbones import load_backbone
from impasto.weights import save_weights
from reference import metrics as twin

SIZE = (48, 64)


def numbers(tensor: Tensor) -> Any:
    """Without the batch of one, in float64."""
    return tensor[0].double().numpy()


def similar(image: Tensor, amount: float) -> Tensor:
    return (image + amount * torch.randn(image.shape)).clamp(0, 1)


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(3)
    return load_backbone(pretrained=False)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three photos, two paintings, and stylized pictures of three of the pairs."""
    contents, styles, stylized = (tmp_path / name for name in ("contents", "styles", "stylized"))
    for folder in (contents, styles, stylized):
        folder.mkdir()
    for i, name in enumerate(("boat", "cat", "dune")):
        write_image(make_picture(i, *SIZE), contents / f"{name}.png")
    for i, name in enumerate(("sea", "sky")):
        write_image(make_picture(10 + i, 60, 50), styles / f"{name}.png")
    for i, name in enumerate(("boat__sea", "cat__sky", "dune-sea")):
        write_image(similar(make_picture(i, *SIZE), 0.1), stylized / f"{name}.png")
    return contents, styles, stylized


# --- formulas


def test_style_loss_is_its_twin(network: Backbone) -> None:
    features = [network(make_picture(seed, *SIZE), STYLE_LAYERS) for seed in (1, 2)]
    found = style_loss(*map(describe_style, features))
    wanted = twin.style_loss(*([numbers(f[layer]) for layer in STYLE_LAYERS] for f in features))
    assert found == pytest.approx(wanted, rel=1e-4)
    assert style_loss(describe_style(features[0]), describe_style(features[0])) == 0


def test_content_loss_is_its_twin(network: Backbone) -> None:
    x, y = (network(make_picture(seed, *SIZE), {"relu4_1"})["relu4_1"] for seed in (1, 2))
    assert content_loss(x, y) == pytest.approx(twin.content_loss(numbers(x), numbers(y)), rel=1e-4)
    assert content_loss(x, x) == 0


def test_content_loss_knows_no_contrast() -> None:
    x, y = torch.randn(2, 1, 4, 8, 8).unbind()
    assert content_loss(3 * x + 1, y) == pytest.approx(content_loss(x, y), rel=1e-3)


def test_features_of_a_single_position_have_no_deviation() -> None:
    with pytest.raises(ImageError, match="too small for the loss network"):
        content_loss(torch.ones(1, 4, 1, 1), torch.ones(1, 4, 1, 1))


@pytest.mark.parametrize("amount", [0.0, 0.02, 0.3])
def test_ssim_is_scikit_images(picture: Tensor, amount: float) -> None:
    other = similar(picture, amount)
    x, y = (grey(image)[0, 0].numpy().astype(np.uint8) for image in (picture, other))
    assert ssim(picture, other) == pytest.approx(structural_similarity(x, y), abs=1e-6)


def test_ssim_is_its_twin(picture: Tensor) -> None:
    x, y = picture[..., :16, :16], similar(picture, 0.1)[..., :16, :16]
    assert ssim(x, y) == pytest.approx(twin.ssim(grey(x)[0, 0].numpy(), grey(y)[0, 0].numpy()), abs=1e-9)
    assert ssim(x, x) == 1


def test_ssim_needs_windows(picture: Tensor) -> None:
    for other in (picture[..., :40], picture[..., :6, :6]):
        with pytest.raises(ImageError, match="same size"):
            ssim(other[..., :6, :], other[..., :6, :] if other.shape[-1] == 6 else picture)


def test_grey_is_pillows() -> None:
    image = torch.rand(1, 3, 64, 64)
    levels = image[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
    assert np.array_equal(grey(image)[0, 0].numpy(), np.asarray(Image.fromarray(levels).convert("L")))


@pytest.mark.parametrize("size", [(20, 31), (90, 100), (48, 30)])
def test_lanczos_is_pillows(size: tuple[int, int]) -> None:
    levels = torch.randint(0, 256, (48, 64, 3), dtype=torch.uint8)
    wanted = np.asarray(Image.fromarray(levels.numpy()).resize(size[::-1], Image.Resampling.LANCZOS))
    found = resize_lanczos(levels.permute(2, 0, 1)[None] / 255, *size)[0].permute(1, 2, 0).mul(255).round().numpy()
    gap = np.abs(found - wanted)
    assert gap.max() <= 1
    assert (gap > 0).mean() < 0.005


def test_lanczos_leaves_what_fits(picture: Tensor) -> None:
    assert resize_lanczos(picture, *picture.shape[-2:]) is picture


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("scale", [0.1, 5, 60])
def test_structure_distance_is_its_twin(rows: int, scale: float) -> None:
    x, y = scale * torch.rand(2, 1, 8, 5, 6)
    assert structure_distance(x, y, rows) == pytest.approx(twin.structure_distance(numbers(x), numbers(y)), rel=1e-3)
    assert structure_distance(x, x, rows) == 0
    with pytest.raises(ImageError, match="same size"):
        structure_distance(x, y[..., :5])


# --- measures whose weights are elsewhere


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Random weights of LPIPS and VGG-19 under the names of the real files."""
    folder = tmp_path / "weights"
    folder.mkdir()
    part = LPIPS()
    convs = {
        f"features.{n}.{k}": getattr(c, k)
        for n, c in zip((0, 3, 6, 8, 10), part.convs, strict=True)
        for k in ("weight", "bias")
    }
    torch.save({name: tensor.data for name, tensor in convs.items()}, folder / ALEXNET)
    lines = {f"lin{i}.model.1.weight": line.weight.data.abs() for i, line in enumerate(part.linear)}
    torch.save(lines, folder / LINEAR)
    return folder


def test_lpips_is_its_twin(weights: Path, picture: Tensor) -> None:
    measure = Extras(weights, skip=["cfsd", "artfid_like"]).lpips
    assert measure is not None
    other = similar(picture, 0.1)
    features = [[numbers(f) for f in measure._features(image)] for image in (picture, other)]
    lines = [line.weight[0, :, 0, 0].detach().double().numpy() for line in measure.linear]
    assert float(measure(picture, other)) == pytest.approx(twin.lpips(*features, lines), rel=1e-4)
    assert float(measure(picture, other)) == float(measure(other, picture))
    assert float(measure(picture, picture)) == 0


def test_alexnet_is_torchvisions(weights: Path, picture: Tensor) -> None:
    from torchvision import models

    measure = LPIPS.from_files(weights / ALEXNET, weights / LINEAR)
    other = models.alexnet(weights=None).features[:12]
    other.load_state_dict({k.removeprefix("features."): v for k, v in torch.load(weights / ALEXNET).items()})
    scaled = (2 * picture - 1 - measure.shift) / measure.scale
    assert torch.allclose(other(scaled), measure._features(picture)[-1], atol=1e-6)


def test_linear_layers_of_torchmetrics_do(weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "torchmetrics"
    (package / "functional/image/lpips_models").mkdir(parents=True)
    shutil.move(weights / LINEAR, package / "functional/image/lpips_models" / LINEAR)
    found = SimpleNamespace(submodule_search_locations=[str(package)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "torchmetrics" else None)
    assert Extras(weights).lpips is not None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "torchmetrics, which has it, is not installed" in Extras(weights).missing["lpips"]


def test_lpips_refuses_other_files(weights: Path) -> None:
    with pytest.raises(WeightsError, match="does not hold this network"):
        LPIPS.from_files(weights / LINEAR, weights / LINEAR)


def test_structure_takes_torchvisions_network(weights: Path, picture: Tensor) -> None:
    torch.save({"steps.conv1_1.weight": torch.ones(1)}, weights / VGG19)
    assert "does not hold this network" in Extras(weights).missing["cfsd"]
    network = load_backbone("vgg19", pretrained=False)
    extras = Extras(None, network)
    assert extras.structure is network
    _, same = extras.compare(picture, picture)
    _, other = extras.compare(similar(picture, 0.2), picture)
    assert same == 0
    assert other is not None
    assert other > 0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    missing = Extras(tmp_path, skip=["cfsd"]).missing
    assert missing["lpips"] == f"{ALEXNET} is not in {tmp_path}"
    assert missing["cfsd"] == "not asked for"
    assert INCEPTION in missing["artfid_like"]
    assert "artfid_like" in missing["artfid"]
    assert "no folder was given" in Extras().missing["lpips"]


def test_frechet_needs_a_package_and_the_right_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / INCEPTION)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "torchmetrics is not installed" in Extras(tmp_path).missing["artfid_like"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=None))
    assert "is damaged" in Extras(tmp_path).missing["artfid_like"]


class Frechet:
    """Stands for torchmetrics': how far the mean colours are."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seen: dict[bool, list[float]] = {True: [], False: []}

    def update(self, images: Tensor, real: bool) -> None:
        self.seen[real].append(float(images.mean()))

    def compute(self) -> Tensor:
        return torch.tensor(abs(sum(self.seen[True]) - sum(self.seen[False])))


def test_artfid_like(weights: Path, network: Backbone, folders: tuple[Path, Path, Path]) -> None:
    extras = Extras(weights)
    extras.frechet = Frechet()
    extras.missing.pop("artfid_like")
    pairs = find_pairs(*folders)
    for _ in range(2):  # a second evaluation counts nothing of the first
        found = evaluate(pairs, network, size=SIZE, extras=extras)
        assert found.fid == float(extras.frechet.compute())
        assert found.artfid_like == pytest.approx((1 + (found.means["lpips"] or 0)) * (1 + found.fid))
    assert evaluate(pairs[:1], network, size=SIZE, extras=extras).missing["artfid_like"].startswith("it needs at least")


# --- folders


def test_rows(folders: tuple[Path, Path, Path], network: Backbone) -> None:
    found = evaluate(find_pairs(*folders), network, size=SIZE)
    assert [(row.content, row.style) for row in found.rows] == [("boat", "sea"), ("cat", "sky"), ("dune", "sea")]
    assert (found.size, found.loss_network, found.resized) == ("64x48", "vgg19-slim", 0)
    photo, picture = read_image(folders[0] / "cat.png"), read_image(folders[2] / "cat__sky.png")
    painting = resize_lanczos(read_image(folders[1] / "sky.png"), *SIZE)
    seen = [network(image, STYLE_LAYERS) for image in (photo, picture, painting)]
    own, made, wanted = map(describe_style, seen)
    row = found.rows[1]
    assert row.style_loss == pytest.approx(style_loss(made, wanted))
    assert row.photo_style_loss == pytest.approx(style_loss(own, wanted))
    assert row.content_loss == pytest.approx(content_loss(seen[1]["relu4_1"], seen[0]["relu4_1"]))
    assert row.ssim == pytest.approx(ssim(picture, photo))
    assert (row.lpips, row.cfsd) == (None, None)
    assert found.means["ssim"] == pytest.approx(sum(row.ssim for row in found.rows) / 3)
    assert found.medians["ssim"] == sorted(row.ssim for row in found.rows)[1]
    assert found.style_share == pytest.approx(
        sum(row.style_loss for row in found.rows) / sum(row.photo_style_loss for row in found.rows)
    )


def test_order_does_not_matter(folders: tuple[Path, Path, Path], network: Backbone) -> None:
    pairs = find_pairs(*folders)
    counted: list[tuple[int, int]] = []
    found = evaluate(pairs[::-1], network, size=SIZE, on_pair=lambda done, total: counted.append((done, total)))
    assert found == evaluate(pairs, network, size=SIZE)
    assert counted == [(1, 3), (2, 3), (3, 3)]


def test_the_photo_itself(folders: tuple[Path, Path, Path], network: Backbone) -> None:
    contents, _, stylized = folders
    shutil.copy(contents / "boat.png", stylized / "boat__sky.png")
    row = next(row for row in evaluate(find_pairs(*folders), network, size=SIZE).rows if row.style == "sky")
    assert (row.content, row.content_loss, row.ssim) == ("boat", 0, 1)
    assert row.style_loss == row.photo_style_loss > 0


def test_the_painting_itself_has_no_style_loss(folders: tuple[Path, Path, Path], network: Backbone) -> None:
    contents, styles, _ = folders
    row = evaluate([Pair(contents / "cat.png", styles / "sea.png", styles / "sea.png")], network, size=SIZE).rows[0]
    assert row.style_loss == 0
    assert row.content_loss > 0


def test_other_sizes(folders: tuple[Path, Path, Path], network: Backbone) -> None:
    pairs = find_pairs(*folders)
    assert evaluate(pairs, network, size=(40, 40)).resized == 3
    assert evaluate(pairs, network, size=64) == evaluate(pairs, network, size=64)
    assert evaluate(pairs, network, size=64).resized == 0  # in the photos' proportions
    with pytest.raises(ImageError, match="larger --size"):
        evaluate(pairs, network, size=(16, 16))


def test_nothing_to_measure(network: Backbone) -> None:
    with pytest.raises(ImpastoError, match="no picture to measure"):
        evaluate([], network)


def test_report(folders: tuple[Path, Path, Path], network: Backbone) -> None:
    (folders[0] / "boat.png").rename(folders[0] / "a|b.png")
    (folders[2] / "boat__sea.png").rename(folders[2] / "a|b__sea.png")
    found = evaluate(find_pairs(*folders), network, size=SIZE, extras=Extras(skip=["cfsd"]))
    report = json.loads(json.dumps(found.to_json()))
    assert report["pairs"] == 3
    assert report["mean"]["lpips"] is None
    assert report["missing"]["cfsd"] == "not asked for"
    assert report["loss_network"] == {"name": "vgg19-slim", "sha256": "random"}
    text = found.to_markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| photo | painting | style loss | the photo's own | content loss | SSIM |"
    assert len(lines) == 7
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "- no LPIPS: " in text
    assert "loss network vgg19-slim" in text
    assert sum(line.startswith("|") for line in found.to_markdown(rows=False).splitlines()) == 4


# --- names


def test_missing_counterparts_are_named(folders: tuple[Path, Path, Path]) -> None:
    contents, styles, stylized = folders
    (styles / "sky.png").unlink()
    with pytest.raises(ImpastoError, match=r"cat__sky\.png: there is no painting called sky"):
        find_pairs(*folders)
    (contents / "boat.png").unlink()
    with pytest.raises(ImpastoError, match=r"boat__sea\.png: there is no photo called boat"):
        find_pairs(*folders)
    write_image(make_picture(1), stylized / "a.png")
    with pytest.raises(ImpastoError, match=r"a\.png is not named CONTENT__STYLE\.png"):
        find_pairs(*folders)


def test_doubtful_names(folders: tuple[Path, Path, Path]) -> None:
    contents, styles, stylized = folders
    shutil.copy(stylized / "boat__sea.png", stylized / "boat-sea.png")
    with pytest.raises(ImpastoError, match="of the same pair"):
        find_pairs(*folders)
    (stylized / "boat-sea.png").unlink()
    for name in ("cat-cat", "cat"):
        shutil.copy(contents / "cat.png", contents / f"{name}.png") if name != "cat" else None
    shutil.copy(styles / "sea.png", styles / "cat-sea.png")
    shutil.copy(stylized / "boat__sea.png", stylized / "cat-cat-sea.png")
    with pytest.raises(ImpastoError, match="may stand for cat and cat-sea or cat-cat and sea"):
        find_pairs(*folders)
    write_image(make_picture(1), contents / "cat.jpg")
    with pytest.raises(ImpastoError, match="have the same name"):
        find_pairs(*folders)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImpastoError, match="is no folder"):
        find_pairs(tmp_path / "nowhere", tmp_path, tmp_path)
    with pytest.raises(ImpastoError, match="holds no pictures"):
        find_pairs(tmp_path, tmp_path, tmp_path)


# --- the protocol's pictures


def test_the_protocol(tmp_path: Path) -> None:
    for folder in ("c", "s"):
        (tmp_path / folder).mkdir()
        for i in range(40):
            (tmp_path / folder / f"{i:02d}.png").touch()
    pairs = [(int(c.stem), int(s.stem)) for c, s in pair_up(tmp_path / "c", tmp_path / "s")]
    assert sorted(pairs) == sorted((i, (i + k) % 40) for i in range(40) for k in (0, 13, 26))
    first = pair_up(tmp_path / "c", tmp_path / "s", count=40)
    assert [(c.stem, s.stem) for c, s in first] == [(f"{i:02d}", f"{i:02d}") for i in range(40)]
    assert len(pair_up(tmp_path / "c", tmp_path / "s", offsets=(5, 45))) == 40
    with pytest.raises(ImpastoError, match="there are 120 pairs"):
        pair_up(tmp_path / "c", tmp_path / "s", count=121)


def test_pictures_are_made_once(
    folders: tuple[Path, Path, Path], network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(network.state_dict(), tmp_path / "slim.safetensors", {})
    model = load("gatys", backbone_weights=str(tmp_path / "slim.safetensors"), steps=1, octaves=0)
    pairs = pair_up(*folders[:2], offsets=[0])
    made = stylize_pairs(model, pairs, tmp_path / "made", SIZE)
    assert [pair.stylized.name for pair in made] == ["boat__sea.png", "cat__sky.png", "dune__sea.png"]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {pair.stylized.name for pair in made}
    assert find_pairs(*folders[:2], tmp_path / "made") == made
    assert read_image(made[0].stylized).shape[-2:] == SIZE
    assert json.loads(read_metadata(made[0].stylized)["impasto-pair"])["method"] == "gatys"
    made[1].stylized.unlink()
    before = made[0].stylized.stat().st_mtime_ns
    stylize_pairs(model, pairs, tmp_path / "made", SIZE)
    assert made[1].stylized.is_file()
    assert made[0].stylized.stat().st_mtime_ns == before
    with pytest.raises(ImpastoError, match=r"boat__sea\.png was made with another strength"):
        stylize_pairs(model, pairs, tmp_path / "made", SIZE, strength=0.5)
    write_image(make_picture(1, *SIZE), made[0].stylized, metadata={"impasto-pair": "?"})
    with pytest.raises(ImpastoError, match="does not say how it was made"):
        stylize_pairs(model, pairs, tmp_path / "made", SIZE)
    write_image(make_picture(1, *SIZE), made[0].stylized)  # somebody else's: taken as it is
    stylize_pairs(model, pairs, tmp_path / "made", SIZE)
    made[2].stylized.unlink()
    monkeypatch.setattr(model, "transfer", lambda content, *_, **__: setattr(model, "interrupted", True) or content)
    with pytest.raises(KeyboardInterrupt):
        stylize_pairs(model, pairs, tmp_path / "made", SIZE)
    assert not made[2].stylized.exists()


# --- loss networks


def test_loss_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"vgg19-slim\+heads, vgg19 or a folder"):
        load_loss_network("vgg11")
    with pytest.raises(WeightsError, match="holds no safetensors file"):
        load_loss_network(str(tmp_path))
    module = importlib.import_module("impasto.evaluation.measure")
    monkeypatch.setattr(module, "load_backbone", lambda name: load_backbone(name, pretrained=False))
    assert load_loss_network().name == "vgg19-slim+heads"
    assert load_loss_network("vgg19").name == "vgg19"


class Plain:
    """A loss network that is nothing but a callable with a name."""

    name, digest = "vgg19", "0"

    def __call__(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        return dict.fromkeys(layers, image)


def test_any_callable_is_a_loss_network(folders: tuple[Path, Path, Path]) -> None:
    found = evaluate(find_pairs(*folders), Plain(), size=SIZE)
    assert found.loss_network == "torchvision's vgg19"
    assert found.style_share > 0
