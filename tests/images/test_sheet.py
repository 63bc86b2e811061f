import pytest
import torch

from impasto.errors import ImageError
from impasto.images.contact_sheet import HEAT, contact_sheet, heat_map
from impasto.images.tensors import fit

RED, GREEN = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), torch.tensor([0.0, 1, 0]).view(1, 3, 1, 1)


def plain(color, height, width):
    return color.expand(1, 3, height, width)


def boxes(sheet, color):
    """Top, left, bottom, right of all that has exactly one color."""
    ys, xs = torch.nonzero(((sheet - color).abs() < 1e-3).all(1)[0], as_tuple=True)
    return int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1


def is_ink(sheet):
    return (sheet < 0.5).all(1)[0]


def test_without_labels_the_size_is_cells_and_gaps():
    sheet = contact_sheet([[plain(RED, 10, 10)] * 3, [plain(GREEN, 5, 9)] * 2], cell=32, gap=4)
    assert sheet.shape == (1, 3, 2 * 32 + 3 * 4, 3 * 32 + 4 * 4)
    assert sheet.dtype == torch.float32
    assert sheet.min() >= 0
    assert sheet.max() <= 1
    assert torch.equal(sheet[..., :4, :], torch.ones(1, 3, 4, sheet.shape[3]))


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (31, 97), (1, 1), (5, 400)])
def test_a_picture_is_fitted_and_centred(size):
    sheet = contact_sheet([[plain(RED, *size), plain(GREEN, 8, 8)]], cell=64, gap=6)
    top, left, bottom, right = boxes(sheet, RED)
    assert (bottom - top, right - left) == fit(*size, 64, enlarge=True)
    assert abs((top - 6) - (6 + 64 - bottom)) <= 1
    assert abs((left - 6) - (6 + 64 - right)) <= 1
    assert boxes(sheet, GREEN) == (6, 76, 70, 140)


def test_a_picture_of_the_cells_size_is_kept_exactly():
    picture = torch.rand(3, 48, 48)
    assert torch.equal(contact_sheet([[picture]], cell=48, gap=0), picture[None])


def test_empty_cells_are_white():
    sheet = contact_sheet([[None, plain(RED, 16, 16)], [], [plain(RED, 16, 16)]], cell=16, gap=2)
    assert sheet.shape == (1, 3, 3 * 16 + 4 * 2, 2 * 16 + 3 * 2)
    red = (sheet - RED).abs().sum(1)[0] < 1e-3
    assert int(red.sum()) == 2 * 16 * 16
    assert bool((sheet[:, :, :18, :18] == 1).all())


def test_labels_stand_above_and_to_the_left():
    rows = [[plain(RED, 60, 60), plain(GREEN, 60, 60)], [plain(RED, 60, 60), plain(GREEN, 60, 60)]]
    sheet = contact_sheet(rows, row_labels=["photo", "sketch"], column_labels=["content", "style"], cell=100, gap=10)
    top, left, bottom, right = *boxes(sheet, RED)[:2], *boxes(sheet, GREEN)[2:]
    assert top > 20
    assert left > 30
    assert sheet.shape[2:] == (bottom + 10, right + 10)
    ink = is_ink(sheet)
    for column in (0, 1):
        x = left + 110 * column
        assert ink[: top - 10, x : x + 100].any()
    for row in (0, 1):
        y = top + 110 * row
        assert ink[y + 30 : y + 70, : left - 10].any()
        assert not ink[y : y + 20, :left].any()
    assert not ink[top - 10 : top].any()
    assert not ink[:, left - 10 : left].any()
    assert not ink[:10].any()
    assert not ink[:, :9].any()


def test_only_some_labels():
    sheet = contact_sheet([[plain(RED, 9, 9)], [plain(RED, 9, 9)]], row_labels=["one"], cell=40, gap=4)
    top, left, _, _ = boxes(sheet, RED)
    assert top == 4
    assert left > 8
    assert contact_sheet([[None]], row_labels=[""], column_labels=[" "], cell=40, gap=4).shape == (1, 3, 48, 48)


def test_a_long_label_is_wrapped_and_cut_and_stays_off_the_pictures():
    endless = "Donaudampfschifffahrtsgesellschaft " * 40
    sheet = contact_sheet([[plain(RED, 80, 80)] * 2], row_labels=[endless], column_labels=[endless, endless], cell=80)
    short = contact_sheet([[plain(RED, 80, 80)] * 2], column_labels=["a b", "style"], cell=80)
    top, left, _, _ = boxes(sheet, RED)
    assert left <= 80 * 3 // 4 + 2 * 8
    assert top <= 3 * boxes(short, RED)[0]
    assert int(((sheet - RED).abs().sum(1) < 1e-3).sum()) == 2 * 80 * 80
    ink = is_ink(sheet)
    assert ink[: top - 8, left : left + 80].any()
    assert not ink[:, left + 80 : left + 88].any()
    assert not ink[:, :7].any()


def test_letters_that_no_font_has_are_drawn_anyway():
    sheet = contact_sheet([[plain(RED, 20, 20)]], column_labels=["g\u00f6\u00dfe \u753b \U0001f3a8\tx\ny"], cell=64)
    assert is_ink(sheet).any()


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([], {}, "at least one"),
        ([[], []], {}, "at least one"),
        ([[plain(RED, 4, 4)]], {"row_labels": ["a", "b"]}, "more labels"),
        ([[plain(RED, 4, 4)]], {"column_labels": ["a", "b"]}, "more labels"),
        ([[plain(RED, 4, 4)]], {"cell": 15}, "at least 16"),
        ([[plain(RED, 4, 4)]], {"gap": -1}, "at least 0"),
        ([[torch.rand(2, 3, 4, 4)]], {}, "not 2x3x4x4"),
        ([[torch.rand(4, 4)]], {}, "not 4x4"),
        ([[torch.rand(1, 3, 0, 4)]], {}, "not 1x3x0x4"),
    ],
)
def test_what_is_refused(rows, options, reason):
    with pytest.raises(ImageError, match=reason):
        contact_sheet(rows, **options)


# --- heat maps


def test_a_heat_map_goes_from_dark_to_light_in_whole_cells() -> None:
    picture = heat_map(torch.tensor([[0.0, 1.0], [2.0, 4.0]]))
    assert picture.shape == (1, 3, 512, 512)
    corners = picture[0][:, [0, 0, 511, 511], [0, 511, 0, 511]]
    assert torch.allclose(corners[:, 0], torch.tensor(HEAT[0]))
    assert torch.allclose(corners[:, 2], torch.tensor(HEAT[2]))
    assert torch.allclose(corners[:, 3], torch.tensor(HEAT[4]))
    brightness = corners.sum(0)
    assert torch.all(brightness[1:] > brightness[:-1])
    assert picture.flatten(2).unique(dim=2).shape[2] == 4


def test_a_heat_maps_scale_can_be_fixed() -> None:
    inside, outside = heat_map(torch.tensor([[0.0, 5.0]]), least=-1, most=1)[0, :, 0, [0, -1]].T
    assert torch.allclose(inside, torch.tensor(HEAT[2]))
    assert torch.allclose(outside, torch.tensor(HEAT[4]))


def test_a_heat_map_of_nothing_but_one_value_is_dark() -> None:
    assert torch.allclose(heat_map(torch.full((3, 3), 7.0))[0, :, 0, 0], torch.tensor(HEAT[0]))
    assert heat_map(torch.rand(2, 900)).shape == (1, 3, 2, 900)
