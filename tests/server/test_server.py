"""The HTTP interface: pictures, jobs, progress, cards, lists, limits."""

from __future__ import annotations

import base64
import functools
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from impasto.images.files import decode_picture
from impasto.methods import find_method, list_methods, load
from impasto.runs.record import Recipe
from impasto.server.app import create_app
from impasto.server.job import TaskData
from impasto.server.limits import Limits
from impasto.server.schema import MethodRequest, is_served, served_options
from impasto.server.studio import Studio
from impasto.server.work import count_steps, sketch
from impasto.stylizers.fixed_styles import LearnedStyles
from server_support import (
    ADDRESS,
    busy_worker,
    gate_task,
    load_tiny,
    open_queue,
    open_studio,
    picture_bytes,
    start_thread,
    wait_until,
)

PHOTO, PAINTING = picture_bytes(1), picture_bytes(2, 40, 40)
FILES = [("content", ("photo.png", PHOTO)), ("paintings", ("sea.png", PAINTING))]


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    with open_studio(tmp_path, monkeypatch) as studio:
        yield studio


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url=ADDRESS) as client:
        yield client


def read(data: bytes) -> torch.Tensor:
    return decode_picture(data, "answer", max_pixels=10**6, max_side=10**4).color


# --- pictures


def test_a_photo_comes_back_as_the_method_paints_it(client: TestClient) -> None:
    answer = client.post("/v1/stylize", files=FILES, data={"method": "adain"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    wanted = load_tiny("adain").stylize(read(PHOTO), read(PAINTING))
    assert float((read(answer.content) - wanted).abs().max()) < 0.51 / 255
    assert float(answer.headers["x-impasto-seconds"]) > 0


def test_json_gives_the_same_bytes_as_multipart(client: TestClient) -> None:
    body = {"content": base64.b64encode(PHOTO).decode(), "paintings": [base64.b64encode(PAINTING).decode()]}
    settings = {"method": "gatys", "strength": 0.7, "size": 32, "seed": 3, "format": "jpeg", "keep_color": "lab"}
    answer = client.post("/v1/stylize", json={**body, **settings, "options": {"steps": 2, "start_noise": 0.1}})
    options = json.dumps({"steps": 2, "start_noise": 0.1})
    same = client.post(
        "/v1/stylize", files=FILES, data={**{k: str(v) for k, v in settings.items()}, "options": options}
    )
    assert answer.status_code == same.status_code == 200, answer.text + same.text
    assert answer.content == same.content
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (32, 24)


def test_a_photo_too_large_for_the_limits_is_shrunk_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        open_studio(tmp_path, monkeypatch, max_output=1000) as studio,
        TestClient(create_app(studio), base_url=ADDRESS) as client,
    ):
        answer = client.post("/v1/stylize", files=FILES, data={"method": "adain"})
        assert answer.status_code == 200, answer.text
        assert Image.open(io.BytesIO(answer.content)).size == (36, 27)
        note = "the photo was shrunk from 48x36 to 36x27, the most this server paints"
        assert answer.headers["x-impasto-note"] == note
        job = start(client, method="adain")
        wait_until(lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "done")
        assert client.get(f"/v1/jobs/{job['id']}").json()["about"]["notes"] == [note]
        assert client.post("/v1/stylize", files=FILES, data={"method": "adain", "size": "48"}).status_code == 413


def test_styles_mix_and_masks_keep_the_photo(client: TestClient) -> None:
    black = _flat(0)
    files = [*FILES, ("paintings", ("sky.png", picture_bytes(3))), ("masks", ("mask.png", black))]
    answer = client.post("/v1/stylize", files=files, data={"method": "adain", "style_weights": "1,3"})
    assert answer.status_code == 200, answer.text
    assert torch.equal(read(answer.content), read(PHOTO))


def _flat(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (48, 36), level).save(buffer, "PNG")
    return buffer.getvalue()


def test_transparency_stays_and_metadata_goes(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x010E] = "my secret place"
    photo = picture_bytes(1, kind="WEBP", mode="RGBA", exif=exif.tobytes(), lossless=True)
    files = [("content", ("x", photo)), FILES[1]]
    for kind in ("png", "webp", "jpeg"):
        answer = client.post("/v1/stylize", files=files, data={"method": "adain", "format": kind})
        image = Image.open(io.BytesIO(answer.content))
        assert b"secret" not in answer.content
        assert not image.getexif()
        assert set(image.info) <= {
            "icc_profile",
            "jfif",
            "jfif_version",
            "jfif_unit",
            "jfif_density",
            "loop",
            "background",
            "timestamp",
            "duration",
        }
        assert image.mode == ("RGB" if kind == "jpeg" else "RGBA")


def test_the_default_method_and_a_built_in_style_need_no_word_and_are_shown(tmp_path: Path) -> None:
    studio = Studio(["cpu"], Limits(), tmp_path, functools.partial(start_thread, tmp_path))
    with TestClient(create_app(studio), base_url=ADDRESS) as client:
        studio.warm_up()
        answer = client.post("/v1/stylize", files=FILES[:1], data={"styles": "starry-night"})
        assert answer.status_code == 200, answer.text
        assert Image.open(io.BytesIO(answer.content)).size == (48, 36)
        small = client.get("/v1/styles/starry-night/picture")
        assert Image.open(io.BytesIO(small.content)).size == (224, 168)
        assert client.get("/v1/styles/starry-night/picture").content == small.content


# --- jobs


def start(client: TestClient, **settings: Any) -> dict[str, Any]:
    answer = client.post("/v1/stylize?wait=false", files=FILES, data=settings)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    job: dict[str, Any] = answer.json()
    return job


def test_a_job_tells_its_progress_and_keeps_its_result(client: TestClient) -> None:
    job = start(client, method="gatys", options='{"steps": 4}')
    with client.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-2] == "event: end"
    end = json.loads(lines[-1].removeprefix("data: "))
    assert (end["state"], end["step"], end["steps"], end["error"]) == ("done", 4, 4, None)
    assert {"content", "style"} <= end["about"]["losses"].keys()
    result = client.get(end["result"])
    assert result.headers["content-type"] == "image/png"
    assert client.get(f"/v1/jobs/{job['id']}").json() == end
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert client.get(end["result"]).status_code == 404


