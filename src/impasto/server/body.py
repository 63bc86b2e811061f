"""The bodies of requests, multipart or JSON, become orders."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from impasto.server.limits import Malformed
from impasto.server.schema import SINGLE, CheckedRequest, MethodRequest, make_request, parse_json

MOST_FIELDS = 64
MOST_FIELD_BYTES = 100_000


async def read_request(
    request: Request, kind: type[MethodRequest], names: tuple[str, ...], most: int
) -> CheckedRequest:
    """Return the body of a request, multipart or JSON; raises Malformed, OptionError or an HTTPException."""
    media = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media == "application/json":
        body = await request.body()
        return await run_in_threadpool(_parse_body, body, kind, names)
    if media != "multipart/form-data":
        raise HTTPException(415, "send multipart/form-data or application/json")
    async with request.form(max_files=2 * most + 1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES) as form:
        values: dict[str, Any] = {}
        files: dict[str, tuple[bytes, ...]] = {}
        for name in form:
            parts = form.getlist(name)
            if name in names:
                if not all(isinstance(part, UploadFile) for part in parts):
                    raise Malformed(f"{name}: send a file, as in curl -F {name}=@photo.jpg")
                files[name] = tuple([await part.read() for part in parts if isinstance(part, UploadFile)])
            elif any(isinstance(part, UploadFile) for part in parts):
                raise Malformed(f"there is no file called {name!r}; there are: {', '.join(names)}")
            else:
                values[name] = parts if len(parts) > 1 or name == "styles" else parts[0]
    _check_single(files)
    return make_request(kind, values, files)


def _parse_body(body: bytes, kind: type[MethodRequest], names: tuple[str, ...]) -> CheckedRequest:
    values = parse_json(body, "the request")
    files = {name: _decode_files(name, values.pop(name)) for name in names if values.get(name) is not None}
    _check_single(files)
    return make_request(kind, {name: value for name, value in values.items() if name not in names}, files)


def _decode_files(name: str, value: Any) -> tuple[bytes, ...]:
    given = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in given):
        raise Malformed(f"{name}: base64 text is needed")
    try:
        return tuple(base64.b64decode(text, validate=True) for text in given)
    except (binascii.Error, ValueError):
        raise Malformed(f"{name}: this is no base64") from None


def _check_single(files: dict[str, tuple[bytes, ...]]) -> None:
    for name in SINGLE:
        if len(files.get(name, ())) > 1:
            raise Malformed(f"{name}: send one")
