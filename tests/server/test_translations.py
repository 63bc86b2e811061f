"""The Chinese words of the page at /gradio."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from impasto.methods import list_methods
from impasto.server.schema import served_options
from impasto.server.translations import translations


def test_every_option_is_described_in_chinese() -> None:
    texts = translations()["zh"]
    for method in list_methods():
        for name in served_options(method).model_fields:
            assert re.search("[\u4e00-\u9fff]", texts[f"{method}.{name}"]), f"{method}.{name}"
