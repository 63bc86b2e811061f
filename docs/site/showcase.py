"""What the documentation shows: which method for what, with a picture of each; the built-in styles as small pictures.

The pictures of methods are docs/pictures/choice/METHOD.jpg, made by tools/make_docs_pictures.py; a method whose picture
is not made yet shows that of its own page. Those of styles are painted when the documentation is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from words import say, translate

import impasto

DOCS = Path(__file__).parent.parent
PICTURES = DOCS / "pictures"
THUMBNAILS = DOCS.parent / "build" / "styles"

CHOICE: dict[str, dict[str, str]] = {
    "swift": {
        "en": "The quickest. Paints videos, the camera, and in the browser.",
        "zh": "最快：视频、摄像头和浏览器都由它来画。",
    },
    "wct": {
        "en": "You choose how much of the photo's drawing stays: `--detail`.",
        "zh": "用 `--detail` 决定保留多少照片的线条。",
    },
    "adain": {"en": "The simplest: means and deviations alone.", "zh": "最简单：只用均值和标准差。"},
    "sanet": {"en": "Textures go where they belong: sky to sky.", "zh": "肌理各归其位：天空取自天空。"},
    "conditional_norm": {"en": "All built-in styles in one trained network.", "zh": "一个网络学会了全部内置风格。"},
    "johnson": {"en": "A trained network for each painting.", "zh": "每幅画一个训练好的网络。"},
    "stylebank": {"en": "Styles that are added without touching the others.", "zh": "添加新风格，不影响已有的。"},
    "metanet": {
        "en": "Makes a small network of any painting, to keep and run elsewhere.",
        "zh": "由任何一幅画生成小网络，可另存、可在别处运行。",
    },
    "metastyle": {
        "en": "Learns your painting in a minute: `impasto adapt`.",
        "zh": "`impasto adapt` 一分钟学会您的画。",
    },
    "texture_network": {"en": "A pyramid of networks for each painting.", "zh": "每幅画一个多尺度网络。"},
    "nnst_d": {
        "en": "A painted look at once, of any painting. The default.",
        "zh": "任何一幅画，马上就有画出来的样子。默认方法。",
    },
    "nnst": {
        "en": "The most painted look. Each place takes strokes from the place most like it.",
        "zh": "最像画出来的：每一处取画中最相似处的笔触。",
    },
    "gatys": {"en": "The classic: the picture itself is optimised.", "zh": "经典方法：直接优化图像本身。"},
}
"""What each method is for, in one sentence; the quick ones first."""

TIMES = {"nnst": "a minute"}
"""Which word of `words` says how long a method takes, if it is not that of its kind."""


def show(picture: str, alt: str, caption: str) -> str:
    """One picture with a caption, as Markdown."""
    return f":::{{figure}} {picture}\n:alt: {alt}\n\n{caption}\n:::\n"


def grid(name: str, figures: list[str]) -> str:
    """Figures side by side, as many as fit."""
    return f"::::{{container}} {name}\n" + "\n".join(figures) + "::::\n"


def order_methods(names: list[str]) -> list[str]:
    """Put methods in the order of `CHOICE`; others come last."""
    known = list(CHOICE)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def choose_method(names: list[str], slow: set[str], language: str) -> str:
    """Return what each method is for, how long it takes and how its pictures look. slow: those that optimise."""
    figures = []
    for name in order_methods(names):
        picture = next((path for path in candidates(name) if path.is_file()), None)
        if picture is None:
            continue  # nothing was painted by it yet; the table below has it
        text = CHOICE.get(name, {}).get(language, "")
        time = say(language, TIMES.get(name, "half a minute" if name in slow else "a second"))
        caption = f"[`{name}`](methods/{name}.md), {time}. {text}".strip()
        figures.append(show(f"../pictures/{picture.relative_to(PICTURES)}", name, caption))
    return grid("choice", figures)


def candidates(name: str) -> tuple[Path, Path]:
    """Where a picture by the method `name` may be."""
    return PICTURES / "choice" / f"{name}.jpg", PICTURES / "methods" / f"{name}.jpg"


def show_page(language: str) -> str:
    """Return a picture of the server's page, made by tools/make_page_picture.py; nothing if there is none yet."""
    there = (PICTURES / "page.jpg").is_file()
    return f"![{say(language, 'page')}](../../pictures/page.jpg)\n" if there else ""


def show_styles(infos: dict[str, dict[str, Any]], cards: dict[str, Path], language: str) -> str:
    """Return the built-in styles, with title, artist and year under a picture in each. infos, cards: by name."""
    paint_thumbnails(cards)
    figures = []
    for name, info in infos.items():
        title, artist = translate(language, info["title"]), translate(language, info["artist"])
        year = info["year"] if info["year"].isdigit() else translate(language, info["year"])
        caption = f"`{name}`\\\n*{title}*\\\n{artist}, {year}"
        figures.append(show(f"../../build/styles/{name}.jpg", f"{title}, {artist}", caption))
    return grid("styles", figures)


def paint_thumbnails(cards: dict[str, Path]) -> None:
    """Paint the server's small landscape in each style, unless that was done since the style or the method changed."""
    from impasto.images.landscape import landscape

    THUMBNAILS.mkdir(parents=True, exist_ok=True)
    network = (Path(impasto.__file__).parent / "weights" / "swift.safetensors").stat().st_mtime
    targets = {name: THUMBNAILS / f"{name}.jpg" for name in cards}
    old = [name for name, path in targets.items() if not path.is_file() or path.stat().st_mtime < network]
    stale = [name for name in cards if name in old or targets[name].stat().st_mtime < cards[name].stat().st_mtime]
    if stale:
        model = impasto.load()
        for name in stale:
            impasto.write_image(model.stylize(landscape(), name), targets[name], quality=88)
