"""The OpenAPI document, by Schemathesis: no request that it allows or almost allows is answered by a fault."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("schemathesis", reason="schemathesis is not installed")

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from impasto.server.app import create_app
from impasto.server.studio import Studio
from server_support import open_studio

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TOKEN = "open-sesame"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with pytest.MonkeyPatch.context() as patch:
        folder: Path = tmp_path_factory.mktemp("schema")
        with open_studio(folder, patch) as studio:
            close = studio.close
            patch.setattr(studio, "close", lambda: None)  # every request opens and closes the application anew
            yield studio
            close()
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_in_the_document(studio: Studio, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_asgi("/openapi.json", create_app(studio, token=TOKEN), headers=HEADERS)
    tried = 0
    for found in document.get_all_operations():
        operation = found.ok()
        tried += 1

        @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def attempt(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, headers=HEADERS)

        with contextlib.suppress(SkipTest, Unsatisfiable):  # nothing can be wrong where nothing is asked for
            attempt()
    assert tried >= 13
