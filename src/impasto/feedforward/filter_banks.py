"""An encoder, a decoder and a bank of filters for each style between them (Chen et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from impasto.feedforward.transformation_network import (
    Form,
    LayerRow,
    TransformLayer,
    as_picture,
)

SIDE = 4
"""Stride of the encoder's output, in the photo's pixels."""


class StyleBankNetwork(nn.Module):
    """An encoder, a decoder, and a bank for every style, each a row of layers; the encoder's maps have stride 4."""

    def __init__(self, encoder: LayerRow, decoder: LayerRow, banks: Iterable[LayerRow]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.banks = nn.ModuleList(banks)

    def forward(self, images: Tensor, numbers: Sequence[int]) -> Tensor:
        """Paint (B, 3, H, W) in [0, 1], each sample with the bank of its number; returns the same size."""
        encoded = self.encode(images)
        banked = [self.bank(n).run(x[None], images.shape, SIDE) for x, n in zip(encoded, numbers, strict=True)]
        return self.decode(torch.cat(banked), images.shape)

    def rebuild(self, images: Tensor) -> Tensor:
        """Return (B, 3, H, W) in [0, 1] after encoder and decoder alone."""
        return self.decode(self.encode(images), images.shape)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features of pictures, (B, 4b, H / 4, W / 4)."""
        return self.encoder.run(self.encoder.enter(images), images.shape)

    def decode(self, features: Tensor, size: Sequence[int]) -> Tensor:
        """Return the pictures, of the given size, for features."""
        return as_picture(self.decoder.run(features, size, SIDE))

    def bank(self, number: int) -> LayerRow:
        """Return the bank of the style with this number."""
        return cast(LayerRow, self.banks[number])

    def grow(self, more: int) -> None:
        """Add new banks that have learned nothing yet."""
        self.banks.extend(make_bank(self.channels) for _ in range(more))

    @property
    def channels(self) -> int:
        """Number of channels that the banks work on."""
        return self.encoder.row[-1].conv.out_channels

    @property
    def shape(self) -> dict[str, int]:
        """The arguments of `slim_network` other than the number of styles."""
        residuals = sum(layer.form.opens for layer in self.decoder.row)
        return {"width": self.encoder.row[0].conv.out_channels, "residuals": residuals}

    @property
    def shared(self) -> list[nn.Parameter]:
        """Parameters of encoder and decoder."""
        return [*self.encoder.parameters(), *self.decoder.parameters()]


def slim_network(styles: int, width: int = 16, residuals: int = 5) -> StyleBankNetwork:
    """Return the shipped form, with width b: encoder ``c9s1-b, d2b, d4b``, decoder ``R4b x n, u2b, ub, c9s1-3``."""
    banks = (make_bank(4 * width) for _ in range(styles))
    network = StyleBankNetwork(LayerRow(_down(width)), LayerRow(_up(width, residuals)), banks)
    for layer in (*network.encoder.row, *network.decoder.row):
        nn.init.kaiming_normal_(layer.conv.weight, nonlinearity="relu")
        nn.init.zeros_(cast(Tensor, layer.conv.bias))
        if not layer.form.relu:  # so that blocks begin as identities, and pictures as grey
            layer.conv.weight.data /= 10
    return network


def paper_network(styles: int) -> StyleBankNetwork:
    """Return the widths of the paper's network in a widely used port: norms without scale and shift, no biases.

    Departs from it: upsampling by repetition and a convolution, mirrored edges.
    """

    def row(*layers: tuple[int, int, int, Form]) -> LayerRow:
        made = (TransformLayer(inputs, outputs, kernel, form, bias=False) for inputs, outputs, kernel, form in layers)
        return LayerRow(made, own_norms=False, round_up=True)

    half, up = Form(stride=2), Form(up=True)
    encoder = row((3, 32, 9, half), (32, 64, 3, half), (64, 128, 3, Form()), (128, 256, 3, Form()))
    last = Form(up=True, norm=False, relu=False)
    decoder = row((256, 128, 3, Form()), (128, 64, 3, Form()), (64, 32, 3, up), (32, 3, 9, last))
    banks = (row((256, 256, 3, Form()), (256, 256, 3, Form())) for _ in range(styles))
    return StyleBankNetwork(encoder, decoder, banks)


def make_bank(channels: int) -> LayerRow:
    """Return a bank: two convolutions of 3 x 3, each with a norm that has scale and shift, and ReLU.

    At the start it passes features on, with a little noise in its filters.
    """
    bank = LayerRow(TransformLayer(channels, channels, 3, Form(), bias=False) for _ in range(2))
    for layer, scale, shift in zip(bank.row, bank.scales, bank.shifts, strict=True):
        nn.init.kaiming_normal_(layer.conv.weight, nonlinearity="relu")
        layer.conv.weight.data *= 0.3
        layer.conv.weight.data[..., 1, 1] += torch.eye(channels, device=scale.device)
        scale.data.fill_(0.6)  # roughly what a ReLU leaves of a deviation of 1 and a mean of 0
        shift.data.fill_(0.4)
    return bank


def _down(width: int) -> Iterable[TransformLayer]:
    yield TransformLayer(3, width, 9, Form(norm=False), bias=True)
    yield TransformLayer(width, 2 * width, 3, Form(stride=2, norm=False), bias=True)
    yield TransformLayer(2 * width, 4 * width, 3, Form(stride=2, norm=False), bias=True)


def _up(width: int, residuals: int) -> Iterable[TransformLayer]:
    for _ in range(residuals):
        yield TransformLayer(4 * width, 4 * width, 3, Form(norm=False, opens=True), bias=True)
        yield TransformLayer(4 * width, 4 * width, 3, Form(norm=False, relu=False, closes=True), bias=True)
    yield TransformLayer(4 * width, 2 * width, 3, Form(norm=False, up=True), bias=True)
    yield TransformLayer(2 * width, width, 3, Form(norm=False, up=True), bias=True)
    yield TransformLayer(width, 3, 9, Form(norm=False, relu=False), bias=True)
