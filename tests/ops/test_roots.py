"""Roots by matrix products: against eigenvectors in float64, in batches, with gradients, of zeros, under autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from impasto.errors import OptionError
from impasto.ops.matrix_roots import LEAST, roots


def by_eigenvectors(matrix: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The same in float64 by eigenvectors."""
    matrix = matrix.double()
    mean = matrix.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    values, vectors = torch.linalg.eigh(matrix + (ridge * mean + LEAST) * torch.eye(matrix.shape[-1]).double())
    root = values.sqrt()[:, None, :]
    return vectors * root @ vectors.mT, vectors / root @ vectors.mT


def covariances(channels: int, condition: float, batch: int = 3) -> Tensor:
    """Matrices whose eigenvalues spread evenly by powers of ten, of very different sizes, (B, C, C), float32."""
    vectors = torch.linalg.qr(torch.randn(batch, channels, channels, dtype=torch.float64)).Q
    values = condition ** -torch.linspace(0, 1, channels, dtype=torch.float64)
    sizes = 100.0 ** torch.arange(-1, batch - 1, dtype=torch.float64)
    return (sizes[:, None, None] * (vectors * values @ vectors.mT)).float()


def error(found: Tensor, wanted: Tensor) -> float:
    """The worst sample's largest error, as a share of that sample's largest value."""
    most = (found.double() - wanted).abs().amax((1, 2)) / wanted.abs().amax((1, 2))
    return float(most.max())


@pytest.mark.parametrize(
    ("ridge", "iterations", "of_root", "of_inverse"),
    [(1e-2, 14, 2e-5, 1e-4), (1e-3, 18, 2e-5, 1e-3), (1e-4, 22, 5e-5, 5e-3), (1e-3, 60, 2e-5, 1e-3)],
)
@pytest.mark.parametrize("channels", [1, 16, 128])
@pytest.mark.parametrize("condition", [1, 1e3, 1e7])
def test_roots_are_those_by_eigenvectors(
    channels: int, condition: float, ridge: float, iterations: int, of_root: float, of_inverse: float
) -> None:
    matrix = covariances(channels, condition)
    found, wanted = roots(matrix, ridge, iterations), by_eigenvectors(matrix, ridge)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert error(found[0], wanted[0]) < of_root
    assert error(found[1], wanted[1]) < of_inverse


def test_a_matrix_without_full_rank_has_roots() -> None:
    few = torch.randn(2, 32, 4)
    found, wanted = roots(few @ few.mT, 1e-3, 18), by_eigenvectors(few @ few.mT, 1e-3)
    assert error(found[0], wanted[0]) < 2e-5
    assert error(found[1], wanted[1]) < 1e-3


def test_zeros_have_roots() -> None:
    root, inverse = roots(torch.zeros(2, 8, 8), 1e-3, 18)
    assert_close(root, torch.eye(8).expand(2, 8, 8) * LEAST**0.5)
    assert_close(inverse, torch.eye(8).expand(2, 8, 8) / LEAST**0.5)


def test_a_batch_is_its_matrices() -> None:
    matrix = covariances(16, 1e3)
    together = roots(matrix, 1e-3, 18)
    for i in range(3):
        alone = roots(matrix[i : i + 1], 1e-3, 18)
        for found, wanted in zip(together, alone, strict=True):
            assert_close(found[i : i + 1], wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_gradients_are_those_through_eigenvectors() -> None:
    matrix, weight = covariances(6, 30), torch.randn(2, 3, 6, 6)
    gradients = []
    for found in (lambda m: roots(m, 1e-2, 20), lambda m: by_eigenvectors(m, 1e-2)):
        given = matrix.clone().requires_grad_(True)
        root, inverse = found((given + given.mT) / 2)
        ((root * weight[0]).sum() + (inverse * weight[1]).sum()).backward()
        gradients.append(given.grad.double())
    assert error(*gradients) < 1e-3


def test_gradients_of_zeros_are_finite() -> None:
    matrix = torch.zeros(1, 4, 4, requires_grad=True)
    roots(matrix, 1e-3, 18)[0].sum().backward()
    assert bool(torch.isfinite(matrix.grad).all())


def test_autocast_changes_nothing() -> None:
    matrix = covariances(16, 1e3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = roots(matrix, 1e-3, 18)
    assert all(map(torch.equal, found, roots(matrix, 1e-3, 18)))


@pytest.mark.parametrize(("ridge", "iterations"), [(-1e-3, 18), (float("nan"), 18), (1e-3, 0)])
def test_what_gives_no_roots_is_refused(ridge: float, iterations: int) -> None:
    with pytest.raises(OptionError, match="roots need"):
        roots(torch.eye(3)[None], ridge, iterations)
