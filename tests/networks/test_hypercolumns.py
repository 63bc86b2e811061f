"""Hypercolumns: enlarged features have torch's values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from impasto.networks.hypercolumns import _enlarge


@pytest.mark.parametrize("size", [(2, 3), (5, 4), (1, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_enlarging_has_torchs_values_and_gradients(size: tuple[int, int], layout: torch.memory_format) -> None:
    features = torch.rand(1, 3, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    by_large = torch.rand(1, 3, 2 * size[0], 2 * size[1], dtype=torch.float64)
    found = _enlarge(features, 2)
    wanted = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
    assert_close(found, wanted)
    assert_close(torch.autograd.grad(found, features, by_large), torch.autograd.grad(wanted, features, by_large))
