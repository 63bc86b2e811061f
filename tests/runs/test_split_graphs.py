"""The graphs that the page in the browser runs give the command line's pictures, at any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from impasto.errors import ImpastoError
from impasto.runs import split_graphs
from impasto.stylizers.generated_network import GeneratedNetworks
from impasto.stylizers.styles import mix
from tiny import narrow, painting

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
SIZES = ((48, 64), (33, 47), (41, 54), (16, 30))


@pytest.fixture(scope="module")
def model() -> GeneratedNetworks:
    found = narrow("swift")
    assert isinstance(found, GeneratedNetworks)
    return found


def session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def numbers_of(model: GeneratedNetworks, image: torch.Tensor) -> np.ndarray[Any, Any]:
    return model.encode_style(image)["hidden"][None].numpy()


def test_style_numbers_are_the_methods(model: GeneratedNetworks) -> None:
    encode = session(split_graphs.style_graph(model))
    for size in ((40, 56), (61, 33)):
        image = painting(*size)
        (found,) = encode.run(None, {"painting": image.numpy()})
        np.testing.assert_allclose(found, numbers_of(model, image), atol=2e-4)


def test_photo_and_numbers_give_the_methods_picture(model: GeneratedNetworks) -> None:
    style = model.encode_style(painting())
    paint = session(split_graphs.painting_graph(model))
    for size in SIZES:
        photo = painting(*size, seed=2)
        (found,) = paint.run(None, {"photo": photo.numpy(), "numbers": style["hidden"][None].numpy()})
        assert np.abs(found - model.transfer(photo, style).numpy()).max() < 1e-3


def test_styles_mix_by_their_numbers(model: GeneratedNetworks) -> None:
    first, second = model.encode_style(painting(seed=3)), model.encode_style(painting(seed=4))
    photo, mixed = painting(seed=2), mix([first, second], [0.3, 0.7])
    numbers = 0.3 * first["hidden"] + 0.7 * second["hidden"]
    paint = session(split_graphs.painting_graph(model))
    (found,) = paint.run(None, {"photo": photo.numpy(), "numbers": numbers[None].numpy()})
    assert np.abs(found - model.transfer(photo, mixed).numpy()).max() < 1e-3


def run_in_pieces(model: GeneratedNetworks, photo: torch.Tensor, style: Any, **given: Any) -> Any:
    write, paint = session(split_graphs.kernels_graph(model)), session(split_graphs.network_graph(model))
    names = [output.name for output in write.get_outputs()]
    kernels = dict(zip(names, write.run(None, {"numbers": style["hidden"][None].numpy()}), strict=True))
    count = split_graphs.describe_network(model)["normed"]
    feeds = {"earlier": np.zeros((2, count), np.float32), "share": np.zeros(1, np.float32), **given}
    return paint.run(["picture", "measured"], {"photo": photo.numpy(), **kernels, **feeds})


def test_the_pieces_for_the_page_give_the_same_picture_and_can_go_on_from_earlier_moments(
    model: GeneratedNetworks,
) -> None:
    style, photo, other = model.encode_style(painting()), painting(33, 47, seed=2), painting(33, 47, seed=9)
    picture, measured = run_in_pieces(model, photo, style)
    assert np.abs(picture - model.transfer(photo, style).numpy()).max() < 1e-3
    again, used = run_in_pieces(model, photo, style, earlier=measured, share=np.ones(1, np.float32))
    np.testing.assert_allclose(again, picture, atol=1e-3)
    np.testing.assert_allclose(used, measured)
    _, of_other = run_in_pieces(model, other, style)
    steady, between = run_in_pieces(model, photo, style, earlier=of_other, share=np.full(1, 0.5, np.float32))
    first = slice(0, model.network.template.normed[0])  # later layers depend on how the first ones were normalised
    np.testing.assert_allclose(between[:, first], 0.5 * (measured + of_other)[:, first], rtol=1e-3, atol=1e-4)
    assert np.abs(steady - picture).max() > 1e-3


def test_the_description_names_every_weight_once(model: GeneratedNetworks) -> None:
    about = split_graphs.describe_network(model)
    kinds = ("weight", "bias", "scale", "shift", "gain")
    named = [layer[kind] for layer in about["layers"] for kind in kinds if kind in layer]
    assert sorted(named) == sorted(split_graphs.kernel_sizes(model.network))


def test_methods_without_style_numbers_are_refused() -> None:
    with pytest.raises(ImpastoError, match="adain has no style numbers to split at: export swift"):
        split_graphs.check_needs(narrow("adain"))
