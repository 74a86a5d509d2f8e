"""What a request brings along: JSON of a known shape, or a picture. Anything else is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.datastructures import UploadFile
from starlette.requests import Request

from streams.errors import QueryError

T = TypeVar("T")

JSON = "application/json"
FORM = "multipart/form-data"
BYTES = "application/octet-stream"

_AT = re.compile(r" - at `\$\.?(.*)`\Z", re.DOTALL)
_INDEX = re.compile(r"\[([0-9]+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`\Z", re.DOTALL)


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, "" where none was sent."""
    given = request.headers.getlist("content-type")
    return given[0].partition(";")[0].strip().lower() if len(given) == 1 else ", ".join(given)


async def json_body(request: Request, shape: type[T], *, max_bytes: int) -> T:
    """The body as `shape`.

    Raises:
        QueryError: 415 for another Content-Type, 413, 400 `invalid_body` with the field that is wrong.
    """
    if media_type(request) != JSON:
        raise unsupported(request, JSON)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_bytes:
            raise QueryError(413, "body_too_large", f"a JSON body may have {max_bytes} bytes")
    return decode_json(bytes(data), shape)


def decode_json(data: bytes, shape: type[T], *, within: str = "") -> T:
    """JSON as `shape`; `within` is the field that holds it. QueryError: 400 `invalid_body`."""
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as exc:
        message, field = _located(str(exc))
        raise invalid(".".join(part for part in (within, field) if part) or None, message) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise invalid(within or None, f"the body is no JSON: {exc}") from exc
    except RecursionError as exc:
        raise invalid(within or None, "the body is nested too deeply") from exc


def _located(text: str) -> tuple[str, str]:
    """What msgspec says, and the path of the field it means."""
    at = _AT.search(text)
    message, path = (text[: at.start()], at[1]) if at else (text, "")
    path = _INDEX.sub(r".\1", path).replace("[...]", "").lstrip(".")
    for named in (_UNKNOWN, _MISSING):
        if found := named.match(message):
            path = f"{path}.{found[1]}" if path else found[1]
    return message, path[:200]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was sent; `fields` are the other parts of its form."""

    data: bytes
    content_type: str | None
    fields: Mapping[str, str]


async def picture_of(request: Request, *, fields: tuple[str, ...] = ()) -> Picture:
    """The body itself, or the part named `file` of a form, which may have `fields` beside it.

    Raises:
        QueryError: 415 for another Content-Type, 400 for a form without the file or with other parts.
    """
    kind = media_type(request)
    if kind == FORM:
        return await _form(request, fields)
    if kind not in ("", BYTES) and not kind.startswith("image/"):
        raise unsupported(request, "image/*", BYTES, FORM)
    return Picture(await request.body(), kind or None, {})


async def _form(request: Request, fields: tuple[str, ...]) -> Picture:
    async with request.form(max_files=1, max_fields=8) as form:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise invalid("file", "the form has no file in a part named 'file'")
        others = [(name, value) for name, value in form.multi_items() if name != "file"]
        for name, value in others:
            if name not in fields or not isinstance(value, str) or len(form.getlist(name)) > 1:
                raise invalid(name[:80], f"the form has a part {name[:80]!r} that nobody reads")
        texts = {name: value for name, value in others if isinstance(value, str)}
        return Picture(await part.read(), part.content_type, texts)


def invalid(field: str | None, message: str) -> QueryError:
    """A body that cannot be used."""
    return QueryError(400, "invalid_body", message, field=field)


def unsupported(request: Request, *wanted: str) -> QueryError:
    """A body of another kind."""
    given = media_type(request)[:80] or "none"
    return QueryError(
        415, "unsupported_media_type", f"the Content-Type is {given}: send {' or '.join(wanted)}", field="content-type"
    )