def test_the_record_repeats_the_run_and_names_no_file_of_the_users(client: TestClient) -> None:
    job = start(client, method="gatys", options='{"steps": 2}', seed="5", strength="0.5")
    wait_until(lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "done")
    record = client.get(f"/v1/jobs/{job['id']}").json()["about"]["record"]
    assert (record["method"], record["seed"], record["strength"], record["options"]["steps"]) == ("gatys", 5, 0.5, 2)
    assert [one["file"] for one in (record["content"], *record["styles"])] == ["content", "painting-1"]
    assert "photo.png" not in json.dumps(record)
    known = {name: record[name] for name in Recipe.model_fields.keys() & record.keys() - {"content", "styles", "masks"}}
    assert Recipe.parse(known, "test").seed == 5


def test_cancelling_an_optimisation_keeps_its_best_picture(client: TestClient) -> None:
    job = start(client, method="gatys", options='{"steps": 5000}')
    path = f"/v1/jobs/{job['id']}"
    wait_until(lambda: client.get(path).json()["step"] > 2)
    wait_until(lambda: client.get(f"{path}/preview").status_code == 200)
    preview = client.get(f"{path}/preview")
    assert Image.open(io.BytesIO(preview.content)).size == (48, 36)
    assert client.get(f"{path}/result").status_code == 409
    assert client.post(f"{path}/cancel").status_code == 200
    wait_until(lambda: client.get(path).json()["state"] == "done")
    state = client.get(path).json()
    assert state["about"]["interrupted"] is True
    assert 2 < state["step"] < 5000
    assert read(client.get(f"{path}/result").content).shape == (1, 3, 36, 48)


def test_a_waiting_job_that_is_cancelled_never_starts(client: TestClient, studio: Studio) -> None:
    with busy_worker(studio.queue):
        job = start(client, method="adain")
        assert client.get(f"/v1/jobs/{job['id']}").json()["waiting"] == 1
        client.post(f"/v1/jobs/{job['id']}/cancel")
        state = client.get(f"/v1/jobs/{job['id']}").json()
    assert (state["state"], state["seconds"]) == ("cancelled", None)
    answer = client.get(f"/v1/jobs/{job['id']}/result")
    assert (answer.status_code, answer.json()["error"]) == (409, "this job was cancelled before there was a picture")


def test_a_full_queue_refuses_and_serves_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        open_studio(tmp_path, monkeypatch, max_waiting=1) as studio,
        TestClient(create_app(studio), base_url=ADDRESS) as client,
    ):
        with busy_worker(studio.queue):
            start(client, method="adain")
            answer = client.post("/v1/stylize", files=FILES, data={"method": "adain"})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        wait_until(lambda: not studio.queue._running and not studio.queue._waiting["cpu"])
        assert client.post("/v1/stylize", files=FILES, data={"method": "adain"}).status_code == 200


