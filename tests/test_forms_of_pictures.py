"""`stylize` takes photos and paintings in every form that Python programs have, and gives results back in the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor

import impasto
from impasto.images.files import write_image
from impasto.methods import STILL_METHOD
from impasto.runs import one_call
from impasto.stylizers.base import Stylizer
from impasto.stylizers.fixed_styles import LearnedStyles
from tiny import painting, tiny


@pytest.fixture
def model() -> Stylizer:
    return tiny("adain")


@pytest.fixture
def bytes_(picture: Tensor) -> Any:
    return (picture[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def as_floats(result: Any) -> Any:
    """Any result as (H, W, C) floats."""
    if isinstance(result, Tensor):
        return result.reshape(result.shape[-3:]).permute(1, 2, 0).numpy()
    found = np.asarray(result)
    return found / {"uint8": 255, "uint16": 65535}.get(str(found.dtype), 1)


def as_path(value: Any, folder: Path) -> Path:
    Image.fromarray(value).save(folder / "photo.png")
    return folder / "photo.png"


FORMS: dict[str, tuple[Callable[[Any, Path], Any], type]] = {
    "path": (as_path, Image.Image),
    "text": (lambda value, folder: str(as_path(value, folder)), Image.Image),
    "Pillow": (lambda value, folder: Image.fromarray(value), Image.Image),
    "uint8": (lambda value, folder: value, np.ndarray),
    "uint16": (lambda value, folder: value.astype(np.uint16) * 257, np.ndarray),
    "float32": (lambda value, folder: value.astype(np.float32) / np.float32(255), np.ndarray),
    "float64": (lambda value, folder: value / 255, np.ndarray),
    "tensor": (lambda value, folder: torch.from_numpy(value / np.float32(255)).permute(2, 0, 1)[None], Tensor),
    "plain tensor": (lambda value, folder: torch.from_numpy(value / np.float32(255)).permute(2, 0, 1), Tensor),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_photo_comes_back_in_its_own_form(model: Stylizer, bytes_: Any, tmp_path: Path, form: str) -> None:
    make, kind = FORMS[form]
    given = make(bytes_, tmp_path)
    result = model.stylize(given, painting())
    assert isinstance(result, kind)
    if isinstance(given, np.ndarray | Tensor):
        assert (result.dtype, result.shape) == (given.dtype, given.shape)
    wanted = model.stylize(FORMS["tensor"][0](bytes_, tmp_path), painting())
    assert np.abs(as_floats(result) - as_floats(wanted)).max() < 0.6 / 255


@pytest.mark.parametrize("form", FORMS)
def test_a_painting_may_have_any_form(model: Stylizer, picture: Tensor, bytes_: Any, tmp_path: Path, form: str) -> None:
    make, _ = FORMS[form]
    wanted = model.stylize(painting(), FORMS["tensor"][0](bytes_, tmp_path))
    assert torch.allclose(model.stylize(painting(), make(bytes_, tmp_path)), wanted, atol=1e-5)


@pytest.mark.parametrize("method", ["adain", "gatys", "nnst"])
def test_a_painting_is_encoded_in_any_form(bytes_: Any, tmp_path: Path, method: str) -> None:
    model = tiny(method)
    wanted = model.encode_style(FORMS["tensor"][0](bytes_, tmp_path))
    for given in (as_path(bytes_, tmp_path), bytes_):
        found = model.encode_style(given)
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[name], wanted[name], atol=1e-4) for name in wanted)
    with pytest.raises(impasto.ImpastoError, match="a path, a Pillow image"):
        model.encode_style(7)


def test_transparency_is_kept(model: Stylizer, bytes_: Any, tmp_path: Path) -> None:
    cover = np.linspace(0, 255, bytes_.shape[1]).astype(np.uint8)[None].repeat(bytes_.shape[0], 0)
    clear = np.dstack([bytes_, cover])
    for given in (clear, Image.fromarray(clear), as_path(clear, tmp_path)):
        result = np.asarray(model.stylize(given, painting()))
        assert result.shape == clear.shape
        assert np.array_equal(result[..., 3], cover)
    hidden = clear.copy()
    hidden[:, 0, :3] = 255 - hidden[:, 0, :3]  # nothing can be seen there
    assert np.array_equal(model.stylize(hidden, painting()), model.stylize(clear, painting()))


def test_grey_becomes_colour(model: Stylizer, bytes_: Any) -> None:
    grey = bytes_[..., 1]
    assert model.stylize(grey, painting()).shape == bytes_.shape
    assert model.stylize(Image.fromarray(grey), painting()).mode == "RGB"


def test_a_pillow_result_says_that_it_is_srgb(model: Stylizer, bytes_: Any, tmp_path: Path) -> None:
    result = model.stylize(Image.fromarray(bytes_), painting())
    result.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as saved:
        assert saved.info["icc_profile"] == result.info["icc_profile"]
    assert ImageCms.isIntentSupported(
        ImageCms.getOpenProfile(io.BytesIO(result.info["icc_profile"])),
        ImageCms.Intent.PERCEPTUAL,
        ImageCms.Direction.INPUT,
    )


def test_sizes_are_numbers_text_or_pairs(model: Stylizer, bytes_: Any) -> None:
    assert model.stylize(bytes_, painting(), size=32).shape == (24, 32, 3)
    assert model.stylize(bytes_, painting(), size="40x20").shape == (20, 40, 3)
    assert model.stylize(bytes_, painting(), size=(20, 40)).shape == (20, 40, 3)
    with pytest.raises(impasto.ImpastoError, match="too small"):
        model.stylize(bytes_, painting(), size=3)


def test_colours_are_kept(model: Stylizer, picture: Tensor) -> None:
    grey = picture.mean(1, keepdim=True).expand_as(picture).contiguous()
    kept = model.stylize(grey, painting(), keep_color="luminance")
    assert float((kept.amax(1) - kept.amin(1)).max()) < 1e-5
    assert not torch.equal(model.stylize(picture, painting(), keep_color="covariance"), kept)
    with pytest.raises(impasto.ImpastoError, match="give a picture"):
        model.stylize(picture, model.encode_style(painting()), keep_color="histogram")


def test_masks_may_have_any_form_and_one_needs_no_list(model: Stylizer, picture: Tensor, tmp_path: Path) -> None:
    half = np.zeros((48, 64), bool)
    half[:, 32:] = True
    wanted = model.stylize(picture, painting(), masks=[torch.from_numpy(half).float()[None, None]])
    white = Image.fromarray(half.astype(np.uint8) * 255)
    white.save(tmp_path / "mask.png")
    for mask in (half, half.astype(np.float32), white, tmp_path / "mask.png", torch.from_numpy(half).float()):
        assert torch.equal(model.stylize(picture, painting(), masks=mask), wanted)
    assert torch.allclose(wanted[..., :32], picture[..., :32])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.full((20, 20, 3), 128.0), "divide"),
        (np.zeros((20, 20, 3), np.int64), "uint8, uint16 or floats"),
        (np.zeros((3, 20, 20), np.uint8), "shape"),
        (np.full((20, 20, 3), np.nan), "NaN"),
        (7, "a path, a Pillow image"),
        ("no such file.png", "no such file.png"),
        (torch.zeros(2, 3, 20, 20), "float tensor"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(model: Stylizer, value: Any, words: str) -> None:
    with pytest.raises(impasto.ImpastoError, match=words) as caught:
        model.stylize(value, painting())
    assert "\n" not in str(caught.value)


def test_styles_are_asked_for_by_name(picture: Tensor) -> None:
    model = impasto.load("adain")
    named = model.stylize(picture, "starry-night")
    assert torch.equal(named, model.stylize(picture, impasto.load_style("starry-night")))
    with pytest.raises(impasto.ImpastoError, match="did you mean starry-night"):
        model.stylize(picture, "stary-night")
    learned = tiny("johnson")
    assert isinstance(learned, LearnedStyles)
    assert torch.equal(learned.stylize(picture, "second"), learned.stylize(picture, learned.learned["second"]))


@pytest.mark.parametrize("method", ["swift", "adain", "wct", "metanet"])
def test_an_encoded_painting_mixes_with_a_built_in_style(picture: Tensor, method: str) -> None:
    model = impasto.load(method, precision="fp32")
    mine, built_in = model.encode_style(painting()), impasto.load_style("great-wave")
    mixed = impasto.mix([mine, built_in], [2, 1])
    wanted = model.stylize(picture, painting(), built_in, weights=[2, 1])
    assert torch.allclose(model.stylize(picture, mixed), wanted, atol=1e-4)
    assert torch.allclose(model.stylize(picture, impasto.mix([built_in, mine], [1, 2])), wanted, atol=1e-4)
    again = impasto.mix([mixed, built_in])
    assert torch.isfinite(model.stylize(picture, again)).all()


def test_styles_that_no_model_can_join_say_what_to_do() -> None:
    mine, other = tiny("adain").encode_style(painting()), tiny("sanet").encode_style(painting())
    with pytest.raises(impasto.ImpastoError, match=r"give all of them to model.stylize"):
        impasto.mix([mine, other])


def test_one_call_does_what_the_model_does(
    picture: Tensor, bytes_: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def load(method: str | None, **options: Any) -> Stylizer:
        asked.append({"method": method, **options})
        return tiny(method or STILL_METHOD)

    monkeypatch.setattr(one_call, "load", load)
    write_image(painting(), tmp_path / "painting.png")
    result = impasto.stylize(as_path(bytes_, tmp_path), tmp_path / "painting.png", strength=0.5, size=32, device="cpu")
    wanted = tiny(STILL_METHOD).stylize(Image.fromarray(bytes_), tmp_path / "painting.png", strength=0.5, size=32)
    assert np.array_equal(np.asarray(result), np.asarray(wanted))
    assert asked == [{"method": STILL_METHOD, "preset": "default", "device": "cpu", "runtime": "torch"}]
    large = torch.rand(1, 3, 40, 600)
    assert impasto.stylize(large, painting(), method="gatys", device="cpu", steps=9).shape == (1, 3, 34, 512)
    assert asked[-1]["steps"] == 9


def test_the_public_names_are_there_for_tab() -> None:
    assert [name for name in dir(impasto) if not name.startswith("__")] == sorted(impasto.__all__)


def test_styles_and_models_introduce_themselves_shortly(model: Stylizer) -> None:
    assert repr(impasto.load_style("starry-night")).startswith("<Style The Starry Night, Vincent van Gogh: moments/")
    assert len(repr(impasto.load_style("starry-night"))) < 160
    assert repr(model.encode_style(painting())).startswith("<Style: adain/")
    assert repr(impasto.load("gatys", steps=7)) == "<Gatys device='cpu', preset='default', steps=7>"
