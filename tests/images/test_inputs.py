"""What methods are given is checked: what is not finite, what only looks so."""

from __future__ import annotations

import math

import pytest
import torch

from impasto.errors import OptionError
from impasto.images.tensors import check_image, is_finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_number_that_is_not_finite(value: float, dtype: torch.dtype) -> None:
    image = torch.rand(1, 3, 8, 9, dtype=dtype)
    assert is_finite(image)
    image[0, 1, 3, 4] = value
    assert not is_finite(image)
    with pytest.raises(OptionError, match="the photo holds NaN or infinity"):
        check_image(image, "photo")


def test_infinities_of_both_signs() -> None:
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0, 0] = torch.tensor([math.inf, -math.inf])
    assert not is_finite(image)


def test_finite_numbers_whose_sum_is_not() -> None:
    assert is_finite(torch.full((1, 3, 4, 4), 3e38))
    assert is_finite(torch.full((1, 3, 64, 64), 60000.0, dtype=torch.float16))
