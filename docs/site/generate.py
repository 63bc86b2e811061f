"""What the documentation takes from the code: pages of methods, tables, the command line, the gallery, as Markdown.

Nothing here needs Sphinx. A method gets its page from its docstrings, its `Options`, the manifest, benchmarks/README.md
and tools/docs_pictures.toml alone; what else there is to say of it stands in docs/LANGUAGE/notes/METHOD.md. A note that
begins with a heading replaces heading and introduction.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import showcase
import typer.main
from words import SENTENCES, phrases, say, translate

from impasto.cli.main import make_app
from impasto.commands.methods_table import describe_options, shown, summarize
from impasto.methods import find_method, list_methods
from impasto.stylizers.base import Stylizer
from impasto.stylizers.styles import built_in_styles, load_style
from impasto.weights import load_weights, manifest, resolve

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
PICTURES = tomllib.loads((ROOT / "tools" / "docs_pictures.toml").read_text(encoding="utf-8"))
BENCHMARKS = ROOT / "benchmarks" / "README.md"
USES = {
    "metastyle": [
        "impasto adapt painting.jpg -o card.safetensors",
        "impasto stylize photo.jpg card.safetensors -m metastyle",
    ]
}
"""How methods are used that are not used as others are."""

DEPARTS = "Departs from the paper:"
SIGNS = {"ge": "≥ {:g}", "gt": "> {:g}", "le": "≤ {:g}", "lt": "< {:g}"}


# --- tables


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def mark_flags(text: str) -> str:
    """`text` with its flags set as code."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", part) for part in parts[::2]]
    return "".join(parts)


def options_table(method: type[Stylizer], language: str) -> str:
    """A method's options: flag, values, default, meaning."""
    rows = []
    for entry in describe_options(method.Options):
        value = shown(entry["default"])
        plain = say(language, value) if value in ("none", "yes", "no") else f"`{value}`"
        meaning = mark_flags(translate(language, entry["help"]))
        rows.append([f"`{entry['flag']}`", _values(entry, language), plain, meaning])
    return table([say(language, key) for key in ("option", "values", "default", "meaning")], rows)


def _values(entry: dict[str, Any], language: str) -> str:
    if entry["choices"]:
        return ", ".join(f"`{choice}`" for choice in entry["choices"])
    found = re.fullmatch(r"list of (.*)s", entry["type"])
    kind = entry["type"] if found is None else found[1]
    plain = say(language, "names") if kind == "name" else say(language, kind)
    values = say(language, "list", plain) if found and kind != "name" else plain
    limits = [
        say(language, key, limit) if key == "min_length" else SIGNS[key].format(limit)
        for key, limit in entry["range"].items()
    ]
    return ", ".join([values, *limits])


def presets_table(method: type[Stylizer], language: str) -> str:
    """A method's presets, and what each changes."""
    rows = []
    for name, values in method.presets.items():
        changes = [f"`{option.replace('_', '-')}={shown(value)}`" for option, value in values.items()]
        rows.append([f"`{name}`", ", ".join(changes) or say(language, "nothing")])
    return table([say(language, key) for key in ("preset", "changes")], rows)


def methods_table(language: str) -> str:
    """All methods with links to their pages."""
    rows = []
    for name in list_methods():
        about = summarize(find_method(name))
        summary = _notes(name, language)[1] if language != "en" else about["summary"]
        rows.append([f"[`{name}`](methods/{name}.md)", say(language, about["kind"]), summary or about["summary"]])
    return table([say(language, key) for key in ("method", "kind", "summary")], rows)


def choice(language: str) -> str:
    """Which method for what, with pictures."""
    slow = {name for name in list_methods() if not find_method(name).one_pass}
    return showcase.choose_method(list_methods(), slow, language)


def page(language: str) -> str:
    """What the server's page looks like, once there is a picture of it."""
    return showcase.show_page(language)


def styles_wall(language: str) -> str:
    """The built-in styles, each as a small picture."""
    infos = {name: load_style(card).info for name, card in built_in_styles().items()}
    return showcase.show_styles(infos, built_in_styles(), language)


# --- numbers


