"""What the tests of the documentation share: commands and programs that it shows, files to work on."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import impasto
from cli_support import make_picture
from impasto.cli.main import main, make_app
from impasto.images.files import write_image
from impasto.methods import find_method
from impasto.options import Options
from impasto.stylizers.styles import BUILT_IN, save_style
from impasto.weights import manifest, resolve

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "methods")]
"""All that is written by hand; the pages of methods are generated."""

PAINTING = [
    ("stylize",),
    ("batch",),
    ("video",),
    ("live",),
    ("sweep",),
    ("export",),
    ("export-style",),
    ("style", "extract"),
    ("evaluate",),
]

REHEARSING = ("stylize", "batch", "video", "sweep", "train", "fit")
OUTPUTS = {"-o", "--output", "--strip", "--report", "--preview", "--markdown", "--make"}
PICTURES = (".png", ".jpg", ".tif")
CLASSES = ("FOLDER", "photos-by-class/")
FOLDERS = ("PHOTOS", "PAINTINGS", "ARTWORKS")


# --- what is shown


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a Markdown text in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[str]:
    """Every command of impasto's in the shell blocks of a Markdown text, without pipes and redirections."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for joined, words in itertools.groupby(shlex.split(line, comments=True), key=("&&", "|").__contains__):
                command = list(itertools.takewhile(lambda word: word != ">", words))
                if not joined and command[:1] == ["impasto"]:
                    yield shlex.join(command)


def mentioned(text: str) -> Iterator[str]:
    """Every `impasto ...` within a sentence, without those that are patterns."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for found in re.findall(r"`(impasto [^`]+)`", prose):
        if not re.search(r"[A-Z]{3}|\.\.\.|\|", found):
            yield " ".join(found.split())


def shown(language: str) -> list[str]:
    """All of `commands`, in README and in the pages of one language, each once."""
    return list(dict.fromkeys(c for page in pages(language) for c in commands(page.read_text(encoding="utf-8"))))


def pages(language: str) -> list[Path]:
    """README and the pages of one language."""
    return [page for page in PAGES if page.parent == ROOT or language in page.relative_to(ROOT).parts]


# --- whether it can be read


def parse(words: list[str]) -> tuple[tuple[str, ...], Any]:
    """The verbs of a command and what its declared flags say; raises what the command line would."""
    command: Any = typer.main.get_command(make_app())
    verbs: tuple[str, ...] = ()
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):  # not parsed: some of these flags act at once
            known = {flag for parameter in command.params for flag in parameter.opts}
            assert set(words) <= known | {"--help"}, f"impasto has no {words}"
            return verbs, None
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, verbs, words = command.commands[words[0]], (*verbs, words[0]), words[1:]
    plain = [word for word in words if word not in ("--help", "-h")]
    return verbs, command.make_context("impasto", plain, resilient_parsing=plain != words)


def check_flags(verbs: tuple[str, ...], context: Any) -> None:
    """Read the flags that `verbs` does not declare, too; raises OptionError."""
    from impasto.commands.arguments import take_flags

    if context is None or verbs == ("serve",):  # its limits are no method's options
        return
    plain = [context.params[one.name] for one in context.command.params if one.param_type_name == "argument"]
    left = [str(word) for value in plain if value for word in (value if isinstance(value, list) else [value])]
    left += context.args
    if verbs in PAINTING:
        method = find_method(context.params.get("method"))
        preset = method.presets[context.params.get("preset") or "default"]
        _, values = take_flags(context, left, method.Options, method.name, "")
        method.Options.parse({**preset, **values}, method.name)
    elif verbs and (options := options_of(verbs, context)):
        _, values = take_flags(context, left, options, " ".join(verbs), "")
        options.parse(values, " ".join(verbs))
    else:
        assert not [word for word in left if word.startswith("-")]


def options_of(verbs: tuple[str, ...], context: Any) -> type[Options] | None:
    """The options that a recipe takes besides its flags."""
    from impasto.commands.adapt import AdaptOptions
    from impasto.commands.early_checks import training_names
    from impasto.commands.train import find_any_training
    from impasto.transfer.tasks import FitOptions
    from impasto.vision.attack import AttackOptions
    from impasto.vision.dreams import DreamOptions
    from impasto.vision.inversion import InversionOptions

    if verbs == ("train",):
        task = context.params["task"]
        training = find_any_training(task) if task in training_names() else None
        return training.options if training else None
    recipes = {
        "attack": AttackOptions,
        "invert": InversionOptions,
        "dream": DreamOptions,
        "fit": FitOptions,
        "adapt": AdaptOptions,
    }
    return recipes.get(verbs[-1])


# --- whether it would work


def rehearse(words: list[str]) -> int:
    """Run a command with --dry-run on files that are put here for it; returns its exit code."""
    method = dict(itertools.pairwise(words)).get("-m")
    for before, word in zip(["", *words], words, strict=False):
        if before not in OUTPUTS:
            provide(word, before, method)
    put_picture(Path("piped.png"))
    with pytest.MonkeyPatch.context() as patch, open("piped.png") as piped, same_memory():
        patch.setattr("sys.stdin", piped)
        return main([*words, "--dry-run"])


@contextlib.contextmanager
def same_memory() -> Iterator[None]:
    """Undo --max-memory afterwards: it bounds the whole process, and all that it starts."""
    try:
        import resource
    except ImportError:  # no Unix: there is no bound to undo
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def provide(word: str, before: str, method: str | None = None) -> None:
    """Put the file or the folder that `word` names here, unless it is none; a style card is one for `method`."""
    path = Path(word)
    if path.exists():
        return
    if before == "--recipe":
        put_picture(Path("stand-in.png"))
        assert main(["stylize", "stand-in.png", "--style", "udnie", "-o", word, "--quiet"]) == 0
    elif word in CLASSES:
        for i in range(8):
            put_picture(path / "ab"[i % 2] / f"{i}.png", i)
    elif word.endswith("/") or "*" in word or word in FOLDERS:
        for i in range(3):
            put_picture(Path(word.split("*")[0]) / f"{i}.jpg", i, 160)
    elif path.suffix in PICTURES:
        put_picture(path)
    elif path.suffix == ".safetensors":
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.stem in manifest():
            shutil.copy(resolve(path.stem), path)
        elif method == "metastyle":  # its cards are networks: no built-in style has one
            save_style(impasto.load(method).examples[0], path)
        else:
            shutil.copy(BUILT_IN / "udnie.safetensors", path)
    elif path.suffix == ".mp4":
        from clips import moving_shapes, write_clip

        write_clip(moving_shapes(3, 48, 64), path)


def put_picture(path: Path, seed: int = 1, side: int = 48) -> None:
    """A small picture at `path`, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(make_picture(seed, side, side), path)
