"""How Sphinx builds the documentation, in English and Chinese; scripts/docs calls it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "src")]

from docutils import nodes  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402
from generate import PARTS, write_method_pages  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.locale import _ as translated  # noqa: E402
from sphinx.search.zh import SearchChinese  # noqa: E402
from sphinx.util.docutils import SphinxDirective  # noqa: E402

from impasto import __version__  # noqa: E402

project = "impasto"
author = "impasto contributors"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_math_renderer = "mathml"
source_suffix = {".md": "markdown"}
exclude_patterns = ["notes/*"]
default_role = "literal"
smartquotes = False
templates_path = ["templates"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "impasto"
html_static_path = ["static"]
html_css_files = ["impasto.css"]
html_js_files = ["impasto.js"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "language.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}


def short(language: str) -> str:
    """The name of our folder for one of Sphinx' languages: zh for zh_CN."""
    return (language or "en").split("_")[0]


class Generated(SphinxDirective):
    """Puts in what `generate` makes: ```{generated} NAME```."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The parsed Markdown."""
        text = PARTS[self.arguments[0]](short(self.config.language))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class SearchInChinese(SearchChinese):
    """Finds Chinese words without a dictionary: by whole runs of characters, and by every two to four in a row.

    Sphinx looks for parts of words only if no page has the whole word as a run, so words need entries of their own.

    language_name is the stemmer's, by which Sphinx names its JavaScript class; there is none for Chinese.
    """

    language_name = "English"
    runs = re.compile(r"[\u4e00-\u9fff]+")

    def split(self, input: str) -> list[str]:
        """Latin words, runs of Chinese characters, their parts of two to four."""
        found = super().split(input)
        for run in self.runs.findall(input):
            found += [run, *(run[i : i + n] for n in (2, 3, 4) for i in range(len(run) - n + 1))]
        return found


def escape_docstring(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep what our docstrings write plainly, such as |x| and from_, from being read as markup."""
    for i, line in enumerate(lines):
        if line.lstrip().startswith(">>>"):
            continue
        parts = re.split(r"(``[^`]*``|`[^`]*`)", line)
        parts[::2] = [re.sub(r"([*|\\])|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def show_math(translator: Any, node: nodes.Element) -> None:
    """A formula as MathML, which browsers show without a script."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    translator.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def write_pages(app: Sphinx) -> None:
    """Write the methods' pages before sources are looked for."""
    write_method_pages(Path(app.srcdir) / "methods", short(app.config.language))


THEME = {"Next": "下一页", "Previous": "上一页", "Home": "首页", "On this page": "本页内容"}
"""The words of the theme that it has in English only."""


def speak_chinese(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Give the Chinese pages the theme's words in Chinese."""
    if short(app.config.language) == "zh":
        context["_"] = lambda text: THEME.get(text) or translated(text)


def name_languages(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Tell the templates where the same page is in the other language."""
    there = "en" if short(app.config.language) == "zh" else "zh"
    file = f"{page}.html" if doctree is not None else "index.html"
    context["other_name"] = {"en": "English", "zh": "中文"}[there]
    context["other_language"] = "../" * (page.count("/") + 1) + f"{there}/{file}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of this."""
    app.add_directive("generated", Generated)
    app.add_search_language(SearchInChinese)
    app.add_html_math_renderer("mathml", inline_renderers=(show_math, None), block_renderers=(show_math, None))
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)  # before napoleon reads it
    app.connect("builder-inited", write_pages)
    app.connect("html-page-context", name_languages)
    app.connect("html-page-context", speak_chinese)
    return {"parallel_read_safe": True}
