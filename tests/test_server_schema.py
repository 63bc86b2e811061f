"""The OpenAPI document, by Schemathesis: no request that it allows or almost allows is answered by a fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("schemathesis", reason="schemathesis is not installed")

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from impasto.server.app import create_app
from impasto.server.studio import Studio
from server_support import ADDRESS, open_studio

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with pytest.MonkeyPatch.context() as patch:
        folder: Path = tmp_path_factory.mktemp("schema")
        with open_studio(folder, patch) as studio:
            yield studio
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def api(studio: Studio) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(studio), base_url=ADDRESS)


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_in_the_document(case: Any) -> None:
    case.call_and_validate(checks=CHECKS)
