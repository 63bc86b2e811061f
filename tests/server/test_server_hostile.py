"""Files and requests that mean no good: a clean refusal, never a fault, nothing left behind."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from impasto.server.app import create_app
from impasto.server.limits import Limits
from impasto.server.studio import Studio
from impasto.stylizers.styles import moments_kind
from server_support import ADDRESS, ThreadWorker, load_tiny, odd_tasks, open_studio, picture_bytes, wait_until

PHOTO, PAINTING = picture_bytes(1), picture_bytes(2, 40, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def studio(folder: Path) -> Iterator[Studio]:
    limits = {"max_pixels": 400_000, "max_side": 2000, "max_output": 300_000, "max_bytes": 3_000_000}
    with pytest.MonkeyPatch.context() as patch, open_studio(folder, patch, **limits) as studio:
        yield studio


@pytest.fixture(scope="module")
def shared(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url=ADDRESS) as client:
        yield client


@pytest.fixture
def client(shared: TestClient, studio: Studio, folder: Path) -> Iterator[TestClient]:
    yield shared
    wait_until(lambda: not studio.queue._running)
    assert list(folder.iterdir()) == []


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *more: bytes, depth: int = 8, color: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half_white() -> Image.Image:
    image = Image.new("RGB", (40, 30))
    image.paste((255, 255, 255), (0, 0, 20, 30))
    return image


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (20, 20), (50 * i, 0, 0)) for i in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def many_scans() -> bytes:
    data = saved(Image.new("RGB", (32, 32)), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    return data[:start] + data[start:-2] * 200 + data[-2:]


BAD = {
    "empty": b"",
    "text": b"this is no picture",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<!doctype html><script>alert(1)</script>",
    "truncated png": PHOTO[: len(PHOTO) // 2],
    "truncated jpeg": picture_bytes(1, 300, 400, "JPEG")[:2000],
    "truncated webp": picture_bytes(1, kind="WEBP")[:60],
    "header only": PHOTO[:33],
    "lying header": png(600, 600, zlib.compress(b"\0" * 100)),
    "bomb of pixels": png(50_000, 50_000, zlib.compress(b"\0" * 1_000_000)),
    "bomb within the side": png(1999, 1999, zlib.compress(b"\0" * 2000 * 2000 * 3)),
    "huge side": png(2**31 - 1, 1, zlib.compress(b"\0")),
    "long side": saved(Image.new("L", (2001, 2)), "PNG"),
    "no size": png(0, 0, zlib.compress(b"")),
    "text bomb": png(4, 4, zlib.compress(b"\0" * 52), chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 100_000_000))),
    "profile bomb": png(4, 4, b"", chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 100_000_000))),
    "animated gif": animated("GIF"),
    "animated png": animated("PNG"),
    "animated webp": animated("WEBP"),
    "tiff": picture_bytes(1, kind="TIFF"),
    "bmp": picture_bytes(1, kind="BMP"),
    "pdf": b"%PDF-1.4 1 0 obj",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "fits": b"SIMPLE  =                    T" + b" " * 3000,
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "many scans": many_scans(),
    "card": save({"a": torch.zeros(3)}),
}
GOOD = {
    "one pixel": saved(Image.new("RGB", (1, 1)), "PNG"),
    "one row": saved(Image.new("RGB", (200, 1)), "PNG"),
    "cmyk": saved(Image.new("CMYK", (40, 30), (9, 99, 9, 9)), "JPEG"),
    "palette": saved(Image.new("RGB", (40, 30), (9, 99, 9)).quantize(4), "PNG"),
    "palette with transparency": saved(half_white().quantize(2), "PNG", transparency=0),
    "bilevel": saved(Image.new("1", (40, 30), 1), "PNG"),
    "grey with alpha": saved(Image.new("LA", (40, 30), (90, 9)), "PNG"),
    "16 bit": saved(Image.new("I;16", (40, 30), 30_000), "PNG"),
    "16 bit colour": png(2, 2, zlib.compress((b"\0" + b"\x12\x34" * 6) * 2), depth=16),
    "broken profile": saved(Image.new("RGB", (40, 30)), "PNG", icc_profile=b"no profile at all"),
    "broken exif": saved(Image.new("RGB", (40, 30)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "interlaced": png(1, 1, zlib.compress(b"\0\0\0\0")),
}


def stylize(
    client: TestClient, content: bytes, painting: bytes = PAINTING, name: str = "photo.png", **settings: str
) -> Any:
    files = [("content", (name, content, "image/png")), ("paintings", (name, painting))]
    return client.post("/v1/stylize", files=files, data={"method": "adain", **settings})


def check_refusal(answer: Any, *statuses: int) -> None:
    assert answer.status_code in (statuses or (400, 413, 422)), (answer.status_code, answer.text[:300])
    error = answer.json()["error"]
    assert error
    assert len(error) < 500
    assert "Traceback" not in error
    assert "/tmp" not in error


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(client: TestClient, name: str) -> None:
    start = time.monotonic()
    check_refusal(stylize(client, BAD[name]), 422)
    check_refusal(stylize(client, PHOTO, BAD[name]), 422)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("name", GOOD)
def test_odd_files_are_painted(client: TestClient, name: str) -> None:
    answer = stylize(client, GOOD[name], GOOD[name])
    assert answer.status_code == 200, answer.text
    Image.open(io.BytesIO(answer.content)).verify()


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "a\0b.png", "..\\..\\x.png", "CON", "x" * 5000, "~/x", "é漢.png", "-rf", ""],
)
def test_names_of_files_lead_nowhere(client: TestClient, name: str) -> None:
    answer = stylize(client, PHOTO, name=name)
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"content": ' + b"9" * 5000 + b"}", 400),
        (b"{}", 400),
        (b'{"content": 5}', 400),
        (b'{"content": "!!!"}', 400),
        (b'{"content": []}', 400),
        (b'{"content": "http://127.0.0.1/x.png"}', 400),
        (b'{"content": "AAAA", "paintings": [["AAAA"]]}', 400),
        (b'{"content": "AAAA", "strength": NaN}', 422),
        (b'{"content": "AAAA", "strength": 1e999}', 422),
        (b'{"content": "AAAA", "method": "../../x"}', 422),
        (b'{"content": "AAAA", "method": "\\ud800"}', 422),
        (b'{"content": "AAAA", "\\ud800": 1}', 422),
        (b'{"content": "AAAA", "method": "' + b"x" * 100_000 + b'"}', 422),
        (b'{"content": "AAAA", "method": 7}', 422),
        (b'{"content": "AAAA", "options": [1]}', 422),
        (b'{"content": "AAAA", "options": {"weights": "/etc/passwd"}}', 422),
        (b'{"content": "AAAA", "method": "gatys", "options": {"backbone_weights": "/etc/passwd"}}', 422),
        (b'{"content": "AAAA", "method": "gatys", "options": {"start": "/etc/passwd"}}', 422),
        (b'{"content": "AAAA", "method": "gatys", "options": {"backbone": "vgg19"}}', 422),
        (b'{"content": "AAAA", "method": "gatys", "preset": "gatys"}', 400),
        (b'{"content": "AAAA", "method": "gatys", "options": {"steps": 1e9}}', 422),
        (b'{"content": "AAAA", "method": "gatys", "options": {"learning_rate": NaN}}', 422),
        (b'{"content": "AAAA", "styles": ["../../../../etc/passwd"]}', 404),
        (b'{"content": "AAAA", "styles": ["/etc/passwd"]}', 404),
        (b'{"content": "AAAA", "size": "99999x99999", "styles": ["starry-night"]}', 413),
        (b'{"content": "AAAA", "seed": -1}', 422),
        (b'{"content": "AAAA", "nothing": 1}', 422),
    ],
)
def test_bad_json_is_refused(client: TestClient, body: bytes, status: int) -> None:
    body = body.replace(b"AAAA", base64.b64encode(PHOTO))
    check_refusal(client.post("/v1/stylize", content=body, headers={"content-type": "application/json"}), status)


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"options": "{"}, 400),
        ({"options": '{"precision": "fp8"}'}, 422),
        ({"strength": "nan"}, 422),
        ({"style_weights": "1,2"}, 422),
        ({"style_weights": "inf"}, 422),
        ({"keep_color": "oil"}, 422),
        ({"keep_color": "histogram", "styles": "starry-night"}, 422),
        ({"format": "gif"}, 422),
        ({"size": "8"}, 422),
        ({"size": "600x600"}, 413),
        ({"method": "gatys", "size": "400x300", "options": '{"steps": 90000}'}, 413),
        ({"method": "gatys", "style_size": "4000", "options": '{"style_scale": 1000}'}, 422),
        ({"method": "gatys", "options": '{"content_layers": "relu9_9"}'}, 422),
        ({"paintings": "not a file"}, 400),
        ({"styles": ["starry-night"] * 9}, 413),
    ],
)
def test_bad_requests_are_refused(client: TestClient, settings: dict[str, str], status: int) -> None:
    check_refusal(stylize(client, PHOTO, **settings), status)


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"x", "text/plain", 415),
        (PHOTO, "image/png", 415),
        (b"x", "multipart/form-data", 400),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 400),
        (b"x" * 3_000_001, "application/json", 413),
    ],
)
def test_other_bodies_are_refused(client: TestClient, content: bytes, media: str, status: int) -> None:
    check_refusal(client.post("/v1/stylize", content=content, headers={"content-type": media}), status)


def test_a_body_that_hides_its_length_is_counted(client: TestClient) -> None:
    sent = client.post(
        "/v1/stylize", content=(b"x" * 100_000 for _ in range(40)), headers={"content-type": "application/json"}
    )
    check_refusal(sent, 413)


def test_too_many_parts_are_refused(client: TestClient) -> None:
    files = [("content", PHOTO)] + [("paintings", PAINTING)] * 30
    check_refusal(client.post("/v1/stylize", files=files), 400)
    check_refusal(client.post("/v1/stylize", files=[("content", PHOTO), ("content", PHOTO)]), 400)
    check_refusal(client.post("/v1/stylize", files=[("content", PHOTO), ("weights", PHOTO)]), 400)


def card(tensors: dict[str, torch.Tensor], kind: str) -> bytes:
    return save(tensors, {"impasto": json.dumps({"style": kind})})


def test_bad_cards_are_refused(client: TestClient) -> None:
    kind = load_tiny("adain").style_kind
    moments = moments_kind(load_tiny("adain").backbone)  # type: ignore[attr-defined]
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    misfit = {f"{layer}.{what}": torch.ones(5) for layer in layers for what in ("mean", "deviation")}
    cards = [
        b"",
        PHOTO,
        struct.pack("<Q", 2**60) + b"{}",
        save({"a": torch.zeros(3)}),
        card({"a": torch.zeros(3)}, "moments/other"),
        card({"a": torch.full((3,), torch.nan)}, kind),
        card({"a": torch.zeros(3)}, kind),
        card(misfit, kind),
        card({"relu4_1.mean": torch.zeros(200_000, dtype=torch.half), "relu4_1.root": torch.zeros(3)}, moments),
        card({"relu4_1.mean": torch.zeros(200_000, dtype=torch.half), "relu4_1.second": torch.zeros(3)}, moments),
        card({"a": torch.zeros(2_000_000, dtype=torch.half)}, kind),
    ]
    for data in cards:
        files = [("content", ("x", PHOTO)), ("cards", ("../x.safetensors", data))]
        check_refusal(client.post("/v1/stylize", files=files, data={"method": "adain"}))


# --- who may ask


def test_other_names_and_other_sites_are_refused(client: TestClient) -> None:
    check_refusal(client.get("/v1/methods", headers={"host": "evil.example"}), 403)
    check_refusal(client.get("/v1/methods", headers={"host": "127.0.0.1.evil.example"}), 403)
    check_refusal(client.get("/v1/methods", headers={"host": "[::1"}), 403)
    files = {"painting": PAINTING}
    check_refusal(client.post("/v1/styles", files=files, headers={"origin": "http://evil.example"}), 403)
    check_refusal(client.post("/v1/styles", files=files, headers={"origin": "null"}), 403)
    assert client.get("/v1/methods", headers={"host": "localhost:7860"}).status_code == 200


def test_a_token_opens(tmp_path: Path) -> None:
    studio = Studio(["cpu"], Limits(), tmp_path, lambda device, limits: ThreadWorker(odd_tasks))
    app = create_app(studio, token="open-sesame")
    with TestClient(app, base_url="http://there.example") as client:
        check_refusal(client.get("/v1/methods"), 401)
        check_refusal(client.get("/v1/methods?token=wrong"), 401)
        check_refusal(client.get("/v1/methods", headers={"authorization": "Bearer wrong"}), 401)
        check_refusal(client.get("/v1/methods", headers={"authorization": "Bearer é".encode()}), 401)
        check_refusal(client.get("/openapi.json"), 401)
        assert client.get("/health").status_code == 200
        assert client.get("/v1/methods", headers={"authorization": "Bearer open-sesame"}).status_code == 200
        answer = client.get("/v1/styles?token=open-sesame&x=1", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/v1/styles?x=1")
        assert "httponly" in answer.headers["set-cookie"].lower()
        assert client.get("/v1/styles").status_code == 200
