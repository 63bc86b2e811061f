"""Requests by chance, from almost right to nonsense: each is answered in time, by a picture or by one line."""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impasto.methods import list_methods
from impasto.server.app import create_app
from impasto.server.schema import CardRequest, PictureRequest, served_options
from impasto.server.studio import Studio
from server_support import ADDRESS, open_studio, picture_bytes

PHOTO, PAINTING = picture_bytes(1), picture_bytes(2, 40, 40, "JPEG")
PATIENCE = 20.0
"""Seconds for one request: what it may take on a slow machine."""

SHORT = settings(max_examples=25, deadline=None, database=None, derandomize=True)
EXAMPLES = int(os.environ.get("IMPASTO_FUZZ_EXAMPLES", "500"))
LONG = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    limits = {"max_pixels": 100_000, "max_side": 1000, "max_output": 20_000, "max_work": 100_000}
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch, open_studio(folder, patch, **limits) as studio:
        yield studio
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url=ADDRESS) as client:
        yield client


def check(answer: Any, started: float, records: list[logging.LogRecord]) -> None:
    """An answer that says in one line why not, or a picture, in time and without a fault."""
    assert time.monotonic() - started < PATIENCE
    assert answer.status_code < 500, answer.text[:300]
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error
        assert error.isprintable()
        assert len(error) <= 410


# --- strategies

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
values = st.recursive(plain, lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=5), inside))
many = st.builds(lambda item, count: [item] * count, plain, st.sampled_from([0, 65, 101, 30_000]))
long_text = st.builds(
    lambda text, count: text * count, st.sampled_from(["a", "relu1_1,", "1,", "\x1b]0;"]), st.just(9999)
)
anything = values | many | long_text
options = st.sampled_from(list_methods()).flatmap(
    lambda method: st.dictionaries(
        st.sampled_from([*served_options(method).model_fields, "weights", "start", "x"]), anything, max_size=3
    )
)


def damage(data: bytes) -> st.SearchStrategy[bytes]:
    """A file with some bytes changed, or cut."""
    places = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)

    def apply(changes: list[tuple[int, int]], length: int) -> bytes:
        found = bytearray(data)
        for place, value in changes:
            found[place] = value
        return bytes(found[:length])

    return st.builds(apply, places, st.sampled_from([len(data), len(data), len(data) // 2, 20, 0]))


pictures = st.just(PHOTO) | damage(PHOTO) | damage(PAINTING) | st.binary(max_size=60)
texts = pictures.map(lambda data: base64.b64encode(data).decode()) | st.text(max_size=9)
plausible = {
    "method": st.sampled_from([*list_methods(), "nothing"]),
    "preset": st.sampled_from(["default", "gatys", "none"]),
    "options": options,
    "styles": st.lists(st.sampled_from(["udnie", "great-wave", "../x", ""]), max_size=3),
    "style_weights": st.lists(st.floats(0, 2), max_size=3),
    "size": st.integers(-1, 300) | st.sampled_from(["64x48", "9x", "99999x99999"]),
    "style_size": st.integers(0, 300),
    "strength": st.floats(-1, 2),
    "keep_color": st.sampled_from(["off", "lab", "histogram", "oil"]),
    "seed": st.integers(-1, 2**64),
    "format": st.sampled_from(["png", "jpeg", "webp", "gif"]),
}
assert plausible.keys() == PictureRequest.model_fields.keys()
files = {"content": texts, "paintings": st.lists(texts, max_size=3), "masks": st.lists(texts, max_size=2)}
files["cards"] = files["paintings"]
orders = st.fixed_dictionaries(
    {"content": texts},
    optional={name: found | anything for name, found in {**plausible, **files}.items() if name != "content"},
)
cards = st.fixed_dictionaries(
    {"painting": texts}, optional=dict.fromkeys(CardRequest.model_fields, anything) | {"method": plausible["method"]}
)
bodies = st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), anything)
media = st.sampled_from(["application/json", "multipart/form-data; boundary=x", "text/plain", "", "\x7f;;"])


@pytest.mark.parametrize("kind", [SHORT, pytest.param(LONG, marks=pytest.mark.fuzz)], ids=["short", "long"])
@pytest.mark.parametrize(("path", "found"), [("/v1/stylize", orders), ("/v1/styles", cards)])
def test_orders_by_chance(
    client: TestClient, caplog: pytest.LogCaptureFixture, kind: settings, path: str, found: st.SearchStrategy[Any]
) -> None:
    @kind
    @given(order=found)
    def attempt(order: dict[str, Any]) -> None:
        caplog.clear()
        start = time.monotonic()
        body = json.dumps(order).encode()
        check(client.post(path, content=body, headers={"content-type": "application/json"}), start, caplog.records)

    attempt()


@pytest.mark.parametrize("kind", [SHORT, pytest.param(LONG, marks=pytest.mark.fuzz)], ids=["short", "long"])
def test_bodies_and_paths_by_chance(client: TestClient, caplog: pytest.LogCaptureFixture, kind: settings) -> None:
    jobs = st.text("abc/%._-0\x1b", max_size=8).map(lambda text: f"/v1/jobs/{quote(text)}")
    posts = st.sampled_from(["/v1/stylize", "/v1/styles", "/v1/stylize?wait=x", "/v1/jobs/x/cancel"])

    @kind
    @given(path=jobs | posts, body=bodies, kind_of_body=media, method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
    def attempt(path: str, body: bytes, kind_of_body: str, method: str) -> None:
        caplog.clear()
        start = time.monotonic()
        headers = {"content-type": kind_of_body.encode("latin-1")}
        check(client.request(method, path, content=body, headers=headers), start, caplog.records)

    attempt()


@pytest.fixture(scope="module")
def card(client: TestClient) -> bytes:
    made = client.post("/v1/styles", files={"painting": PAINTING}, data={"method": "adain"}).json()
    return client.get(made["card"]).content


@pytest.mark.parametrize("kind", [SHORT, pytest.param(LONG, marks=pytest.mark.fuzz)], ids=["short", "long"])
def test_cards_by_chance(client: TestClient, caplog: pytest.LogCaptureFixture, kind: settings, card: bytes) -> None:
    header = 8 + int.from_bytes(card[:8], "little")
    places = st.integers(0, header) | st.integers(0, len(card) - 1)
    changes = st.lists(st.tuples(places, st.binary(min_size=1, max_size=12)), max_size=5)

    @kind
    @given(changes=changes, length=st.just(len(card)) | st.integers(0, len(card)))
    def attempt(changes: list[tuple[int, bytes]], length: int) -> None:
        caplog.clear()
        data = bytearray(card)
        for place, new in changes:
            data[place : place + len(new)] = new
        start = time.monotonic()
        files = [("content", PHOTO), ("cards", bytes(data[:length]))]
        check(client.post("/v1/stylize", files=files, data={"method": "adain"}), start, caplog.records)

    attempt()
