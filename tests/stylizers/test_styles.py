"""Styles: packing, mixing, measuring, recalling, and cards on disk."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import OptionError, WeightsError
from impasto.images.tensors import resize
from impasto.networks.backbone import Backbone, slim_backbone
from impasto.networks.layers import freeze
from impasto.ops.moments import moments
from impasto.options import check_weights
from impasto.stylizers.styles import (
    Style,
    compact,
    expand,
    load_style,
    measure,
    mix,
    moments_kind,
    pack,
    recall,
    save_style,
    sum_weighted,
    unpack,
)
from impasto.weights import load_weights, save_weights
from tiny import random_slim

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(3)
    network = slim_backbone(digest="0123456789abcdef")
    freeze(network)
    return network


@pytest.fixture
def style(backbone: Backbone, picture: Tensor) -> Style:
    return measure(backbone, picture, LAYERS[:2])


def other(backbone: Backbone) -> Style:
    return measure(backbone, torch.rand(1, 3, 40, 40), LAYERS[:2])


def same(one: Style, two: Style) -> bool:
    return one.kind == two.kind and one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# --- packing


def test_packing_by_hand() -> None:
    matrix = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 5.0], [3.0, 5.0, 6.0]])
    assert pack(matrix).tolist() == [1, 2, 3, 4, 5, 6]
    assert torch.equal(unpack(torch.tensor([1.0, 2, 3, 4, 5, 6]), 3), matrix)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_packing_loses_nothing(size: int) -> None:
    half = torch.randn(size, size, dtype=torch.float64)
    matrix = half + half.T
    assert len(pack(matrix)) == size * (size + 1) // 2
    assert torch.equal(unpack(pack(matrix), size), matrix)


# --- weights


def test_weights_are_divided_by_their_sum() -> None:
    assert check_weights([2, 1, 1], 3) == (0.5, 0.25, 0.25)
    assert check_weights(None, 4) == (0.25,) * 4
    assert check_weights([0, 3], 2) == (0, 1)


@pytest.mark.parametrize(
    ("weights", "count", "message"),
    [
        ([1, 2], 3, "3 styles need 3 weights, not 2"),
        ([1, -1], 2, "not 1, -1"),
        ([3, -1], 2, "not 3, -1"),
        ([0, 0], 2, "not all 0"),
        ([1, math.nan], 2, "nan"),
        ([math.nan, 1], 2, "nan"),
        ([1, math.inf], 2, "inf"),
        ([], 0, "no style"),
        (None, 0, "no style"),
    ],
)
def test_odd_weights_are_refused(weights: list[float] | None, count: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_weights(weights, count)


# --- mixing


def test_a_mixture_is_the_weighted_sum_of_all_tensors() -> None:
    values = [{"a": torch.rand(3), "b": torch.rand(4)} for _ in range(3)]
    mixed = mix([Style(v, "kind", {"title": str(i)}) for i, v in enumerate(values)], [1, 2, 5])
    for name in ("a", "b"):
        assert_close(mixed[name], (values[0][name] + 2 * values[1][name] + 5 * values[2][name]) / 8)
    assert mixed.kind == "kind"
    assert mixed.info == {"mixed": [{"title": "0"}, {"title": "1"}, {"title": "2"}], "weights": [0.125, 0.25, 0.625]}


def test_mixing_a_style_with_itself_changes_nothing(style: Style) -> None:
    assert same(mix([style]), style)
    assert same(mix([style, style]), style)
    thirds = mix([style, style, style], [5, 1, 3])
    for name in style:
        assert_close(thirds[name], style[name])


def test_two_equal_weights_give_the_mean_of_the_gram_matrices(backbone: Backbone, style: Style) -> None:
    second = other(backbone)
    for layer in LAYERS[:2]:
        one, two = recall(style, layer), recall(second, layer)
        for weights in (None, [1, 1], [7, 7]):
            mixed = recall(mix([style, second], weights), layer)
            assert_close(mixed.gram, (one.gram + two.gram) / 2)
            assert_close(mixed.mean, (one.mean + two.mean) / 2)


def test_a_mixtures_covariance_holds_the_difference_of_the_means(backbone: Backbone, style: Style) -> None:
    """Raw second moments are mixed, never covariances: the mixture is that of both pictures' positions."""
    second = other(backbone)
    one, two, mixed = (recall(s, "relu1_1") for s in (style, second, mix([style, second])))
    apart = (one.mean - two.mean)[0]
    wanted = (one.covariance + two.covariance) / 2 + torch.outer(apart, apart) / 4
    assert_close(mixed.covariance, wanted, atol=1e-6, rtol=1e-4)