def test_results_are_kept_for_a_while_only() -> None:
    with open_queue(keep_seconds=0.05, keep_bytes=10) as queue:
        first = queue.submit(TaskData({"type": "say", "text": "12345678"}))
        first.finished.result(10)
        second = queue.submit(TaskData({"type": "say", "text": "12345678"}))
        second.finished.result(10)
        assert queue.find(second.id) is second
        with pytest.raises(Exception, match="no longer kept"):
            queue.find(first.id)
        time.sleep(0.06)
        with pytest.raises(Exception, match="no longer kept"):
            queue.find(second.id)


def test_a_job_ends_after_its_time() -> None:
    with open_queue(max_seconds=0.05) as queue:
        job = queue.submit(gate_task()[0])
        job.finished.result(10)
        assert job.state == "failed"
        with pytest.raises(Exception, match=r"more than 0\.05 s"):
            job.outcome()


def test_an_optimisation_out_of_time_gives_its_best_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"max_seconds": 0.3, "max_work": 10**12}
    with (
        open_studio(tmp_path, monkeypatch, **limits) as studio,
        TestClient(create_app(studio), base_url=ADDRESS) as client,
    ):
        job = start(client, method="gatys", options='{"steps": 100000}')
        wait_until(lambda: client.get(f"/v1/jobs/{job['id']}").json()["state"] == "done")
        assert client.get(f"/v1/jobs/{job['id']}").json()["about"]["interrupted"] is True


def test_a_fault_of_ours_is_reported_as_one_and_the_worker_lives_on(
    client: TestClient, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    job = studio.queue.submit(TaskData({"type": "fail", "how": "fault"}))
    job.finished.result(10)
    words = "this should not have happened; the server's log says more"
    assert client.get(f"/v1/jobs/{job.id}").json()["error"] == words
    answer = client.get(f"/v1/jobs/{job.id}/result")
    assert (answer.status_code, answer.json()["error"]) == (500, words)
    assert "the inside" in caplog.text
    assert client.get("/ready").status_code == 200


def test_no_memory_is_a_mistake_that_can_be_mended(client: TestClient, studio: Studio) -> None:
    job = studio.queue.submit(TaskData({"type": "fail", "how": "memory"}))
    job.finished.result(10)
    answer = client.get(f"/v1/jobs/{job.id}/result")
    assert (answer.status_code, answer.json()["error"]) == (413, "not enough memory for this: give a smaller size")


# --- cards and lists


def test_a_card_is_made_used_and_fetched(client: TestClient, tmp_path: Path) -> None:
    answer = client.post(
        "/v1/styles", files={"painting": ("../../sea.png", PAINTING)}, data={"method": "adain", "title": "Sea"}
    )
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["info"] == {"title": "Sea", "width": 40, "height": 40}
    card = client.get(made["card"]).content
    assert len(card) == made["bytes"]
    painted = [
        client.post("/v1/stylize", files=files, data={"method": "adain", **styles})
        for files, styles in (
            (FILES[:1], {"styles": made["id"]}),
            ([*FILES[:1], ("cards", ("../x.safetensors", card))], {}),
            (FILES, {"style_size": "100"}),
        )
    ]
    assert {answer.status_code for answer in painted} == {200}, painted[1].text
    assert painted[0].content == painted[1].content == painted[2].content
    assert list(tmp_path.iterdir()) == []


def test_cards_are_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        open_studio(tmp_path, monkeypatch, max_cards=1) as studio,
        TestClient(create_app(studio), base_url=ADDRESS) as client,
    ):
        made = [
            client.post("/v1/styles", files={"painting": PAINTING}, data={"method": "adain"}).json() for _ in range(2)
        ]
        assert [client.get(one["card"]).status_code for one in made] == [404, 200]


