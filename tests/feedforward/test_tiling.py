"""Tiles: the same picture as in one piece, exactly as much halo as is needed, no seams, little memory."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from impasto.errors import ImpastoError
from impasto.feedforward import kept_map, limits, tiled_run
from impasto.feedforward.stages import IMAGE, RESULT, Stage, StageInput, Thinned, pick, thin_grid
from impasto.feedforward.tiled_run import Tiling, plan_pass
from impasto.images.tensors import Bytes, Floats, Window, windows
from impasto.methods import find_method, list_methods
from impasto.methods.wct import WCT, WCTOptions
from impasto.networks.layers import Conv
from impasto.networks.receptive_field import reach, stride_after, work
from impasto.stylizers import one_pass
from impasto.stylizers.generated_network import GeneratedNetworks
from impasto.stylizers.one_pass import ArbitraryStyle, OnePass
from impasto.stylizers.styles import Style
from tiny import LEARNING, narrow, painting, styles_for

LOCAL = [name for name in list_methods() if issubclass(find_method(name), OnePass)]
POOLED = "texture_network"
KEEPS = {"nothing": 0, "some": 200_000, "all": 1 << 30}


@pytest.fixture(scope="module", params=LOCAL)
def method(request: pytest.FixtureRequest) -> OnePass:
    found = narrow(request.param, double=True)
    assert isinstance(found, OnePass)
    found.tiling = None
    return found


@pytest.fixture
def photo() -> Tensor:
    smooth, fine = painting(101, 179, seed=3), torch.rand(1, 3, 101, 179)
    return 0.8 * smooth + 0.2 * fine


def style_for(method: OnePass) -> Style:
    first, _ = styles_for(method)
    return first if isinstance(first, Style) else method.encode_style(first)


def tiled(method: OnePass, tile: int, keep: int, *args: Any, **options: Any) -> Tensor:
    method.tiling = Tiling(tile, keep)
    try:
        return method.transfer(*args, **options)
    finally:
        method.tiling = None


def shifting(method: OnePass) -> OnePass:
    """Let every convolution look at one corner only, so that what lies farthest away counts most."""
    strided = isinstance(method, GeneratedNetworks) or method.name in LEARNING
    own = strided and method.name != POOLED  # a convolution of stride 2 looks farther up, a pooling farther down
    generator = torch.Generator().manual_seed(1)
    networks = [value for value in vars(method).values() if isinstance(value, nn.Module)]
    weights = [layer.weight.data for net in networks for layer in net.modules() if isinstance(layer, Conv)]
    if method.name in LEARNING:
        weights += [tensor for style in method.learned.values() for tensor in style.values() if tensor.dim() == 4]  # type: ignore[attr-defined]
    if isinstance(method, GeneratedNetworks):
        made = method.build_for(style_for(method))
        method.build_for = lambda style: made  # type: ignore[method-assign]
        weights += [layer.conv.weight.data for layer in made.row]
    for weight in weights:
        outputs, inputs = weight.shape[:2]
        weight.zero_()
        corner = (3 if weight.shape[-1] == 4 else 0) if own else -1  # which of a transposed one is the same
        weight[..., corner, corner] = (
            torch.rand(outputs, inputs, generator=generator) * (2 if outputs > 3 else 0.3) / inputs
        )
    if method.name in LEARNING:
        return method
    steps = method.backbone.steps  # type: ignore[attr-defined]
    for name in [name for name in steps if name.startswith("pool")]:
        steps[name] = nn.AvgPool2d(2)
    return method


# --- the same picture


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_tiled_equals_whole(method: OnePass, photo: Tensor, keep: int) -> None:
    style = style_for(method)
    whole = method.transfer(photo, style)
    found = tiled(method, 64, keep, photo, style)
    assert whole.std() > 0.05
    assert (found - whole).abs().max() <= 1e-4
    assert method.cut == Tiling(64, keep)


@pytest.mark.parametrize("size", [(181, 179), (179, 60)], ids=["tiles", "strips"])
@pytest.mark.parametrize("name", ["swift", "johnson"])
def test_memory_of_rows_that_were_read_holds_new_rows(
    name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, photo = narrow(name, double=True), painting(*size, seed=4)
    assert isinstance(method, OnePass)
    method.tiling = None
    style = style_for(method)
    whole = method.transfer(photo, style)
    monkeypatch.setattr(kept_map, "PIECE", 32 << 10)
    taken: list[bool] = []
    take = kept_map.Pieces.take

    def note(self: kept_map.Pieces, least: int) -> Tensor:
        taken.append(bool(self.free))
        return take(self, least)

    monkeypatch.setattr(kept_map.Pieces, "take", note)
    for keep in (100_000, 200_000, 300_000, 1_000_000):
        assert (tiled(method, 64, keep, photo, style) - whole).abs().max() <= 1e-4
    assert taken.count(True) > taken.count(False)
    release = kept_map.KeptMap.release
    monkeypatch.setattr(kept_map.KeptMap, "release", lambda self, above: release(self, above + 24))
    with pytest.raises(KeyError):  # a row that is given back too early is gone
        tiled(method, 64, 1_000_000, photo, style)


def test_a_large_painting_is_looked_at_in_tiles(
    method: OnePass, photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(method, ArbitraryStyle):
        pytest.skip("it looks at no paintings")
    whole = method.encode_style(photo)
    monkeypatch.setattr(limits, "CPU_WORK", 1 << 20)
    cut = limits.choose_tiling((method.style_stage(),), (101, 179), method.device, method.element)
    assert cut is not None
    assert cut.tile == 64
    found = method.encode_style(photo)
    for name, tensor in whole.items():
        assert_close(found[name], tensor, atol=1e-4, rtol=1e-4)


def test_tiled_equals_whole_with_strength_and_mask(method: OnePass, photo: Tensor) -> None:
    style = style_for(method)
    mask = torch.zeros(1, 1, 101, 179)
    mask[..., 20:91, 33:170] = 1
    whole = method.transfer(photo, style, strength=0.6, mask=mask)
    assert (tiled(method, 48, 0, photo, style, strength=0.6, mask=mask) - whole).abs().max() <= 1e-4
    assert (tiled(method, 48, 0, photo, style, strength=0.6) - whole).abs().max() > 1e-3


@pytest.mark.parametrize("levels", [(1,), (3, 1), (5, 2)])
def test_every_choice_of_levels_can_be_tiled(photo: Tensor, levels: tuple[int, ...]) -> None:
    made = narrow("wct", double=True)
    assert isinstance(made, WCT)
    options = WCTOptions(levels=levels, detail=(0.5,) * (len(levels) - 1) or (0.5,), precision="fp32")
    model = WCT(options, backbone=made.backbone, decoder=made.decoder)
    style = model.encode_style(painting())
    model.tiling = None
    whole = model.transfer(photo, style)
    for keep in KEEPS.values():
        assert (tiled(model, 64, keep, photo, style) - whole).abs().max() <= 1e-4


def grown_to_the_pixel(tile: Window, by: int, align: int, height: int, width: int) -> Window:
    """As `Window.grown`, with no more to the right and below than was asked for."""
    top, left = (max(0, (side - by) // align * align) for side in (tile.top, tile.left))
    return Window(top, left, min(height, tile.bottom + by), min(width, tile.right + by))


@pytest.mark.parametrize("name", LOCAL)
def test_one_pixel_less_halo_is_wrong(name: str, photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    method = narrow(name, double=True)
    assert isinstance(method, OnePass)
    method = shifting(method)
    style = style_for(method)
    whole = method.transfer(photo, style)
    assert (tiled(method, 48, 0, photo, style) - whole).abs().max() <= 1e-4

    # what a stride of 2 leaves over hides less, as does where tiles may begin and end
    missing = 4 if name in LEARNING and name != POOLED else 1

    def less(*args: Any) -> Any:
        return dataclasses.replace(plan := plan_pass(*args), halo=plan.halo - missing)

    monkeypatch.setattr(tiled_run, "plan_pass", less)
    monkeypatch.setattr(Window, "grown", grown_to_the_pixel)
    assert (tiled(method, 48, 0, photo, style) - whole).abs().max() > 1e-4


def test_a_stage_makes_what_is_wanted_of_it_and_nothing_else(method: OnePass, photo: Tensor) -> None:
    """What it made besides would take the place of what is kept, with less around it."""
    maps: dict[str, Tensor] = {IMAGE: photo}
    known: dict[str, Any] = {}
    for stage in method.stages(style_for(method), 1.0, (101, 179)):
        given = stage.prepare(known)
        found = {}
        for name in stage.outcomes:
            made = stage.run(StageInput(maps, given, {name}, 101, 179))
            assert set(made) == {name}
            found |= made
        maps |= found
        for measure in stage.measures:
            tally = measure.begin(*maps[measure.source].shape[-2:])
            tally.see(maps[measure.source], None, (0, 0))
            known[measure.key] = tally.value


def test_the_halo_is_how_far_the_network_looks(method: OnePass) -> None:
    """NaN spreads as far as a network looks, whatever its weights are."""
    style = style_for(method)
    stages = method.stages(style)
    halo, align = plan_pass(stages, {RESULT}, set()).halo, 16
    first, last = 96 + (halo + 15) // align * align, 96
    for distance, clean in ((halo, True), (halo - 1, False)):
        if not clean and method.name == "nnst_d":
            continue  # what is chosen for a NaN is a place of the painting, which is no NaN
        right, left = (torch.rand(1, 3, 16, first + halo + 64) for _ in range(2))
        right[..., last + distance] = left[..., first - 1 - distance] = float("nan")
        unharmed = _run(stages, right)[..., :last].isfinite().all() & _run(stages, left)[..., first:].isfinite().all()
        assert bool(unharmed) == clean


def _run(stages: Sequence[Stage], image: Tensor) -> Tensor:
    """The picture, by moments of something else: only what is local counts."""
    maps, known = {"image": image}, {}
    for stage in stages:
        maps |= stage.run(StageInput(maps, stage.prepare(known), stage.outcomes, 16, image.shape[-1]))
        for measure in stage.measures:
            tally, channels = measure.begin(8, 8), maps[measure.source].shape[1]
            tally.see(torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(2)), None, (0, 0))
            known[measure.key] = tally.value
    return maps[RESULT]


def test_there_are_no_seams(method: OnePass, photo: Tensor) -> None:
    found = tiled(method, 64, 0, photo, style_for(method))
    steps = (found[..., 1:] - found[..., :-1]).abs().mean(dim=(0, 1, 2))
    rows = (found[..., 1:, :] - found[..., :-1, :]).abs().mean(dim=(0, 1, 3))
    whole = method.transfer(photo, style_for(method))
    wanted = (whole[..., 1:] - whole[..., :-1]).abs().mean(dim=(0, 1, 2))
    wanted_rows = (whole[..., 1:, :] - whole[..., :-1, :]).abs().mean(dim=(0, 1, 3))
    edges = [tile.left - 1 for tile in windows(101, 179, 64, 16) if tile.left and not tile.top]
    assert edges
    assert (steps[edges].mean() / wanted[edges].mean() - 1).abs() < 0.02
    row_edges = [tile.top - 1 for tile in windows(101, 179, 64, 16) if tile.top and not tile.left]
    assert (rows[row_edges].mean() / wanted_rows[row_edges].mean() - 1).abs() < 0.02


# --- bytes instead of floats


def test_from_bytes_to_bytes_is_what_would_be_written(method: OnePass, photo: Tensor) -> None:
    content = Bytes((photo[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous())
    target = Bytes(torch.zeros(101, 179, 3, dtype=torch.uint8))
    style = style_for(method)
    everything = Window(0, 0, 101, 179)
    for cut in (None, Tiling(64, 0)):
        method.tiling = cut
        method.paint(content, target, style)
        wanted = method.transfer(content.read(everything), style)
        assert (target.read(everything) - wanted).abs().max() <= 0.5 / 255 + 1e-4
    method.tiling = None


def test_what_is_written_can_be_finished_window_by_window() -> None:
    target = Bytes(torch.zeros(4, 6, 3, dtype=torch.uint8), finish=lambda image, window: image + 0.1 * window.left)
    target.write(Window(1, 2, 3, 5), torch.full((1, 3, 2, 3), 0.2))
    assert target.pixels[1:3, 2:5].unique().tolist() == [102]
    assert int(target.pixels.sum()) == 102 * 18


# --- memory


def test_nothing_is_retained(method: OnePass) -> None:
    def held() -> int:
        gc.collect()
        return sum(o.numel() * o.element_size() for o in gc.get_objects() if issubclass(type(o), Tensor))

    style, photo = style_for(method), painting(33, 24)
    before = None
    for _ in range(50):
        tiled(method, 32, 1 << 20, photo, style)
        before = before if before is not None else held()
    assert held() <= before + 1024


def test_tiles_are_halved_while_memory_runs_out(
    method: OnePass, photo: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, tried = one_pass.paint_tiles, []

    def scarce(stages: Any, content: Any, target: Any, cut: Tiling, **options: Any) -> None:
        tried.append(cut.tile)
        if cut.tile > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        real(stages, content, target, cut, **options)

    monkeypatch.setattr(one_pass, "paint_tiles", scarce)
    style = style_for(method)
    whole = method.transfer(photo, style)
    caplog.set_level("WARNING")
    assert (tiled(method, 256, 0, photo, style) - whole).abs().max() <= 1e-4
    assert tried == [256, 128, 64]
    assert method.cut == Tiling(64, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "not enough memory: once more, in tiles of 128 px",
        "not enough memory: once more, in tiles of 64 px",
    ]


def test_at_last_the_error_names_a_size_that_fits(
    method: OnePass, photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(one_pass, "paint_tiles", never)
    with pytest.raises(ImpastoError, match=r"not enough memory for 179x101 .* --size \d+ fits"):
        tiled(method, 256, 0, photo, style_for(method))


def test_other_errors_are_not_taken_for_it(method: OnePass, photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(one_pass, "paint_tiles", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        tiled(method, 256, 0, photo, style_for(method))


# --- the parts


def test_windows_cover_everything_once() -> None:
    for height, width, tile in ((1, 1, 64), (101, 179, 64), (16, 500, 100), (129, 64, 128)):
        seen = torch.zeros(height, width)
        for window in windows(height, width, tile, 16):
            assert window.top % 16 == window.left % 16 == 0
            assert max(window.height, window.width) <= -(-tile // 16) * 16
            seen[window.top : window.bottom, window.left : window.right] += 1
        assert bool((seen == 1).all())


def test_a_path_is_walked() -> None:
    vgg = [Conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), nn.Sequential(Conv(8, 8), Conv(8, 4)), nn.Upsample(scale_factor=2)]
    assert reach(vgg) == 1 + 2 * 2
    assert reach(vgg, 1) == 1 + 2 * 3
    assert stride_after(vgg) == 1
    assert stride_after(vgg[:4], 2) == 4
    assert work(vgg) == 3 * 8 * 9 + (8 * 8 + 8 * 4) * 9 / 4
    assert reach([nn.Conv2d(3, 3, 7, stride=2, padding=3)]) == 3
    with pytest.raises(ImpastoError, match="AdaptiveAvgPool2d may look at the whole picture"):
        reach([nn.AdaptiveAvgPool2d(1)])


def test_thinning_by_tiles_is_thinning() -> None:
    features = torch.arange(11 * 17.0).view(1, 1, 11, 17)
    rows, columns = thin_grid(11, 17, 40)
    tally = Thinned("x", 40).begin(11, 17)
    for window in windows(11, 17, 4, 4):
        part = Floats(features).read(window)
        tally.see(part, None, (window.top, window.left))
    assert torch.equal(tally.value, pick(features, rows, columns))
    assert 20 <= len(rows) * len(columns) <= 40