def test_what_cannot_be_mixed_is_refused(style: Style) -> None:
    with pytest.raises(OptionError, match="no style to mix"):
        mix([])
    with pytest.raises(OptionError, match=r"kinds don't mix: moments/.* and channels/"):
        mix([style, Style(style, "channels/other")])
    with pytest.raises(OptionError, match="don't mix"):
        mix([style, Style({"relu1_1.mean": torch.zeros(1)}, style.kind)])
    with pytest.raises(OptionError, match="2 styles need 2 weights"):
        mix([style, style], [1])


def test_a_style_without_a_share_leaves_no_trace(backbone: Backbone, style: Style) -> None:
    assert same(mix([style, other(backbone)], [1, 0]), style)


def test_weighted_sums() -> None:
    assert sum_weighted([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])], [0.25, 2]).tolist() == [6.25, 10.5]


# --- measuring and recalling


def test_what_is_measured_is_recalled(backbone: Backbone, picture: Tensor, style: Style) -> None:
    features = backbone(picture, LAYERS[:2])
    small = backbone(resize(picture, 24, 32), LAYERS[:2])
    for layer in LAYERS[:2]:
        for coarse, wanted in ((False, moments(features[layer])), (True, moments(small[layer]))):
            found = recall(style, layer, coarse=coarse)
            assert found.count == 1
            assert_close(found.gram, wanted.second)
            assert_close(found.mean, wanted.mean)
            assert_close(found.covariance, wanted.covariance, atol=1e-6, rtol=1e-4)
            assert torch.equal(found.gram, found.gram.transpose(1, 2))
    assert set(style) == {f"{p}{n}.{m}" for p in ("", "half.") for n in LAYERS[:2] for m in ("mean", "second")}


def test_without_the_coarse_half_the_whole_is_recalled(backbone: Backbone, picture: Tensor) -> None:
    style = measure(backbone, picture, LAYERS[:1], coarse=False)
    assert set(style) == {"relu1_1.mean", "relu1_1.second"}
    assert torch.equal(recall(style, "relu1_1", coarse=True).gram, recall(style, "relu1_1").gram)


def test_a_picture_too_small_to_halve_is_measured_twice(backbone: Backbone) -> None:
    style = measure(backbone, torch.rand(1, 3, 31, 64), LAYERS)
    for layer in LAYERS:
        assert torch.equal(style[f"half.{layer}.mean"], style[f"{layer}.mean"])


def test_a_layer_that_a_style_lacks_is_named(style: Style) -> None:
    with pytest.raises(OptionError, match=r"knows nothing of relu3_1; it was made from relu1_1, relu2_1$"):
        recall(style, "relu3_1")


def test_a_kind_names_the_network_and_its_weights(backbone: Backbone, style: Style) -> None:
    assert style.kind == moments_kind(backbone) == "moments/vgg19-slim/0123456789ab"
    assert moments_kind(slim_backbone(digest="ffff")) != style.kind
    assert moments_kind(slim_backbone(heads=True, digest="0123456789abcdef")) != style.kind


def test_a_kind_tells_average_from_max_pooling(style: Style) -> None:
    """Behind the first pooling the same weights give other moments."""
    assert moments_kind(slim_backbone(pooling="average", digest="0123456789abcdef")) != style.kind


# --- cards


