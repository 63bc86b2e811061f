"""Make the documentation's pictures: `python tools/make_docs_pictures.py [NAME ...]`.

tools/docs_pictures.toml says of each by which commands it is made, from photographs that come with scikit-image.
Without names those are made that docs/pictures does not hold yet.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import skimage
import torch
from torch import Tensor

from impasto.cli.main import main as run_impasto
from impasto.images.files import read_image, write_image
from impasto.images.tensors import fit, resize

TABLE = Path(__file__).with_name("docs_pictures.toml")
PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
KINDS = ("choice", "figures", "gallery", "methods")
HEIGHTS = {"choice": 240, "methods": 240, "gallery": 360}
WIDEST, GAP, QUALITY = 1200, 8, 82


def read_table(path: Path = TABLE) -> dict[str, dict[str, Any]]:
    """The table's sections by name."""
    with path.open("rb") as file:
        return tomllib.load(file)


def shuffle(image: Tensor, side: int) -> Tensor:
    """`image`, (1, 3, H, W), with its squares in random order; what fills no square is cut off."""
    squares = image.unfold(2, side, side).unfold(3, side, side)  # (1, 3, rows, columns, side, side)
    rows, columns = squares.shape[2:4]
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(0))
    mixed = squares.flatten(2, 3)[:, :, order].unflatten(2, (rows, columns))
    return mixed.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def make_inputs(table: dict[str, dict[str, Any]]) -> None:
    """Put the photographs, and what is made of them, into the current folder."""
    for name, file in table["photos"].items():
        write_image(read_image(Path(skimage.__file__).parent / "data" / file), f"{name}.png")
    for name, command in table["inputs"].items():
        verb, *words = shlex.split(command)
        if verb == "shuffle":
            write_image(shuffle(read_image(words[0]), int(words[1])), f"{name}.png")
        else:
            write_image(run(command, ""), f"{name}.png")


def make_cards(cards: dict[str, str], commands: list[str]) -> None:
    """Put those style cards into the current folder that one of the commands names."""
    for name, command in cards.items():
        file = f"{name}.safetensors"
        if any(file in shlex.split(other) for other in commands) and not Path(file).exists():
            _, *words = shlex.split(command)
            if run_impasto([*words, "-o", file, "--quiet"]):
                raise SystemExit(f"{command} failed")


def run(command: str, take: str) -> Tensor:
    """What `command` writes, or what it writes besides under a name that ends in `take`; or the picture it names."""
    verb, *words = shlex.split(command)
    if verb != "impasto":
        return read_image(verb)
    if run_impasto([*words, "-o", "out.png", "--force", "--quiet"]):
        raise SystemExit(f"{command} failed")
    return read_image(f"out-{take}.png" if take else "out.png")


def join(pictures: list[Tensor], height: int | None) -> Tensor:
    """`pictures` side by side, at one height, as wide as a page at most."""
    height = height or max(picture.shape[-2] for picture in pictures)
    row: list[Tensor] = []
    for picture in pictures:
        tall, wide = picture.shape[-2:]
        row += [torch.ones(1, 3, height, GAP), resize(picture, height, round(wide * height / tall))]
    joined = torch.cat(row[1:], dim=3)
    return resize(joined, *fit(joined.shape[-2], joined.shape[-1], max(WIDEST, joined.shape[-2])))


def main() -> None:
    """Make what is named, or what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="pictures to make again, such as gallery/cat-udnie")
    names = parser.parse_args().names
    table = read_table()
    wanted = {f"{kind}/{name}": table[kind][name] for kind in KINDS for name in table[kind]}
    if unknown := set(names) - set(wanted):
        raise SystemExit(f"no such picture: {', '.join(sorted(unknown))}; there are: {', '.join(wanted)}")
    targets = {name: PICTURES / f"{name}.jpg" for name in wanted}
    todo = names or [name for name in wanted if not targets[name].exists()]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_inputs(table) if todo else None
        for name in todo:
            entry = wanted[name]
            make_cards(table["cards"], entry["commands"])
            pictures = [run(command, entry.get("take", "")) for command in entry["commands"]]
            targets[name].parent.mkdir(parents=True, exist_ok=True)
            joined = join(pictures, entry.get("height", HEIGHTS.get(name.split("/")[0])))
            write_image(joined, targets[name], quality=QUALITY)
            print(
                f"{name}  {joined.shape[-1]}x{joined.shape[-2]}, {targets[name].stat().st_size // 1000} kB", flush=True
            )


if __name__ == "__main__":
    main()
