"""AdaIN: the paper's size, and what the normalisation promises."""

from __future__ import annotations

import torch

from impasto.feedforward.stages import run_whole
from impasto.methods.adain import LAYERS, AdaIN, AdaINOptions, AdaINTraining, paper_decoder, slim_decoder
from impasto.networks.backbone import VGG19_BLOCKS, VGG19_WIDTHS, Backbone, vgg_steps
from impasto.networks.layers import Conv, count_parameters, freeze
from impasto.ops.moments import adaptive_instance_norm, moments
from impasto.optimize.perceptual_loss import PerceptualLoss
from impasto.stylizers.styles import measure
from tiny import painting, random_slim, tiny


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


def test_the_paper_in_all_has_the_papers_size() -> None:
    steps = vgg_steps(VGG19_BLOCKS, VGG19_WIDTHS)
    reached = list(steps)[: list(steps).index("relu4_1") + 1]
    encoder = Backbone("vgg19", {"conv0": Conv(3, 3, 1), **{name: steps[name] for name in reached}})
    assert count_parameters(encoder) == 3_505_740
    assert count_parameters(encoder) + count_parameters(paper_decoder()) == 7_010_959


def test_the_paper_sized_network_paints() -> None:
    steps = vgg_steps(VGG19_BLOCKS, VGG19_WIDTHS)
    model = AdaIN(AdaINOptions(precision="fp32"), backbone=freeze(Backbone("vgg19", steps)), decoder=paper_decoder())
    assert model.stylize(torch.rand(1, 3, 37, 50), torch.rand(1, 3, 32, 48)).shape == (1, 3, 37, 50)


def test_strength_0_paints_the_photo_in_its_own_style(picture: torch.Tensor) -> None:
    model = tiny("adain")
    assert isinstance(model, AdaIN)
    with torch.no_grad():
        own = model.backbone(picture, LAYERS.values())
        x = own["relu4_1"]
        for level in (4, 3, 2, 1):
            if level in model.levels:
                (theirs, mean), (mine, middle) = (
                    torch.var_mean(seen, (2, 3), correction=0, keepdim=True) for seen in (own[f"relu{level}_1"], x)
                )
                x = (x - middle) * ((theirs + 1e-5) / (mine + 1e-5)).sqrt() + mean
            x = model.decoder.step(level, x, [side // 2 ** max(level - 2, 0) for side in picture.shape[-2:]])
        found = run_whole(model.stages(model.encode_style(painting()), 0.0), picture)
    assert torch.allclose(found, x.clamp(0, 1), atol=2e-3)


def test_a_card_of_the_same_encoders_moments_serves_as_well(picture: torch.Tensor) -> None:
    model = tiny("adain")
    card = measure(model.backbone, painting(), ["relu1_1", "relu2_1", "relu3_1", "relu4_1"])  # type: ignore[attr-defined]
    assert torch.allclose(model.stylize(picture, card), model.stylize(picture, painting()), atol=1e-3)


def test_the_style_counts_little_at_first(picture: torch.Tensor) -> None:
    learner = AdaINTraining(random_slim(), PerceptualLoss(random_slim(heads=True)), slim_decoder())
    with torch.no_grad():
        first, half, last = (learner.training_terms(picture, painting(48, 64), p)["style"] for p in (0.0, 0.4, 1.0))
    assert torch.allclose(first, 0.2 * last)
    assert torch.equal(half, last)