def test_a_card_gives_back_the_same_bits(tmp_path: Path, style: Style) -> None:
    style.info = {"title": "Die große Welle", "year": 1831}
    path = tmp_path / "card.safetensors"
    save_style(style, path)
    found = load_style(path)
    assert same(found, style)
    assert found.info == style.info
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_a_mixture_survives_as_a_card(tmp_path: Path, backbone: Backbone, style: Style) -> None:
    mixed = mix([style, other(backbone)], [2, 1])
    save_style(mixed, tmp_path / "card.safetensors")
    found = load_style(tmp_path / "card.safetensors")
    assert same(found, mixed)
    assert found.info == mixed.info


def test_a_card_leaves_out_what_no_card_can_hold(tmp_path: Path, style: Style) -> None:
    """`--start style` keeps the painting itself beside the numbers."""
    style.info = {"title": "Starry Night", "start": torch.rand(1, 3, 4, 4)}
    for kept in (style, mix([style, style])):
        save_style(kept, tmp_path / "card.safetensors")
        assert same(load_style(tmp_path / "card.safetensors"), kept)
    assert "start" in style.info
    assert load_style(tmp_path / "card.safetensors").info["mixed"] == [{"title": "Starry Night"}] * 2


def test_a_slim_card_is_small(tmp_path: Path, backbone: Backbone) -> None:
    save_style(measure(backbone, torch.rand(1, 3, 64, 64), LAYERS), tmp_path / "card.safetensors")
    assert (tmp_path / "card.safetensors").stat().st_size < 200_000


@pytest.mark.parametrize("half", [False, True])
def test_a_style_that_is_not_finite_is_not_written(tmp_path: Path, style: Style, half: bool) -> None:
    style["relu1_1.mean"][0] = math.nan
    with pytest.raises(WeightsError, match=r"relu1_1\.mean is not finite"):
        save_style(style, tmp_path / "card.safetensors", half=half)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "random", "empty", "missing", "folder"])
def test_what_is_no_card_is_reported_in_one_line(tmp_path: Path, style: Style, damage: str) -> None:
    path = tmp_path / "card.safetensors"
    save_style(style, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "random":
        path.write_bytes(torch.randint(0, 256, (4000,), dtype=torch.uint8).numpy().tobytes())
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    with pytest.raises(WeightsError, match=r"card\.safetensors") as caught:
        load_style(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{}, {"backbone": "vgg19-slim"}, {"style": 3}])
def test_a_weights_file_is_no_card(tmp_path: Path, style: Style, config: dict[str, object]) -> None:
    save_weights(style, tmp_path / "weights.safetensors", config)
    with pytest.raises(WeightsError, match="is no style card"):
        load_style(tmp_path / "weights.safetensors")


def test_a_card_of_nan_is_refused(tmp_path: Path, style: Style) -> None:
    path = tmp_path / "card.safetensors"
    save_style(style, path)
    blob = path.read_bytes()
    path.write_bytes(blob[:-4] + torch.tensor([math.nan]).numpy().tobytes())
    with pytest.raises(WeightsError, match="NaN"):
        load_style(path)


# --- cards in fp16


def test_what_is_compact_is_expanded_again(style: Style) -> None:
    packed = compact(style)
    assert {name.rsplit(".", 1)[1] for name in packed} == {"mean", "root"}
    assert sum(value.numel() for value in packed.values()) == sum(value.numel() for value in style.values())
    found = expand(packed)
    assert found.keys() == style.keys()
    for name in style:
        assert_close(found[name], style[name])


def test_a_root_is_that_of_the_covariance(style: Style) -> None:
    root = unpack(compact(style)["relu1_1.root"], 16).triu()
    assert_close(root.T @ root, recall(style, "relu1_1").covariance[0], atol=1e-5, rtol=1e-4)


def test_a_covariance_without_full_rank_has_a_root() -> None:
    """Fewer positions than channels, and channels that are always 0."""
    features = torch.cat([torch.rand(1, 6, 2, 2), torch.zeros(1, 3, 2, 2)], dim=1)
    found = moments(features)
    style = {"a.mean": found.mean[0], "a.second": pack(found.second[0])}
    assert_close(expand(compact(style))["a.second"], style["a.second"])


