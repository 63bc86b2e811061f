"""AdaIN: the paper's size, and what the normalisation promises."""

from __future__ import annotations

import torch

from impasto.layers import count_parameters
from impasto.methods.adain import adaptive_instance_norm, paper_decoder
from impasto.statistics import moments


def test_the_papers_decoder_has_the_papers_size() -> None:
    assert count_parameters(paper_decoder()) == 3_505_219


def test_features_take_on_the_styles_means_and_deviations() -> None:
    content, style = torch.randn(2, 6, 9, 11) * 3 + 1, moments(torch.rand(2, 6, 7, 5) * 4, full=False)
    found = moments(adaptive_instance_norm(content, style.mean, style.deviation()), full=False)
    assert torch.allclose(found.mean, style.mean, atol=1e-4)
    assert torch.allclose(found.deviation(), style.deviation(), atol=1e-4)


def test_a_picture_in_its_own_style_stays_as_it_is() -> None:
    x = torch.randn(1, 6, 9, 11)
    own = moments(x, full=False)
    assert torch.allclose(adaptive_instance_norm(x, own.mean, own.deviation()), x, atol=1e-4)
