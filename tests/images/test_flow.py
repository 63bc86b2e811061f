"""Moving pictures along a flow, where it is trusted, the warping error; and what keeps frames alike."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.feedforward.stages import live_moments
from impasto.images.flow import estimate_flow, trusted, warp, warping_error
from impasto.ops.moments import moments
from impasto.stylizers.video_coherence import Coherence, SmoothedMoments
from tiny import painting, tiny


def shift(x: float, y: float, height: int = 24, width: int = 32) -> Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width).clone()


def window(picture: Tensor, x: int) -> Tensor:
    return picture[..., x : x + 64]


# --- flow


def test_no_flow_moves_nothing(picture: Tensor) -> None:
    assert_close(warp(picture, shift(0, 0, 48, 64)), picture)
    assert_close(warp(picture, shift(0, 0, 48, 64), sharp=True), picture)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, 2), (-4, 5)])
def test_a_whole_shift_is_exact(picture: Tensor, x: int, y: int) -> None:
    moved = warp(picture, shift(x, y, 48, 64))
    expected = torch.roll(picture, (-y, -x), (2, 3))
    assert_close(moved[..., 6:-6, 6:-6], expected[..., 6:-6, 6:-6], atol=1e-5, rtol=0)


def test_half_a_pixel_is_the_mean_of_two(picture: Tensor) -> None:
    moved = warp(picture, shift(0.5, 0, 48, 64))
    assert_close(moved[..., :-1], (picture[..., :-1] + picture[..., 1:]) / 2, atol=1e-5, rtol=0)


def test_what_leaves_is_covered_or_borders_on_moving_things_is_not_trusted() -> None:
    flow = shift(4, 0)
    sure = trusted(flow, -flow)
    assert sure[..., :-4].min() == 1
    assert sure[..., -4:].max() == 0
    back = -flow
    back[..., 10:20, 10:20] = 3  # leads elsewhere: hidden
    assert trusted(flow, back)[..., 11:19, 7:15].max() == 0
    torn = shift(0, 0)
    torn[:, 0, 8:16, 8:16] = 4
    assert trusted(torn, -torn)[..., 9, 7] == 0


def test_the_warping_error_of_what_moves_along_is_0(picture: Tensor) -> None:
    wide = painting(48, 80)
    flow = shift(-3, 0, 48, 64)
    assert warping_error(window(wide, 0), window(wide, 3), flow, -flow) == pytest.approx(0, abs=1e-10)
    brighter = window(wide, 3) + 0.1
    assert warping_error(window(wide, 0), brighter, flow, -flow) == pytest.approx(0.01, rel=1e-4)
    far = shift(100, 0, 48, 64)
    assert warping_error(picture, picture, far, -far) is None


def test_a_pan_is_seen() -> None:
    pytest.importorskip("cv2")
    wide = painting(96, 160)
    flow = estimate_flow(wide[..., :128], wide[..., 5:133])
    assert_close(flow[..., 16:-16, 16:-16].mean((0, 2)).mean(1), torch.tensor([-5.0, 0.0]), atol=0.3, rtol=0)


# --- moments over frames


def test_moments_are_a_running_mean() -> None:
    first, second = torch.rand(2, 1, 3, 8, 8, dtype=torch.float64)
    smoothed = SmoothedMoments(0.5)
    smoothed.begin()
    assert_close(smoothed("relu1_1", first, None, full=True).covariance, moments(first).covariance)
    smoothed.begin()
    found = smoothed("relu1_1", second, None, full=True)
    assert_close(found.mean, (moments(first).mean + 2 * moments(second).mean) / 3)
    assert_close(found.second, (moments(first).second + 2 * moments(second).second) / 3)
    smoothed.forget()
    assert_close(smoothed("relu1_1", second, None, full=True).mean, moments(second).mean)


def test_regions_of_a_frame_stay_apart() -> None:
    one, other = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    smoothed = SmoothedMoments(0.9)
    for _ in range(2):
        smoothed.begin()
        assert float(smoothed("relu1_1", one, None, full=False).mean.max()) == 0
        assert float(smoothed("relu1_1", other, None, full=False).mean.min()) == 1


# --- frames


def test_without_smoothing_each_frame_is_painted_as_by_itself() -> None:
    method, style, wide = tiny("adain"), painting(40, 40, seed=9), painting(48, 72)
    coherence = Coherence(method, memory=0)
    for x in (0, 4, 8):
        frame = window(wide, x)
        found = coherence.paint(frame, lambda frame=frame: method.stylize(frame, style))
        assert (found - method.stylize(frame, style)).abs().max() <= 0.5 / 255 + 1e-6
    assert method.moments_of is live_moments


def test_a_cut_begins_anew() -> None:
    method, style = tiny("adain"), painting(40, 40, seed=9)
    wide, other = painting(48, 72), 1 - painting(48, 64, seed=20) ** 3
    coherence = Coherence(method, memory=0.9)
    for frame in (window(wide, 0), window(wide, 2), window(wide, 4), other):
        found = coherence.paint(frame, lambda frame=frame: method.stylize(frame, style))
    assert coherence.cuts == 1
    assert (found - method.stylize(other, style)).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("carried", [0.0, 0.6])
def test_it_goes_on_from_its_state(carried: float) -> None:
    if carried:
        pytest.importorskip("cv2")
    method, style, wide = tiny("adain"), painting(40, 40, seed=9), painting(48, 72)

    def paint(coherence: Coherence, x: int) -> Tensor:
        return coherence.paint(window(wide, x), lambda: method.stylize(window(wide, x), style))

    whole = Coherence(method, carried=carried)
    results = [paint(whole, x) for x in (0, 2, 4, 6)]
    begun = Coherence(method, carried=carried)
    paint(begun, 0)
    kept = paint(begun, 2)
    resumed = Coherence(method, carried=carried)
    resumed.restore(begun.state(), window(wide, 2), kept)
    assert torch.equal(paint(resumed, 4), results[2])
    assert torch.equal(paint(resumed, 6), results[3])


def test_the_last_result_is_carried_along() -> None:
    pytest.importorskip("cv2")
    wide, style = painting(48, 90), painting(40, 40, seed=9)
    method = tiny("adain")
    errors = {}
    for carried in (0.0, 0.7):
        coherence, results = Coherence(method, carried=carried), []
        for x in range(0, 24, 3):
            frame = window(wide, x)
            results.append(coherence.paint(frame, lambda frame=frame: method.stylize(frame, style)))
        flow = shift(-3, 0, 48, 64)
        errors[carried] = sum(warping_error(a, b, flow, -flow) or 0 for a, b in pairwise(results))
    assert errors[0.7] < 0.7 * errors[0.0]


def test_an_optimisation_starts_from_the_last_result() -> None:
    pytest.importorskip("cv2")
    method, style, wide = tiny("gatys"), painting(40, 40, seed=9), painting(48, 72)
    coherence = Coherence(method, carried=0.5)
    starts = []
    for x in (0, 2):

        def paint(x: int = x) -> Tensor:
            starts.append(method.start_from)
            return method.stylize(window(wide, x), style)

        coherence.paint(window(wide, x), paint)
    assert starts[0] is None
    assert starts[1] is not None
    assert method.start_from is None
