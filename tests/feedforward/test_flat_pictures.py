"""Pictures with hardly any detail: half precision paints them as float32 does, and nothing is blown up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from impasto.feedforward.limits import GRID, PATCH, has_fine_detail
from impasto.images.tensors import Floats
from impasto.methods import load
from impasto.methods.sanet import standardize
from impasto.methods.wct import colour
from impasto.ops.cpu_kernels import in_last, mix_channels, round_scale, scale_channels
from impasto.ops.moments import adaptive_instance_norm, moments, normalize
from impasto.stylizers.video_coherence import Coherence
from tiny import narrow, painting

HALF = [torch.bfloat16, torch.float16]
LEVEL = 9.3


def levels(image: Tensor) -> Tensor:
    """As a file of 8 bits a channel gives it."""
    return image.mul(255).round() / 255


def flat(*color: float, height: int = 80, width: int = 96) -> Tensor:
    return torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, height, width).contiguous()


def dim(share: float, base: float) -> Tensor:
    return levels(base + share * painting(80, 96, seed=3))


def dotted() -> Tensor:
    image = flat(0.3, 0.4, 0.5)
    image[..., 40, 50] = 1
    return image


def letterboxed() -> Tensor:
    image = painting(80, 96, seed=3)
    image[..., :20, :] = image[..., -20:, :] = 0
    return image


PICTURES = {
    "black": flat(0.0, 0.0, 0.0),
    "grey": flat(0.5, 0.5, 0.5),
    "near flat": levels(flat(0.5, 0.5, 0.5) + torch.linspace(0, 2 / 255, 96)),
    "dot": dotted(),
    "dark": dim(0.05, 0.0),
    "faded": dim(0.05, 0.9),
    "letterboxed": letterboxed(),
    "gradient": levels(torch.linspace(0, 1, 96).expand(1, 3, 80, 96)),
}


# --- the arithmetic


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("last", [True, False], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_flat_channel_is_normalised_to_its_shift(dtype: torch.dtype, last: bool, batch: int) -> None:
    x = torch.full((batch, 8, 12, 10), LEVEL).to(dtype)
    x = in_last(x) if last else x
    shift = torch.linspace(-1, 1, 8)[None]
    found = adaptive_instance_norm(x, shift, torch.ones(batch, 8))
    assert found.dtype == dtype
    assert (found.float() - shift[:, :, None, None]).abs().max() <= 0.02  # was 1.25 off


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF], ids=str)
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("asked", [True, False], ids=["with gradients", "without"])
def test_scaling_rounds_its_outcome_alone(dtype: torch.dtype, relu: bool, asked: bool) -> None:
    x = in_last(torch.randn(1, 8, 12, 10).mul(1e-3).add(LEVEL).to(dtype)).requires_grad_(asked)
    scale = round_scale(torch.full((1, 8), 311.7, dtype=torch.float64), x)
    shift = -x.detach().double().mean((0, 2, 3)) * scale
    wanted = x.detach().double() * scale[:, :, None, None] + shift[:, :, None, None]
    found = scale_channels(x, scale, shift, relu=relu).detach()
    wanted = wanted.relu() if relu else wanted
    assert found.dtype == dtype
    summed = 4 * torch.finfo(torch.float32).eps * LEVEL * 311.7
    assert (found.double() - wanted).abs().max() <= 2 * torch.finfo(dtype).eps * wanted.abs().max() + summed


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("asked", [True, False], ids=["with gradients", "without"])
def test_a_map_of_channels_takes_the_mean_off_first(dtype: torch.dtype, asked: bool) -> None:
    x = in_last(torch.full((1, 8, 12, 10), LEVEL).to(dtype)).requires_grad_(asked)
    mean, target = x.detach()[0, :, 0, 0].double(), torch.linspace(-1, 1, 8).double()
    found = mix_channels(x, 300 * torch.rand(8, 8).double(), mean, target).detach()
    assert found.dtype == dtype
    assert (found.double() - target[:, None, None]).abs().max() <= 0.02


def test_whitening_attention_and_losses_too() -> None:
    x = in_last(torch.full((1, 8, 12, 10), LEVEL).bfloat16())
    style = moments(torch.rand(1, 8, 20, 20))
    assert (colour(x, style, "transport").float() - style.mean[..., None, None]).abs().max() <= 0.02
    assert standardize(x).abs().max() <= 0.02
    assert normalize(x).abs().max() <= 0.02


# --- which pictures need full precision


@pytest.mark.parametrize("name", PICTURES)
def test_what_has_hardly_any_detail_is_found(name: str) -> None:
    assert has_fine_detail(Floats(PICTURES[name])) == (name == "letterboxed")


def test_a_region_without_detail_is_found(picture: Tensor) -> None:
    image, mask = picture.clone(), torch.zeros(1, 1, 48, 64)
    image[..., :32] = 0.5
    mask[..., :32] = 1
    assert has_fine_detail(Floats(image))
    assert not has_fine_detail(Floats(image), [mask])
    assert has_fine_detail(Floats(image), [1 - mask])
    assert not has_fine_detail(Floats(image), [1 - mask, mask])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (257, 1), (700, 900)])
def test_any_size_is_looked_at(size: tuple[int, int]) -> None:
    seen = 0

    class Counted(Floats):
        def read(self, window: object) -> Tensor:
            nonlocal seen
            part = super().read(window)  # type: ignore[arg-type]
            seen += part.numel() // 3
            return part

    assert not has_fine_detail(Counted(torch.zeros(1, 3, *size)))
    assert 0 < seen <= (GRID * PATCH) ** 2
    assert has_fine_detail(Floats(torch.rand(1, 3, *size))) == (size != (1, 1))


# --- the methods


@pytest.mark.parametrize(
    "name", ["swift", "metanet", "wct", "adain", "sanet", "conditional_norm", "johnson", "stylebank"]
)
def test_shipped_methods_paint_them_as_in_full_precision(name: str) -> None:
    half, full = load(name, precision="bf16"), load(name, precision="fp32")
    learned = getattr(full, "learned", {})
    style = next(iter(learned.values())) if learned else full.encode_style(painting(64, 64))
    for title, image in PICTURES.items():
        error = (half.stylize(image, style) - full.stylize(image, style)).square().mean()
        assert error <= 1e-4, title  # 40 dB


def test_a_flat_painting_is_the_same_style() -> None:
    half, full = load("swift", precision="bf16"), load("swift", precision="fp32")
    image = PICTURES["near flat"]
    for name, wanted in full.encode_style(image).items():
        assert torch.equal(half.encode_style(image)[name], wanted)


# --- videos


@pytest.mark.parametrize("color", [(0.0, 0.0, 0.0), (0.9, 0.8, 0.1)], ids=["black", "yellow"])
def test_a_shot_after_a_flat_one_is_as_it_would_be_alone(color: tuple[float, float, float]) -> None:
    method = narrow("adain")
    style = method.encode_style(painting())
    base = flat(*color, height=32, width=48) * 0.9
    shot = [levels(base + (0.05 + 0.02 * step) * painting(32, 48, seed=2)) for step in range(3)]  # no cut, by its mean

    def paint(frames: list[Tensor]) -> list[Tensor]:
        coherence = Coherence(method)
        return [coherence.paint(frame, lambda frame=frame: method.stylize(frame, style)) for frame in frames]

    alone, after = paint(shot), paint([base] * 2 + shot)
    assert not torch.equal(alone[1], paint(shot[1:])[0])  # what is remembered counts
    for found, wanted in zip(after[2:], alone, strict=True):
        assert torch.equal(found, wanted)
