"""Make the built-in styles from a folder of pictures: `python tools/make_styles.py FOLDER`.

tools/styles.toml names the works and, relative to FOLDER, their pictures. Each becomes a style card in the package that
holds the painting's moments over vgg19-slim in two kinds: with max pooling, which `wct` and `adain` read, and with
average pooling at full and at half size, which `gatys` reads; a hundred positions of its feature maps, for `sanet`; and
some two thousand of its places, for `nnst`.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.images.files import read_image
from impasto.images.tensors import fit, resize
from impasto.methods.nnst import NNST, NNSTOptions
from impasto.methods.sanet import SANet, SANetOptions, SANetwork
from impasto.networks.backbone import SLIM, SLIM_LAYERS
from impasto.networks.backbones import load_backbone
from impasto.stylizers.place_cards import summarize
from impasto.stylizers.styles import BUILT_IN, Style, measure, save_style

TABLE = Path(__file__).with_name("styles.toml")
LONGER_SIDE = 512
POSITIONS = 100
LAST_YEAR = 1954
NOTED = ("title", "artist", "years", "year")
FIELDS = {*NOTED, "file"}


def read_table(path: Path = TABLE) -> dict[str, dict[str, Any]]:
    """The works by name; ends the program if an entry is incomplete or its artist died too late."""
    with path.open("rb") as file:
        table: dict[str, dict[str, Any]] = tomllib.load(file)
    for name, entry in table.items():
        if set(entry) - {"crop"} != FIELDS:
            raise SystemExit(f"{path.name}: {name} needs {', '.join(sorted(FIELDS))}, and may have crop")
        if year_of_death(entry) > LAST_YEAR:
            raise SystemExit(f"{path.name}: the artist of {name} died after {LAST_YEAR}")
    return table


def year_of_death(entry: dict[str, Any]) -> int:
    """1890 of the years 1853–1890."""
    return int(entry["years"].split("–")[1])


def crop(image: Tensor, share: float) -> Tensor:
    """`image`, (1, 3, H, W), without that share of its height and width on every side."""
    top, left = (round(share * length) for length in image.shape[-2:])
    return image[..., top : image.shape[-2] - top, left : image.shape[-1] - left]


def make_style(image: Tensor, info: dict[str, Any]) -> Style:
    """The painting `image`, (1, 3, H, W), in all kinds that the methods read by default."""
    image = resize(image, *fit(image.shape[-2], image.shape[-1], LONGER_SIDE))
    info = {**info, "licence": "public domain", "width": image.shape[-1], "height": image.shape[-2]}
    layers = SLIM_LAYERS[1]
    one_pass = measure(load_backbone(SLIM), image, layers, coarse=False)
    optimised = measure(load_backbone(SLIM, pooling="average"), image, layers)
    maps = SANet(SANetOptions(positions=POSITIONS, precision="fp32"), network=SANetwork.slim()).encode_style(image)
    neighbours = NNST(NNSTOptions.parse({"style_weight": 0.0}, "nnst"))
    places = summarize(neighbours.encode_style(image), neighbours.network.widths)
    others = [Style(other, other.kind, info) for other in (optimised, maps, places)]
    return Style(one_pass, one_pass.kind, info, others)


def main() -> None:
    """Make every card of the table, and remove those that it no longer names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures lie")
    parser.add_argument("-o", "--output", type=Path, default=BUILT_IN, help="where the cards go")
    arguments = parser.parse_args()
    table = read_table()
    arguments.output.mkdir(parents=True, exist_ok=True)
    total = 0
    for name, entry in table.items():
        image = crop(read_image(arguments.folder / entry["file"]), entry.get("crop", 0.0))
        card = arguments.output / f"{name}.safetensors"
        save_style(make_style(image, {key: entry[key] for key in NOTED}), card, half=True)
        total += card.stat().st_size
        print(f"{card}  {card.stat().st_size} bytes, from {image.shape[-1]}x{image.shape[-2]}")
    for card in arguments.output.glob("*.safetensors"):
        if card.stem not in table:
            card.unlink()
    print(f"{len(table)} styles, {total} bytes")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
