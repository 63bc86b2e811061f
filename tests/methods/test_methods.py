"""What every method promises, over tiny random weights; see tests/tiny.py for how a new method joins."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import OptionError, WeightsError
from impasto.feedforward.stages import live_moments
from impasto.images.tensors import Floats
from impasto.methods import DEFAULT_METHOD, find_method, list_methods, load
from impasto.ops.moments import Moments
from impasto.stylizers.base import Stylizer
from impasto.stylizers.fixed_styles import LearnedStyles
from impasto.stylizers.one_pass import OnePass
from impasto.stylizers.styles import Style, load_style, mix, save_style
from impasto.weights import save_weights
from tiny import painting, styles_for, tiny

METHODS = list_methods()


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> Stylizer:
    return tiny(request.param)


@pytest.fixture
def style(method: Stylizer) -> Style:
    return known(method, one(method))


def one(method: Stylizer) -> Tensor | Style:
    return styles_for(method)[0]


def other(method: Stylizer) -> Tensor | Style:
    return styles_for(method)[1]


def known(method: Stylizer, style: Tensor | Style) -> Style:
    return style if isinstance(style, Style) else method.encode_style(style)


# --- what it is


def test_the_default_is_a_method() -> None:
    assert DEFAULT_METHOD in METHODS
    assert find_method() is find_method(DEFAULT_METHOD)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_called_like_its_module_and_documents_itself(name: str) -> None:
    found = find_method(name)
    assert found.name == name
    assert found.__doc__
    assert "Departs from" in found.__doc__
    assert "default" in found.presets
    for option, field in found.Options.model_fields.items():
        assert field.description, f"{name}'s option {option} has no help"
        assert not field.is_required(), f"{name}'s option {option} has no default"


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_is_valid(name: str) -> None:
    found = find_method(name)
    for values in found.presets.values():
        found.Options.parse(dict(values), name)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_does_not_know_is_refused_before_any_weights_are_read(name: str) -> None:
    with pytest.raises(OptionError, match=rf"{name} has no option 'colour_of_my_hat'; it has: "):
        load(name, colour_of_my_hat="red")
    with pytest.raises(OptionError, match=rf"{name} has no preset 'nothing'; it has: .*default"):
        load(name, preset="nothing")


@pytest.mark.parametrize("name", [name for name in METHODS if "weights" in find_method(name).Options.model_fields])
def test_a_file_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    save_weights({"a": torch.ones(1)}, tmp_path / "odd.safetensors", {})
    with pytest.raises(WeightsError, match=f"odd.safetensors was not made by `impasto train {name}`"):
        load(name, weights=str(tmp_path / "odd.safetensors"))


def test_an_unknown_method_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(OptionError, match=r"there is no method 'nothing'; there are: .*gatys"):
        load("nothing")


def test_a_method_without_a_tiny_maker_fails_loudly() -> None:
    with pytest.raises(pytest.fail.Exception, match="'nothing' has no tiny maker"):
        tiny("nothing")


def test_options_are_frozen(method: Stylizer) -> None:
    field = next(iter(type(method.options).model_fields))
    with pytest.raises(ValueError, match="frozen"):
        setattr(method.options, field, None)


def test_weights_are_accounted_for(method: Stylizer) -> None:
    assert method.digests
    assert all(isinstance(value, str) and value for value in (*method.digests, *method.digests.values()))


# --- what it gives


def check(result: Tensor, height: int, width: int) -> None:
    assert result.shape == (1, 3, height, width)
    assert result.dtype == torch.float32
    assert not result.requires_grad
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_picture_of_the_contents_size_in_range(method: Stylizer, picture: Tensor) -> None:
    result = method.stylize(picture, one(method))
    check(result, 48, 64)
    assert (result - picture).abs().mean() > 1e-3


@pytest.mark.parametrize("size", [(97, 131), (131, 97), (16, 16), (17, 40)])
def test_any_size_from_16_px(method: Stylizer, size: tuple[int, int]) -> None:
    check(method.stylize(torch.rand(1, 3, *size), other(method)), *size)


def test_a_painting_of_any_size(method: Stylizer, picture: Tensor) -> None:
    if isinstance(method, LearnedStyles):
        advice = "impasto adapt" if method.name == "metastyle" else "first, second.*--style"
        with pytest.raises(OptionError, match=rf"{method.name} can't look at a painting: .*{advice}"):
            method.stylize(picture, painting())
        return
    for height, width in ((16, 16), (97, 33), (5, 200)):
        check(method.stylize(picture, painting(height, width)), 48, 64)


def test_flat_pictures_give_no_nan(method: Stylizer, picture: Tensor) -> None:
    for flat in (torch.zeros(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.5), torch.ones(1, 3, 32, 32)):
        if not isinstance(method, LearnedStyles):
            check(method.stylize(picture, flat), 48, 64)
        check(method.stylize(flat, one(method)), 32, 32)


def test_the_inputs_are_left_as_they_were(method: Stylizer, picture: Tensor) -> None:
    content, style = picture.clone(), one(method)
    before = style.clone() if isinstance(style, Tensor) else dict(style)
    method.stylize(content, style)
    assert torch.equal(content, picture)
    assert torch.equal(style, before) if isinstance(style, Tensor) else dict(style) == before


def test_the_same_seed_gives_the_same_bits(method: Stylizer, picture: Tensor, style: Style) -> None:
    first, second = (method.transfer(picture, style, seed=4) for _ in range(2))
    assert torch.equal(first, second)


def test_stylize_is_encoding_then_transfer(method: Stylizer, picture: Tensor, style: Style) -> None:
    assert torch.equal(method.stylize(picture, one(method)), method.transfer(picture, style))
    assert torch.equal(method.stylize(picture, style), method.transfer(picture, style))


def test_two_makes_with_the_same_weights_agree(method: Stylizer, picture: Tensor) -> None:
    again = tiny(method.name)
    assert torch.equal(again.stylize(picture, one(method)), method.stylize(picture, one(method)))


# --- strength


def test_strength_0_is_the_photo(method: Stylizer, picture: Tensor) -> None:
    assert torch.equal(method.stylize(picture, one(method), strength=0), picture)
    assert torch.equal(method.transfer(picture, method.encode_styles([one(method)], 64)[0], strength=0), picture)
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., :30] = 1
    found = method.stylize(picture, one(method), other(method), masks=[mask, 1 - mask], strength=0)
    assert torch.equal(found, picture)


def test_a_little_strength_is_near_the_photo(method: Stylizer, picture: Tensor) -> None:
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., :30] = 1
    for options in ({}, {"masks": [mask]}):
        found = method.stylize(picture, one(method), strength=1e-3, **options)  # type: ignore[arg-type]
        assert 0 < (found - picture).abs().max() <= 2e-2, options


def test_strength_counts(method: Stylizer, picture: Tensor, style: Style) -> None:
    none, half, full = (method.transfer(picture, style, strength=s) for s in (0.0, 0.5, 1.0))
    assert (half - none).abs().mean() > 1e-3
    assert (half - full).abs().mean() > 1e-3


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_a_strength_out_of_range_is_refused(method: Stylizer, picture: Tensor, strength: float) -> None:
    with pytest.raises(OptionError, match="strength is from 0 to 1"):
        method.stylize(picture, one(method), strength=strength)


# --- several styles


def test_mixing_a_style_with_itself_changes_nothing(method: Stylizer, picture: Tensor, style: Style) -> None:
    once = method.stylize(picture, style)
    assert torch.equal(method.stylize(picture, style, style), once)
    assert_close(method.stylize(picture, style, style, weights=[3, 5]), once, atol=1e-3, rtol=0)


def test_the_whole_weight_on_one_style_is_that_style(method: Stylizer, picture: Tensor, style: Style) -> None:
    found = method.stylize(picture, style, known(method, other(method)), weights=[2, 0])
    assert_close(found, method.stylize(picture, style), atol=1e-4, rtol=0)


def test_weights_are_relative_and_count(method: Stylizer, picture: Tensor) -> None:
    first, second = styles_for(method)
    found = method.stylize(picture, first, second, weights=[1, 3])
    assert torch.equal(found, method.stylize(picture, first, second, weights=[2, 6]))
    assert not torch.equal(found, method.stylize(picture, first, second, weights=[3, 1]))
    assert torch.equal(method.stylize(picture, first, second), method.stylize(picture, first, second, weights=[1, 1]))


def test_the_order_of_styles_does_not_matter(method: Stylizer, picture: Tensor) -> None:
    forth = method.stylize(picture, one(method), other(method), weights=[1, 3])
    back = method.stylize(picture, other(method), one(method), weights=[3, 1])
    assert_close(back, forth, atol=1e-3, rtol=0)


def test_odd_weights_are_refused(method: Stylizer, picture: Tensor, style: Style) -> None:
    for weights, message in (([1], "2 styles need 2 weights"), ([1, -1], "at least 0"), ([0, 0], "not all 0")):
        with pytest.raises(OptionError, match=message):
            method.stylize(picture, style, style, weights=weights)
    with pytest.raises(OptionError, match="no style"):
        method.stylize(picture)


# --- cards


def test_a_style_survives_a_card(method: Stylizer, picture: Tensor, style: Style, tmp_path: Path) -> None:
    save_style(style, tmp_path / "card.safetensors")
    card = load_style(tmp_path / "card.safetensors")
    assert card.kind == style.kind == method.style_kind
    assert torch.equal(method.stylize(picture, card), method.stylize(picture, style))
    mixed = mix([card, known(method, other(method))], [1, 2])
    save_style(mixed, tmp_path / "mixed.safetensors")
    found = method.stylize(picture, load_style(tmp_path / "mixed.safetensors"))
    assert torch.equal(found, method.transfer(picture, mixed))


def test_a_card_of_another_kind_is_refused(method: Stylizer, picture: Tensor, style: Style) -> None:
    foreign = Style(style, "moments/another-network/000000000000")
    with pytest.raises(OptionError, match=f"holds moments.*, but {method.name} needs"):
        method.stylize(picture, foreign)
    with pytest.raises(OptionError, match="needs"):
        method.stylize(picture, one(method), foreign)


def test_of_a_card_of_several_kinds_the_one_that_fits_is_taken(
    method: Stylizer, picture: Tensor, style: Style, tmp_path: Path
) -> None:
    foreign = {"relu1_1.mean": torch.ones(3)}
    several = Style(foreign, "moments/another-network/000000000000", {"title": "Sea"}, [Style(foreign, "odd"), style])
    save_style(several, tmp_path / "card.safetensors")
    wanted = method.stylize(picture, style)
    for card in (several, load_style(tmp_path / "card.safetensors")):
        assert method.accept_style(card).kind == method.style_kind
        assert torch.equal(method.stylize(picture, card), wanted)
    none = Style(foreign, several.kind, {}, several.others[:1])
    with pytest.raises(
        OptionError,
        match=f"holds moments.* and odd, but {method.name} needs .*: (name the painting|name one of|impasto adapt)",
    ):
        method.accept_style(none)


# --- masks


def test_outside_a_mask_nothing_changes(method: Stylizer, picture: Tensor) -> None:
    mask = torch.zeros(1, 1, 48, 64)
    mask[..., 8:40, :32] = 1
    found = method.stylize(picture, one(method), masks=[mask])
    check(found, 48, 64)
    assert torch.equal(torch.where(mask == 0, found, picture), picture)
    assert (found - picture)[..., 8:40, :32].abs().mean() > 1e-3


def test_a_white_mask_is_none(method: Stylizer, picture: Tensor, style: Style) -> None:
    white = method.stylize(picture, style, masks=[torch.ones(1, 1, 12, 16)])
    assert_close(white, method.stylize(picture, style), atol=1e-4, rtol=0)


def test_a_black_mask_leaves_the_content(method: Stylizer, picture: Tensor, style: Style) -> None:
    assert torch.equal(method.stylize(picture, style, masks=[torch.zeros(1, 1, 48, 64)]), picture)


# --- what is refused


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(method: Stylizer, picture: Tensor, bad: float) -> None:
    broken = picture.clone()
    broken[0, 1, 3, 5] = bad
    with pytest.raises(OptionError, match="the content holds NaN or infinity"):
        method.stylize(broken, one(method))
    with pytest.raises(OptionError, match="the style holds NaN or infinity"):
        method.stylize(picture, broken)


def test_a_batch_is_refused_or_equals_its_items(method: Stylizer, picture: Tensor) -> None:
    batch = torch.cat([picture, picture.flip(3)])
    try:
        found = method.stylize(batch, one(method))
    except OptionError:
        return
    for i in range(2):
        assert_close(found[i : i + 1], method.stylize(batch[i : i + 1], one(method)), atol=1e-4, rtol=0)


def test_pictures_and_masks_may_be_bare(method: Stylizer, picture: Tensor) -> None:
    """Pictures of (3, H, W) give the same as those of (1, 3, H, W), masks of (H, W) as those of (1, 1, H, W)."""
    mask = torch.linspace(0, 1, 64).expand(48, 64)
    first = one(method)
    wanted = method.stylize(picture, first, masks=[mask[None, None]])
    bare = first[0] if isinstance(first, Tensor) else first
    found = method.stylize(picture[0], bare, masks=[mask])
    assert found.shape == (3, 48, 64)
    assert torch.equal(found, wanted[0])


@pytest.mark.parametrize(
    "shape",
    [(1, 48, 64), (4, 48, 64), (1, 1, 48, 64), (1, 4, 48, 64), (48, 64)],
    ids=["bare-grey", "bare-alpha", "grey", "alpha", "2d"],
)
def test_other_shapes_are_refused(method: Stylizer, picture: Tensor, shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"\(1, 3, H, W\)"):
        method.stylize(torch.rand(shape), one(method))
    with pytest.raises(OptionError, match=r"\(1, 3, H, W\)"):
        method.stylize(picture, torch.rand(shape))


def test_bytes_are_refused_and_double_precision_is_taken(method: Stylizer, picture: Tensor) -> None:
    with pytest.raises(OptionError, match="uint8"):
        method.stylize((picture * 255).to(torch.uint8), one(method))
    first = one(method)
    found = method.stylize(picture.double(), first.double() if isinstance(first, Tensor) else first)
    check(found, 48, 64)
    assert torch.equal(found, method.stylize(picture, one(method)))


@pytest.mark.parametrize(
    "mask", [torch.rand(1, 48, 64), torch.rand(1, 3, 48, 64), torch.full((1, 1, 48, 64), math.nan)]
)
def test_odd_masks_are_refused(method: Stylizer, picture: Tensor, mask: Tensor) -> None:
    with pytest.raises(OptionError, match="a mask"):
        method.stylize(picture, one(method), masks=[mask])
    with pytest.raises(OptionError, match="outside"):
        method.stylize(picture, one(method), masks=[torch.full((1, 1, 48, 64), 2.0)])


def test_as_many_masks_as_styles_or_one(method: Stylizer, picture: Tensor, style: Style) -> None:
    mask = torch.ones(1, 1, 48, 64)
    with pytest.raises(OptionError, match="one style needs one mask, not 2"):
        method.stylize(picture, style, masks=[mask, mask])


# --- sizes


def test_working_sizes(method: Stylizer) -> None:
    assert method.working_size(600, 900, 300) == (200, 300)
    assert method.working_size(600, 900, (64, 80)) == (64, 80)
    assert method.working_size(100, 150, 300) == (100, 150)  # never enlarged
    assert method.working_size(10, 1000, 100) == (1, 100)
    most = (600, 900) if method.one_pass else (341, 512)
    assert method.working_size(600, 900, None) == most
    assert method.working_size(300, 200, None) == (300, 200)


@pytest.mark.parametrize("size", [(1, 1), (1, 256), (17, 5)])
def test_the_size_that_goes_in_comes_out(method: Stylizer, style: Style, size: tuple[int, int]) -> None:
    photo = painting(*size)
    check(method.stylize(photo, style), *size)
    check(method.stylize(photo, style, style, masks=[torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 8, 8)]), *size)
    if isinstance(method, OnePass):
        target = Floats(torch.zeros(1, 3, *size))
        method.paint(Floats(photo), target, style)
        assert torch.equal(target.image, method.stylize(photo, style))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 3)])
def test_paintings_of_any_size_and_of_one_colour(method: Stylizer, picture: Tensor, size: tuple[int, int]) -> None:
    if isinstance(method, LearnedStyles):
        pytest.skip("it looks at no paintings")
    for image in (painting(*size), torch.full((1, 3, 20, 20), 0.3), torch.zeros(1, 3, *size)):
        check(method.stylize(picture, image), 48, 64)
    check(method.stylize(picture, method.encode_style(painting(*size))), 48, 64)


@pytest.mark.parametrize("name", [name for name in METHODS if find_method(name).one_pass])
def test_the_contents_moments_can_come_from_elsewhere(name: str, picture: Tensor) -> None:
    """Those of all features give the same picture; those of another photo another one."""
    method = tiny(name)
    plain = method.stylize(picture, one(method))
    taken: dict[str, Moments] = {}

    def take(layer: str, features: Tensor, mask: Tensor | None, *, full: bool) -> Moments:
        taken[layer] = live_moments(layer, features, mask, full=full)
        return taken[layer]

    method.moments_of = take
    assert torch.equal(method.stylize(picture, one(method)), plain)
    method.stylize(painting(40, 52, seed=6).flip(3) ** 3, one(method))
    frozen = dict(taken)
    method.moments_of = lambda layer, features, mask, *, full: frozen[layer]
    assert (method.stylize(picture, one(method)) - plain).abs().mean() > 1e-3