@pytest.mark.parametrize("path", ["/v1/styles", "/health", "/v1/styles/starry-night/picture", "/v1/jobs/none"])
def test_heads_are_those_of_whole_answers(client: TestClient, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-length"] == str(len(whole.content))


def test_wrong_addresses_lead_to_the_right_ones(client: TestClient) -> None:
    for answer, status in ((client.get("/v1/nothing"), 404), (client.get("/v1/stylize"), 405)):
        assert answer.status_code == status
        assert "/openapi.json lists" in answer.json()["error"]


def test_lists(client: TestClient) -> None:
    methods = {method["name"]: method for method in client.get("/v1/methods").json()}
    assert methods.keys() == set(list_methods())
    assert methods["gatys"]["options"]["properties"]["steps"]["maximum"] == 100_000
    styles = client.get("/v1/styles").json()
    everything = [style["name"] for style in styles]
    for name, method in methods.items():  # what is offered, and nothing else, is taken
        learned = issubclass(find_method(name), LearnedStyles)
        assert method["paintings"] is not learned
        known = load(name).style_names if learned and method["styles"] else everything if not learned else ()
        assert method["styles"] == [style for style in everything if style in known], name
    assert methods["johnson"]["styles"]
    assert styles[0].keys() >= {"name", "title", "artist", "picture"}
    assert client.get(f"/v1/styles/{styles[0]['name']}/card").content[:8] != b""
    assert client.get("/v1/styles/..%2f..%2fetc/card").status_code == 404
    assert client.get("/v1/styles/none/picture").status_code == 404


def test_requests_can_set_no_text_that_could_be_a_file() -> None:
    for method in list_methods():
        for name, field in served_options(method).model_fields.items():
            assert "weights" not in name or field.annotation is not str
            assert field.annotation is not str
    options = find_method("gatys").Options.model_fields
    assert not is_served("start", options["start"])
    assert not is_served("backbone_weights", options["backbone_weights"])
    assert is_served("steps", options["steps"])


ROUTES = {
    "GET /health",
    "GET /metrics",
    "GET /ready",
    "GET /v1/jobs/{job}",
    "DELETE /v1/jobs/{job}",
    "POST /v1/jobs/{job}/cancel",
    "GET /v1/jobs/{job}/events",
    "GET /v1/jobs/{job}/preview",
    "GET /v1/jobs/{job}/result",
    "GET /v1/limits",
    "GET /v1/methods",
    "POST /v1/styles",
    "GET /v1/styles",
    "GET /v1/styles/{style}/card",
    "GET /v1/styles/{style}/picture",
    "POST /v1/stylize",
}
"""What programs rely on: a route comes and goes here on purpose, and in CHANGELOG.md."""


def test_the_routes_are_those_of_the_inventory(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs} == ROUTES
    assert client.get("/v1/limits").json()["max_pixels"] == Limits().max_pixels


def test_every_list_and_text_of_a_request_has_a_limit_in_the_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    bodies = [
        body["schema"]
        for path in document["paths"].values()
        for operation in path.values()
        for body in operation.get("requestBody", {}).get("content", {}).values()
    ]
    assert len(bodies) == 4
    found = [one for body in bodies for one in _schemas(body)]
    assert len(found) > 300
    for schema in found:
        kinds = schema.get("type", ())
        if "array" in kinds:
            assert "maxItems" in schema, schema
        if "string" in kinds:
            assert schema.keys() & {"maxLength", "enum", "const"}, schema
        if "object" in kinds:
            assert schema.get("additionalProperties") is False or "maxProperties" in schema, schema


def _schemas(value: Any) -> Iterator[dict[str, Any]]:
    """All schemas within a schema."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str | list):
            yield value
        value = [inner for name, inner in value.items() if name not in ("default", "enum", "examples")]
    if isinstance(value, list):
        for inner in value:
            yield from _schemas(inner)


def test_work_is_estimated_from_all_of_a_request() -> None:
    def steps(method: str, styles: int = 1, regions: int = 0, **options: Any) -> float:
        model = sketch(MethodRequest(method=method, options=options), "cpu")
        return count_steps(model.options, styles=styles, regions=regions)

    assert steps("adain") == 1
    assert steps("adain", styles=3) == steps("adain", regions=3) == 3
    assert steps("gatys", steps=600) > steps("gatys", steps=60)
    assert steps("gatys", coarse_steps=1000) > steps("gatys")
    assert steps("gatys", style_layers=["relu1_1"] * 60) > 3 * steps("gatys")
    assert steps("sanet", positions=65536) > steps("sanet")
    assert steps("nnst", candidates=65536, rotations=3) > 10 * steps("nnst")
    assert steps("nnst", last_steps=1000) > steps("nnst")


@pytest.mark.parametrize("method", list_methods())
def test_the_size_of_every_methods_work_is_known_without_its_networks(method: str) -> None:
    size = sketch(MethodRequest(method=method), "cpu").working_size(300, 400, None)
    assert size == (300, 400)


def test_the_document_holds_every_served_option(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    bodies = document["paths"]["/v1/stylize"]["post"]["requestBody"]["content"]
    for media in ("multipart/form-data", "application/json"):
        found = {one["properties"]["method"]["const"]: one for one in bodies[media]["schema"]["anyOf"]}
        assert found.keys() == set(list_methods())
        for name, schema in found.items():
            assert schema["properties"]["options"]["properties"].keys() == served_options(name).model_fields.keys()
    assert "ValidationError" not in json.dumps(document)