def numbers(name: str, language: str = "en") -> str:
    """The rows of benchmarks/README.md that are about the method `name`, under their own headings."""
    found: list[tuple[list[str], list[list[str]]]] = []
    for head, rows in _tables(BENCHMARKS.read_text(encoding="utf-8")):
        own = [row for row in rows if re.match(rf"`{name}`", row[0])]
        if own and head[0] in ("method", "what"):
            found.append((head, own))
    translated = [([translate(language, cell) for cell in line] for line in (head, *rows)) for head, rows in found]
    return "\n".join(table(head, rows) for head, *rows in translated)


def _tables(text: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The tables of a Markdown text: heads and rows."""
    for block in re.findall(r"(?:^\|.*\n)+", text + "\n", re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        yield head, rows


def shipped(name: str) -> list[dict[str, Any]]:
    """The manifest's entries of the method `name`."""
    own = {key for key in manifest() if key == name or load_weights(resolve(key)).config.get("method") == name}
    return [entry for key, entry in manifest().items() if key in own]


def weights_list(name: str, language: str) -> str:
    """The shipped files of the method `name`, as the manifest describes them."""
    lines = []
    for entry in shipped(name):
        lines.append(f"- `{entry['file']}`: {entry['bytes'] / 1e6:.2f} MB, {entry['licence']}")
        data = re.sub(r"^as (vgg19-slim)", lambda same: str(manifest()[same[1]]["data"]), entry["data"])
        about = {"data": data, "where": entry["trained_on"], "quality": entry["quality"]}
        lines += [f"  - {say(language, word)}: {translate(language, text)}" for word, text in about.items()]
    if not lines:
        needed = "weights" in find_method(name).Options.model_fields
        lines = [say(language, "none shipped", name) if needed else say(language, "no weights")]
    return "\n".join(lines) + "\n"


# --- methods


def departures(module: ModuleType) -> list[tuple[str, str]]:
    """What the module's classes and functions say of their departures from the paper, by their names."""
    found = []
    own = [thing for _, thing in inspect.getmembers(module) if getattr(thing, "__module__", "") == module.__name__]
    for thing in sorted(filter(_has_source, own), key=lambda thing: inspect.getsourcelines(thing)[1]):
        text = " ".join((inspect.getdoc(thing) or "").split())
        if DEPARTS in text:
            found.append((thing.__name__, text.split(DEPARTS)[1].strip()))
    return found


def _has_source(thing: Any) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing)


def _departures_list(module: ModuleType, main: str, language: str) -> str:
    parts = []
    for name, text in departures(module):
        sentence = translate(language, text)
        parts.append(sentence if name == main else f"`{name}`: {sentence}")
    return "\n\n".join(part[0].upper() + part[1:] for part in parts) + "\n"


def _notes(name: str, language: str) -> tuple[str, str]:
    """What is written by hand of the method, and the first sentence under its heading."""
    path = DOCS / language / "notes" / f"{name}.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    first = re.match(r"# .*\n\s*(.*?[.。])", text, re.DOTALL)
    return text, " ".join(first[1].split()) if first else ""


def method_page(name: str, language: str) -> str:
    """The whole page of the method `name`."""
    method = find_method(name)
    module = sys.modules[method.__module__]
    note, _ = _notes(name, language)
    idea = (inspect.getdoc(module) or "").replace("``", "`")
    parts = [note if note.startswith("# ") else f"# {method.__name__}\n\n{idea}\n\n{note}"]
    entry = PICTURES["methods"].get(name)
    if entry is not None and (DOCS / "pictures" / "methods" / f"{name}.jpg").is_file():
        parts.insert(1, f"![{name}](../../pictures/methods/{name}.jpg)\n")
    parts.append(f"## {say(language, 'use')}\n\n" + _use(name, entry, language))
    parts.append(f"## {say(language, 'options')}\n\n" + options_table(method, language))
    if len(method.presets) > 1:
        parts.append(f"## {say(language, 'presets')}\n\n" + presets_table(method, language))
    rows = numbers(name, language)
    measured = f"{rows}\n{say(language, 'measured')}\n" if rows else say(language, "unmeasured") + "\n"
    parts.append(f"## {say(language, 'numbers')}\n\n{measured}")
    parts.append(f"## {say(language, 'weights')}\n\n" + weights_list(name, language))
    parts.append(f"## {say(language, 'departures')}\n\n" + _departures_list(module, method.__name__, language))
    return "\n".join(parts)


