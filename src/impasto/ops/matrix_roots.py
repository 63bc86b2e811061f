"""Square roots of covariance matrices by products (Higham 2008, "Functions of matrices", sec. 6.7) or eigenvectors.

Eigenvectors cost more than products, are slow in batches on a GPU, have no gradient where eigenvalues coincide, and no
operator in ONNX. Newton's iteration for the matrix sign, in Schulz's form without an inverse, avoids this and gives the
square root and its inverse together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from impasto.errors import OptionError

LEAST = 1e-10
"""Added to every diagonal, so that a matrix of zeros has roots, too."""


def roots(matrix: Tensor, ridge: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Return the square root and the inverse square root of positive semi-definite matrices, by Newton-Schulz steps.

    matrix: (B, C, C), symmetric up to rounding; ridge: added to the diagonal first, as a share of its mean; iterations:
    14 suffice for a ridge of 1e-2, 18 for 1e-3, 22 for 1e-4; more do no harm. Both results are (B, C, C), float32 under
    any autocast, and belong to the matrix with its ridge; gradients run through. Raises OptionError for a negative
    ridge or no iterations.

    The root is correct to 1e-5 of its largest value, the inverse to 1e-4 at a ridge of 1e-3, to 1e-3 at 1e-4.
    """
    if not ridge >= 0 or iterations < 1:
        raise OptionError(f"roots need a ridge of at least 0 and a step, not {ridge} and {iterations}")
    with torch.autocast("cpu" if matrix.is_meta else matrix.device.type, enabled=False):
        matrix = matrix.float()
        matrix = (matrix + matrix.mT) / 2
        eye = torch.eye(matrix.shape[-1], device=matrix.device)
        mean = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(0)
        matrix = matrix + (ridge * mean + LEAST)[:, None, None] * eye
        # No eigenvalue exceeds this norm, so all start within (0, 1]. The results do not depend on it.
        scale = matrix.detach().square().flatten(1).sum(1).sqrt()[:, None, None]
        root, inverse = _newton_schulz(matrix / scale, iterations)
        return root * scale.sqrt(), inverse * scale.rsqrt()


def square_root(matrix: Tensor, iterations: int = 12) -> Tensor:
    """Return the square root of symmetric positive matrices, (B, C, C), in their dtype and without a ridge.

    Gradients run through the norm, too, as the Wasserstein loss needs them.
    """
    norm = matrix.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1)
    root: Tensor = _newton_schulz(matrix / norm, iterations)[0] * norm.sqrt()
    return root


def symmetric_root(matrix: Tensor) -> Tensor:
    """Return the exact square root of one symmetric matrix, by eigenvectors; negative eigenvalues count as 0."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def _newton_schulz(root: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return roots and inverse roots of (B, C, C) with eigenvalues in (0, 1]."""
    eye = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    inverse = eye.expand_as(root)
    for _ in range(iterations):
        step = 1.5 * eye - 0.5 * (inverse @ root)
        root, inverse = root @ step, step @ inverse
    return root, inverse
