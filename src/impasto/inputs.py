"""What is given to methods, checked before any work: pictures and masks as tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from impasto.errors import OptionError


def is_finite(image: Tensor) -> bool:
    """Whether `image` holds neither NaN nor infinity; a finite sum, which is quicker to have, says that it does not."""
    return math.isfinite(float(image.sum())) or all(map(math.isfinite, map(float, torch.aminmax(image))))


def check_image(image: Tensor, role: str) -> None:
    """Raise OptionError unless `image` is a finite float (1, 3, H, W)."""
    if image.dim() != 4 or image.shape[1] != 3 or image.shape[0] != 1 or not image.is_floating_point():
        raise OptionError(
            f"the {role} is a float tensor (1, 3, H, W) in [0, 1], not {tuple(image.shape)} {image.dtype}"
        )
    if not is_finite(image):
        raise OptionError(f"the {role} holds NaN or infinity")


def check_mask(mask: Tensor) -> None:
    """Raise OptionError unless `mask` is a float (1, 1, H, W) in [0, 1]."""
    if mask.dim() != 4 or mask.shape[:2] != (1, 1) or not mask.is_floating_point():
        raise OptionError(f"a mask is a float tensor (1, 1, H, W) in [0, 1], not {tuple(mask.shape)} {mask.dtype}")
    if not -1e-3 <= float(mask.min()) <= float(mask.max()) <= 1.001:  # what rounding leaves of a grey picture passes
        raise OptionError("a mask holds values outside [0, 1]")