def commands_of(entry: dict[str, Any]) -> list[str]:
    """The commands that make a picture, with those that make the style cards in them."""
    commands = [command for command in entry["commands"] if command.startswith("impasto ")]
    cards = {f"{name}.safetensors": command for name, command in PICTURES["cards"].items()}
    made = [f"{command} -o {file}" for file, command in cards.items() if any(file in other for other in commands)]
    return [*made, *commands]


def _use(name: str, entry: dict[str, Any] | None, language: str) -> str:
    code = f'import impasto\n\nmodel = impasto.load("{name}")'
    if entry or name in USES:
        commands = commands_of(entry) if entry else USES[name]
    elif hasattr(find_method(name), "learned") and not shipped(name):
        commands = [
            f"impasto train {name} --content photos/ --style painting.jpg -o run",
            f"impasto stylize photo.jpg --style painting -m {name} --weights run/{name}.safetensors",
        ]
        code = code[:-1] + f', weights="run/{name}.safetensors")'
    elif hasattr(find_method(name), "learned"):
        commands = [f"impasto styles -m {name}", f"impasto stylize photo.jpg --style starry-night -m {name}"]
    elif "weights" in find_method(name).Options.model_fields and not shipped(name):
        commands = [
            f"impasto train {name} --content photos/ --style artworks/ -o run",
            f"impasto stylize photo.jpg painting.jpg -m {name} --weights run/{name}.safetensors",
        ]
        code = code[:-1] + f', weights="run/{name}.safetensors")'
    else:
        commands = [f"impasto stylize photo.jpg --style starry-night -m {name}"]
    block = "\n".join([*commands, f"impasto methods {name}"])
    about = f"{say(language, 'photo')}\n\n" if entry else ""
    return f"{about}```sh\n{block}\n```\n\n```python\n{code}\n```\n"


def write_method_pages(folder: Path, language: str) -> None:
    """Write every method's page into `folder`, and remove those of methods that are gone."""
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.md": method_page(name, language) for name in list_methods()}
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# --- the rest


def gallery(language: str) -> str:
    """Every picture of the gallery over the command that made it."""
    parts = []
    for name, entry in PICTURES["gallery"].items():
        block = "\n".join(commands_of(entry))
        parts.append(f"![{name}](../pictures/gallery/{name}.jpg)\n\n```sh\n{block}\n```\n")
    return "\n".join(parts)


def command_line(language: str) -> str:
    """Every command with its arguments and flags, as --help tells them."""
    parts = []
    for words, command in _commands(typer.main.get_command(make_app()), ()):
        name = " ".join(("impasto", *words))
        plain = re.sub(r"\[/?bold\]", "`", inspect.cleandoc(command.help or ""))
        about = translate(language, "\n\n".join(" ".join(part.split()) for part in plain.split("\n\n")))
        parts.append(f"## {name}\n\n{about}\n\n" + _flags_table(command, language))
    return "\n".join(parts)


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _flags_table(command: Any, language: str) -> str:
    rows = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            flag = f"`{parameter.metavar or parameter.name.upper()}`"
        else:
            metavar = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
            flag = ", ".join(f"`{name}`" for name in parameter.opts + parameter.secondary_opts)
            flag = flag[:-1] + f"{metavar}`"
        rows.append([flag, mark_flags(translate(language, parameter.help or ""))])
    return table([say(language, "arguments"), say(language, "meaning")], rows)


PARTS: dict[str, Callable[[str], str]] = {
    "methods": methods_table,
    "choice": choice,
    "page": page,
    "styles": styles_wall,
    "gallery": gallery,
    "command-line": command_line,
}
"""What the directive `generated` can put into a page."""


def untranslated() -> tuple[list[str], list[str]]:
    """What has no Chinese yet, and whose English is gone."""
    for part in PARTS.values():
        part("zh")
    for name in list_methods():
        method_page(name, "zh")
    words = {text for text in SENTENCES if re.search("[a-z]{3}", re.sub("`[^`]*`", "", text))}  # not numbers and code
    return sorted(words - set(phrases())), sorted(set(phrases()) - SENTENCES)


if __name__ == "__main__":
    for title, found in zip(("without Chinese", "without English"), untranslated(), strict=True):
        print(f"{len(found)} {title}:", *map(repr, found), sep="\n  ")
