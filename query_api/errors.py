"""The one error body, and the one table from what was raised to what the caller sees.

{"error": {"code": "image_not_found", "message": "…", "field": null, "request_id": "…"}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler, Scope

from embedder.query_embedder import QueueFullError
from query_api.answers import HEADERS, JsonResponse
from streams.errors import DependencyError, EventError, LookalikeError, QueryError, Reason, RetryableError

RETRY_AFTER_S = 1
"""What is said with 429 and 503: queues here empty within a second, or a dependency is down for longer anyway."""

_BY_REASON = {
    Reason.LOCATION_FORBIDDEN: 403,
    Reason.IMAGE_MISSING: 404,
    Reason.INTERNAL_ERROR: 500,
}
"""A picture that cannot be used is 422, but for these."""


class RateLimitedError(QueryError):
    """The key has used up its requests; another one passes in `wait_s` seconds."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(429, "rate_limited", "too many requests with this key: ask again a little later")
        self.wait_s = wait_s


_MORE_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": str(RETRY_AFTER_S)},
    503: {"Retry-After": str(RETRY_AFTER_S)},
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What the caller is told."""

    status: int
    code: str
    message: str
    field: str | None = None
    headers: Mapping[str, str] | None = None


def problem_of(exc: Exception) -> Problem:
    """What is said about an exception. Only what we raise on purpose is told in its own words."""
    match exc:
        case RateLimitedError():
            headers = {"Retry-After": str(math.ceil(exc.wait_s))}
            problem = Problem(exc.status, exc.code, exc.message, headers=headers)
        case QueryError():
            problem = Problem(exc.status, exc.code, exc.message, exc.field)
        case QueueFullError():
            problem = Problem(429, "queue_full", str(exc))
        case EventError():
            problem = Problem(_BY_REASON.get(exc.reason, 422), exc.reason, exc.message, exc.field)
        case RetryableError():
            problem = Problem(_BY_REASON.get(exc.reason, 422), exc.reason, exc.message)
        case DependencyError():
            problem = Problem(503, f"{exc.dependency}_unavailable", exc.message)
        case TimeoutError():
            problem = Problem(504, "timeout", "the answer took longer than a request may take")
        case HTTPException():
            code = HTTPStatus(exc.status_code).phrase.lower().replace(" ", "_")
            problem = Problem(exc.status_code, code, exc.detail, headers=exc.headers)
        case ClientDisconnect():
            problem = Problem(400, "client_disconnected", "the body ended before it was complete")
        case _:
            problem = Problem(500, "internal_error", "something unexpected; the log has it under this request_id")
    return problem


def error_response(scope: Scope, exc: Exception) -> Response:
    """The error body of `exc` for the request of `scope`."""
    problem = problem_of(exc)
    request_id = scope.get("state", {}).get("request_id")
    headers = {**HEADERS, **_MORE_HEADERS.get(problem.status, {}), **(problem.headers or {})}
    if request_id is not None:  # a 500 is sent from outside of our middleware, which would add it
        headers["X-Request-ID"] = request_id
    body = {
        "code": problem.code,
        "message": problem.message,
        "field": problem.field,
        "request_id": request_id,
    }
    return JsonResponse({"error": body}, status_code=problem.status, headers=headers)


async def _answer(request: Request, exc: Exception) -> Response:
    return error_response(request.scope, exc)


HANDLERS: dict[type[Exception], ExceptionHandler] = {
    LookalikeError: _answer,
    TimeoutError: _answer,
    HTTPException: _answer,
    ClientDisconnect: _answer,
    Exception: _answer,
}
"""For `Starlette(exception_handlers=…)`: every way an error arises in a route ends here."""
