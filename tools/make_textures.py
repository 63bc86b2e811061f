"""Cut the textures of the shipped generator out of a folder of pictures: `python tools/make_textures.py FOLDER -o OUT`.

tools/textures.toml names the works, their pictures relative to FOLDER, and which part of each is the texture. Then
`impasto train texture --style OUT` learns them.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

from make_styles import LAST_YEAR, NOTED, year_of_death
from torch import Tensor

from impasto.images.files import read_image, write_image

TABLE = Path(__file__).with_name("textures.toml")
FIELDS = {*NOTED, "file", "box"}


def read_table(path: Path = TABLE) -> dict[str, dict[str, Any]]:
    """The works by texture; ends the program if an entry is incomplete or its artist died too late."""
    with path.open("rb") as file:
        table: dict[str, dict[str, Any]] = tomllib.load(file)
    for name, entry in table.items():
        if set(entry) != FIELDS or len(entry["box"]) != 4:
            raise SystemExit(f"{path.name}: {name} needs {', '.join(sorted(FIELDS))}")
        if year_of_death(entry) > LAST_YEAR:
            raise SystemExit(f"{path.name}: the artist of {name} died after {LAST_YEAR}")
    return table


def cut(image: Tensor, box: list[float]) -> Tensor:
    """The part of `image`, (1, 3, H, W), between left, top, right and bottom, shares of its width and height."""
    height, width = image.shape[-2:]
    left, right = round(box[0] * width), round(box[2] * width)
    top, bottom = round(box[1] * height), round(box[3] * height)
    return image[..., top:bottom, left:right]


def main() -> None:
    """Cut every texture of the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the pictures lie")
    parser.add_argument("-o", "--output", type=Path, required=True, help="where the textures go")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, entry in read_table().items():
        image = cut(read_image(arguments.folder / entry["file"]), entry["box"])
        write_image(image, arguments.output / f"{name}.png", overwrite=True)
        print(f"{name}: {image.shape[-1]}x{image.shape[-2]}, {entry['artist']}, {entry['title']}, {entry['year']}")


if __name__ == "__main__":
    main()
