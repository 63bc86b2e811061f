"""The documentation: its commands are understood and would run, its programs run, its generated pages are whole."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cli_support import use_one_thread
from docs_support import (
    PAGES,
    REHEARSING,
    ROOT,
    blocks,
    check_flags,
    commands,
    mentioned,
    pages,
    parse,
    put_picture,
    rehearse,
    shown,
)
from impasto.commands.methods_table import describe_options
from impasto.methods import find_method, list_methods
from impasto.stylizers.styles import built_in_styles
from impasto.weights import resolve

generate = pytest.importorskip("generate")
showcase = pytest.importorskip("showcase")
one_thread = pytest.fixture(autouse=True, scope="module")(use_one_thread)
LANGUAGES = ("en", "zh")
COMMANDS = list(dict.fromkeys(command for language in LANGUAGES for command in shown(language)))
PAINTED = [
    c for section in generate.PICTURES.values() for e in section.values() if "commands" in e for c in e["commands"]
]


def can_be_rehearsed(command: str) -> bool:
    """Whether it has --dry-run, and does not only list something or go on with what is not there."""
    verbs = parse(shlex.split(command)[1:])[0]
    return (
        verbs[-1:]
        and verbs[-1] in REHEARSING
        and not re.search("--list-options|--resume|--help|--runtime|train texture|://", command)
    )


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 40
    assert {"impasto stylize photo.jpg --style starry-night", "impasto doctor"} <= set(COMMANDS)
    assert list(commands("```sh\ncat a | impasto stylize - > b && impasto doctor | less  # all\n```\n")) == [
        "impasto stylize -",
        "impasto doctor",
    ]


def test_a_rehearsal_leaves_the_memory_of_the_process_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert rehearse(shlex.split("video clip.mp4 --style great-wave -o small.mp4 --max-memory 4")) == 0
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("command", [*COMMANDS, *(c for c in PAINTED if c.startswith("impasto "))])
def test_every_command_is_understood(command: str) -> None:
    check_flags(*parse(shlex.split(command)[1:]))


@pytest.mark.parametrize("command", [c for c in COMMANDS if can_be_rehearsed(c)])
def test_every_command_that_can_be_rehearsed_would_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rehearse(shlex.split(command)[1:]) == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_within_sentences_are_understood(page: Path) -> None:
    for command in mentioned(page.read_text(encoding="utf-8")):
        check_flags(*parse(shlex.split(command)[1:]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [p for p in blocks(page.read_text(encoding="utf-8"), "python") if "127.0.0.1" not in p]  # no server here
    if not programs:
        return
    monkeypatch.chdir(tmp_path)
    put_picture(Path("photo.jpg"), 1)
    put_picture(Path("painting.jpg"), 2)
    Path("run").mkdir()
    Path("run/wct.safetensors").write_bytes(resolve("wct").read_bytes())
    for program in programs:
        exec(compile(program, str(page), "exec"), {})


def test_commands_in_their_options_are_read_strictly() -> None:
    for wrong in ("stylize photo.jpg --stile x", "stylize a.jpg b.jpg --detail 7", "paint photo.jpg", "doctor --now"):
        with pytest.raises(BaseException):
            check_flags(*parse(shlex.split(wrong)))


# --- what is generated


def test_both_languages_have_the_same_pages() -> None:
    names = [{p.relative_to(ROOT / "docs" / folder) for p in pages(folder) if p.parent != ROOT} for folder in LANGUAGES]
    assert {n for n in names[0] if n.parts[0] != "notes"} == {n for n in names[1] if n.parts[0] != "notes"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", list_methods())
def test_every_method_has_a_whole_page(name: str, language: str) -> None:
    text = generate.method_page(name, language)
    assert text.startswith("# ")
    for option in describe_options(find_method(name).Options):
        assert f"| `{option['flag']}` |" in text
    for preset in find_method(name).presets:
        assert len(find_method(name).presets) == 1 or f"| `{preset}` |" in text
    assert text.rstrip().split("\n## ")[-1].split("\n", 1)[1].strip(), "it does not say how it departs from its paper"


def test_numbers_come_from_the_benchmarks() -> None:
    assert "0.641" in generate.numbers("wct")
    assert "2.74 GB" in generate.numbers("gatys")
    assert "0.641" not in generate.numbers("adain")


def test_departures_come_from_docstrings() -> None:
    from impasto.methods import wct

    assert [name for name, _ in generate.departures(wct)] == ["WCT", "WCTTraining"]
    assert "encoded once" in generate.method_page("wct", "en")
    assert "只编码一次" in generate.method_page("wct", "zh")


def test_what_has_no_chinese_stays_english(monkeypatch: pytest.MonkeyPatch) -> None:
    import words

    monkeypatch.setattr(words, "phrases", lambda: {"step size": "步长"})
    assert [words.translate("zh", text) for text in ("step size", "new")] == ["步长", "new"]
    assert words.translate("en", "step size") == "step size"
    assert {language: set(found) for language, found in words.WORDS.items()}["zh"] == set(words.WORDS["en"])


def test_pages_of_methods_that_are_gone_go(tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "gone.md").write_text("# Gone")
    generate.write_method_pages(tmp_path / "methods", "en")
    assert {path.stem for path in (tmp_path / "methods").iterdir()} == set(list_methods())


def test_methods_are_shown_with_their_pictures_and_the_quick_ones_first() -> None:
    names = showcase.order_methods(list_methods())
    assert names[0] == "swift"
    assert set(names) == set(list_methods())
    for language in LANGUAGES:
        text = generate.PARTS["choice"](language)
        shown_ = re.findall(r"\(methods/(\w+)\.md\)", text)
        assert shown_ == [name for name in names if any(path.is_file() for path in showcase.candidates(name))]


def test_every_built_in_style_is_shown() -> None:
    for language in LANGUAGES:
        text = generate.PARTS["styles"](language)
        assert re.findall(r"build/styles/(.*)\.jpg", text) == list(built_in_styles())
    assert all((showcase.THUMBNAILS / f"{name}.jpg").stat().st_size > 2000 for name in built_in_styles())


def test_pictures_are_there_and_small() -> None:
    pictures = ROOT / "docs" / "pictures"
    kinds = ("methods", "gallery", "figures")
    assert sum(path.stat().st_size for path in pictures.glob("*/*.jpg")) < 4_000_000
    for kind in kinds:
        for name in generate.PICTURES[kind]:
            assert (pictures / kind / f"{name}.jpg").is_file(), f"python tools/make_docs_pictures.py {kind}/{name}"