def test_half_a_card_says_nearly_the_same(tmp_path: Path) -> None:
    full = measure(random_slim(), torch.rand(1, 3, 64, 64), LAYERS)
    save_style(full, tmp_path / "full.safetensors")
    save_style(full, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.53 * (tmp_path / "full.safetensors").stat().st_size
    half = load_style(tmp_path / "half.safetensors")
    assert half.keys() == full.keys()
    assert {value.dtype for value in half.values()} == {torch.float32}
    for layer in LAYERS:
        wanted, found = recall(full, layer), recall(half, layer)
        assert_close(found.mean, wanted.mean, rtol=1e-3, atol=1e-6)
        assert (found.covariance - wanted.covariance).norm() < 1e-3 * wanted.covariance.norm()


# --- cards of several kinds


def both(backbone: Backbone, image: Tensor, title: str = "Sea") -> Style:
    """A painting in two kinds."""
    average = slim_backbone(pooling="average", digest=backbone.digest)
    average.load_state_dict(backbone.state_dict())
    one, two = measure(backbone, image, LAYERS[:2], coarse=False), measure(average, image, LAYERS[:2])
    info = {"title": title}
    return Style(one, one.kind, info, [Style(two, two.kind, info)])


@pytest.mark.parametrize("half", [False, True])
def test_a_card_keeps_all_kinds(tmp_path: Path, backbone: Backbone, picture: Tensor, half: bool) -> None:
    style = both(backbone, picture)
    save_style(style, tmp_path / "card.safetensors", half=half)
    found = load_style(tmp_path / "card.safetensors")
    assert list(found.kinds) == list(style.kinds) == [moments_kind(backbone), f"{moments_kind(backbone)}/average"]
    for kind, wanted in style.kinds.items():
        assert found.kinds[kind].keys() == wanted.keys()
        assert found.kinds[kind].info == {"title": "Sea"}
        for name in wanted:
            assert_close(found.kinds[kind][name], wanted[name], rtol=2e-3 if half else 0, atol=2e-3 if half else 0)


def test_a_card_of_one_kind_says_nothing_of_others(tmp_path: Path, style: Style) -> None:
    save_style(style, tmp_path / "card.safetensors")
    assert "others" not in load_weights(tmp_path / "card.safetensors").config
    assert load_style(tmp_path / "card.safetensors").others == ()


def test_a_mixture_has_the_kinds_that_all_have(backbone: Backbone, picture: Tensor) -> None:
    one, two = both(backbone, picture), both(backbone, torch.rand(1, 3, 40, 40), "Sky")
    mixed = mix([one, two], [1, 3])
    assert list(mixed.kinds) == list(one.kinds)
    for kind, found in mixed.kinds.items():
        assert same(found, mix([Style(s.kinds[kind], kind) for s in (one, two)], [1, 3]))
        assert found.info["mixed"] == [{"title": "Sea"}, {"title": "Sky"}]
    second = two.others[0]
    for styles in ([one, second], [second, one]):
        assert list(mix(styles).kinds) == [second.kind]


@pytest.mark.parametrize("others", ["moments", [3], ["moments/lost"], {"1": "moments"}])
def test_others_that_are_none_are_reported_in_one_line(tmp_path: Path, style: Style, others: object) -> None:
    path = tmp_path / "card.safetensors"
    save_weights(style, path, {"style": style.kind, "others": others})
    with pytest.raises(WeightsError, match=r"card\.safetensors is (no|a damaged) style card"):
        load_style(path)


@pytest.mark.parametrize("damage", ["lost", "short"])
def test_a_root_that_does_not_fit_is_reported_in_one_line(tmp_path: Path, style: Style, damage: str) -> None:
    values = compact(style)
    values["relu1_1.mean"] = values["relu1_1.mean"][:3]
    if damage == "lost":
        del values["relu1_1.mean"]
    save_weights(values, tmp_path / "card.safetensors", {"style": style.kind})
    with pytest.raises(WeightsError, match="damaged style card"):
        load_style(tmp_path / "card.safetensors")


def test_an_unknown_name_gets_the_nearest_style() -> None:
    with pytest.raises(WeightsError, match=r"no style 'stary-night' \(did you mean starry-night"):
        load_style("stary-night")
