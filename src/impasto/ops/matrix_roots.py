"""Square roots of covariance matrices by matrix products alone (Higham 2008, "Functions of matrices", sec. 6.7).

Eigenvectors cost more than products, have no batch worth the name on a GPU, no gradient where eigenvalues meet, and no
operator in ONNX. Newton's iteration for the sign of a matrix, in the form of Schulz that needs no inverse, has none of
these faults, and finds the square root and its inverse at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from impasto.errors import OptionError

LEAST = 1e-10
"""Added to every diagonal, so that a matrix of zeros has roots, too."""


def roots(matrix: Tensor, ridge: float, iterations: int) -> tuple[Tensor, Tensor]:
    """The square root and the inverse square root of positive semi-definite matrices, by coupled Newton-Schulz steps.

    matrix: (B, C, C), symmetric up to rounding; ridge: what is added to the diagonal before, as a share of its mean;
    iterations: 14 suffice for a ridge of 1e-2, 18 for 1e-3, 22 for 1e-4; more do no harm. Both are (B, C, C) and
    float32, of the matrix with its ridge; computed in float32 whatever autocast says; gradients run through. Raises
    OptionError for a ridge or iterations that can give none.

    The root is then right to 1e-5 of its largest value, the inverse to 1e-4 at a ridge of 1e-3, 1e-3 at 1e-4.
    """
    if not ridge >= 0 or iterations < 1:
        raise OptionError(f"roots need a ridge of at least 0 and a step, not {ridge} and {iterations}")
    with torch.autocast("cpu" if matrix.is_meta else matrix.device.type, enabled=False):
        matrix = matrix.float()
        matrix = (matrix + matrix.mT) / 2
        eye = torch.eye(matrix.shape[-1], device=matrix.device)
        mean = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(0)
        matrix = matrix + (ridge * mean + LEAST)[:, None, None] * eye
        # No eigenvalue is larger than this norm, so all start within (0, 1]. The results do not depend on it.
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
