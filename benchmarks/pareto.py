"""Style loss against content loss, strength by strength, of every method that paints any style in one pass.

    pip install matplotlib
    python benchmarks/pareto.py --content PHOTOS --style PAINTINGS --loss-network FOLDER -o benchmarks/pictures
    python benchmarks/pareto.py ... --pairs 120 --methods swift wct --strengths 0.6 1

Photo number i of the sorted folder meets the paintings i, i + 13 and i + 26, all at 512x512; of these pairs so many
are taken, evenly. Style loss, content loss and SSIM are those of `impasto evaluate`, their network in bfloat16 where
the processor has it. Writes pareto.json and pareto.png, and with --sheet sheet.jpg: photographs that come with
scikit-image by built-in styles, method beside method.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import show
from torch import Tensor

import impasto
from impasto.evaluation.measure import load_loss_network
from impasto.evaluation.metrics import CONTENT_LAYER, STYLE_LAYERS, content_loss, describe_style, ssim, style_loss
from impasto.evaluation.pairs import list_pictures, read_sized
from impasto.images.contact_sheet import contact_sheet
from impasto.images.files import read_image, write_image
from impasto.networks.layers import inference

SIDE = 512
OFFSETS = (0, 13, 26)
METHODS = ("swift", "metanet", "wct", "adain", "sanet")
PUBLISHED = {"MicroAST (AAAI 2023)": (0.207, 0.644, 0.515)}
"""Style loss, content loss and SSIM on the 120 pairs of the best light network there is, with its authors' weights."""

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
STYLES = ("starry-night", "great-wave", "udnie", "the-scream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--style", type=Path, required=True)
    parser.add_argument("--loss-network", required=True)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--strengths", nargs="+", type=float, default=[0.4, 0.6, 0.8, 1.0])
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sheet", action="store_true")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    gauge = Gauge(arguments.loss_network)
    pairs = choose_pairs(arguments.content, arguments.style, arguments.pairs)
    rows = [row for name in arguments.methods for row in measure(name, pairs, arguments.strengths, gauge)]
    result = {"benchmark": "pareto", "pairs": len(pairs), "rows": rows}
    (arguments.output / "pareto.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(rows, arguments.output / "pareto.png")
    if arguments.sheet:
        write_image(make_sheet(arguments.methods), arguments.output / "sheet.jpg", quality=85)
    show(result, rows)


def choose_pairs(content: Path, style: Path, count: int) -> list[tuple[Path, Path]]:
    """`count` of the protocol's pairs."""
    photos, paintings = (sorted(list_pictures(folder).values()) for folder in (content, style))
    pairs = [
        (photo, paintings[(number + offset) % len(paintings)])
        for number, photo in enumerate(photos)
        for offset in OFFSETS
    ]
    return pairs[:: max(1, len(pairs) // count)][:count]


class Gauge:
    """The loss network and what it has seen of photos and paintings."""

    def __init__(self, name: str) -> None:
        self.network: Any = load_loss_network(name)
        self.seen: dict[Path, tuple[Tensor, Any, Tensor]] = {}

    def look(self, image: Tensor) -> tuple[Any, Tensor]:
        """Style statistics and content features."""
        with inference(torch.device("cpu"), "auto"):
            features = {name: value.float() for name, value in self.network(image, STYLE_LAYERS).items()}
        return describe_style(features), features[CONTENT_LAYER]

    def picture(self, path: Path) -> tuple[Tensor, Any, Tensor]:
        """The picture itself, and what is seen of it."""
        if path not in self.seen:
            image = read_sized(path, (SIDE, SIDE))
            self.seen[path] = (image, *self.look(image))
        return self.seen[path]


@torch.no_grad()
def measure(
    name: str, pairs: Sequence[tuple[Path, Path]], strengths: Sequence[float], gauge: Gauge
) -> Iterator[dict[str, Any]]:
    """One row for each strength."""
    model = impasto.load(name)
    for strength in strengths:
        found = []
        for photo, painting in pairs:
            (content, _, seen), (style, wanted, _) = gauge.picture(photo), gauge.picture(painting)
            painted = model.stylize(content, style, strength=strength)
            statistics_, features = gauge.look(painted)
            found.append((style_loss(statistics_, wanted), content_loss(features, seen), ssim(painted, content)))
        style_, content_, similarity = (statistics.mean(column) for column in zip(*found, strict=True))
        yield {"method": name, "strength": strength, "style": style_, "content": content_, "ssim": similarity}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The curves, one a method, and the published mark."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["method"] for row in rows):
        own = sorted((row for row in rows if row["method"] == name), key=lambda row: row["strength"])
        axes.plot([row["content"] for row in own], [row["style"] for row in own], marker="o", label=name)
        for row in own:
            place = (row["content"], row["style"])
            axes.annotate(f"{row['strength']:g}", place, xytext=(4, 4), textcoords="offset points", fontsize=7)
    for name, (style, content, _) in PUBLISHED.items():
        axes.plot([content], [style], marker="*", markersize=14, linestyle="none", color="black", label=name)
    axes.set(
        xlabel="content loss", ylabel="style loss", title="Nearer to the lower left corner is better", yscale="log"
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=110)


def make_sheet(methods: Sequence[str]) -> Tensor:
    """Photographs by built-in styles, a column for each method."""
    import skimage

    models = [impasto.load(name) for name in methods]
    folder = Path(skimage.__file__).parent / "data"
    rows = []
    for file, style in zip(PHOTOS, STYLES, strict=True):
        photo = read_image(folder / file)
        rows.append([photo, *(model.stylize(photo, impasto.load_style(style)) for model in models)])
    return contact_sheet(rows, row_labels=STYLES, column_labels=("photo", *methods), cell=300)


if __name__ == "__main__":
    main()
