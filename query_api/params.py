"""What a request asks for, checked. An illegal id is simply not found: nothing can have it."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.requests import Request

from embedder.index.points import State
from streams.errors import QueryError
from streams.event import IMAGE_ID_PATTERN, TENANT_ID_PATTERN

DEFAULT_HITS = 10
DEFAULT_PAGE = 50

_tenant_id = re.compile(TENANT_ID_PATTERN)
_image_id = re.compile(IMAGE_ID_PATTERN)
_number = re.compile(r"[0-9]{1,6}\Z", re.ASCII)
_version = re.compile(r"[0-9]{1,18}\Z", re.ASCII)
_decimal = re.compile(r"-?[0-9](?:\.[0-9]{1,12})?\Z", re.ASCII)
MANY = frozenset({"state", "fields"})
"""Parameters that may be repeated."""


def tenant_of(request: Request) -> str:
    """The tenant of the path."""
    tenant_id: str = request.path_params["tenant"]
    if _tenant_id.match(tenant_id) is None:
        raise tenant_not_found(tenant_id)
    return tenant_id


def image_of(request: Request) -> str:
    """The image of the path."""
    image_id: str = request.path_params["id"]
    if _image_id.match(image_id) is None:
        raise image_not_found(image_id)
    return image_id


def tenant_not_found(tenant_id: str) -> QueryError:
    """Nothing was ever said about any image of this tenant."""
    return QueryError(404, "tenant_not_found", f"no images of tenant {tenant_id[:80]!r}", field="tenant")


def image_not_found(image_id: str, *, field: str = "id") -> QueryError:
    """The tenant has no such image; another tenant's is not told apart."""
    return QueryError(404, "image_not_found", f"the tenant has no image {image_id[:160]!r}", field=field)


def only(request: Request, allowed: Collection[str]) -> None:
    """Refuse parameters that nobody reads: a misspelt one must not be ignored."""
    for name, _ in request.query_params.multi_items():
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise invalid(name[:80], f"unknown parameter {name[:80]!r} (known: {known})")
        if name not in MANY and len(request.query_params.getlist(name)) > 1:
            raise invalid(name, f"{name} is given twice")


def limit_of(request: Request, *, default: int, maximum: int) -> int:
    """How many results the caller wants."""
    text = request.query_params.get("limit")
    if text is None:
        return default
    if _number.match(text) is None or not 1 <= int(text) <= maximum:
        raise invalid("limit", f"limit must be a number from 1 to {maximum}")
    return int(text)


def image_id_of(request: Request) -> str | None:
    """The id that the caller gives to what it sends, if any."""
    image_id = request.query_params.get("image_id")
    if image_id is not None and _image_id.match(image_id) is None:
        raise invalid("image_id", f"image_id must match {IMAGE_ID_PATTERN[:-2]}$")
    return image_id


def version_of(request: Request) -> int | None:
    """The version that the caller gives, if any; whether it can be one is said by `versions`."""
    text = request.query_params.get("version")
    if text is None:
        return None
    if _version.match(text) is None:
        raise invalid("version", "version must be a number: microseconds since 1970")
    return int(text)


def threshold_of(request: Request) -> float | None:
    """The least score of a hit, if the caller gives one."""
    text = request.query_params.get("score_threshold")
    if text is None:
        return None
    if _decimal.match(text) is None or not -1.0 <= float(text) <= 1.0:
        raise invalid("score_threshold", "score_threshold must be a cosine: -1 to 1")
    return float(text)


def states_of(request: Request) -> tuple[State, ...]:
    """Which states a list shows: all but tombstones, unless told otherwise."""
    given = request.query_params.getlist("state")
    if not given:
        return (State.INDEXED, State.EMPTY)
    known = {state.value: state for state in State}
    for text in given:
        if text not in known:
            raise invalid("state", f"state must be one of {', '.join(known)}")
    return tuple(known[text] for text in dict.fromkeys(given))


def invalid(field: str, message: str) -> QueryError:
    """A parameter that cannot be used."""
    return QueryError(400, "invalid_parameter", message, field=field)
