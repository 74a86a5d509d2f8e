"""With access keys: who asks. What the key is good for is checked where the operation is known (`Gate`)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from query_api.errors import RateLimitedError, error_response
from query_api.keys import Key
from query_api.keys import Scope as KeyScope
from query_api.params import tenant_not_found
from query_api.rate import RateLimit
from streams.errors import QueryError

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""Asked by machines that have no key: they tell nothing of any tenant."""

FindKey = Callable[[str], Key | None]
"""The key of a text, where it holds now."""


class AccessKeys:
    """Plain ASGI. Refuses who has no key, before a route is looked for and before a byte of a body is read."""

    def __init__(self, app: ASGIApp, *, find: FindKey, rate: RateLimit | None, open_paths: Collection[str]) -> None:
        self._app = app
        self._find = find
        self._rate = rate
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(scope, refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> QueryError | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        key = self._find(_bearer(given[0])) if len(given) == 1 else None
        scope.setdefault("state", {})["key"] = key
        if key is None:
            return None if scope["path"] in self._open_paths and not given else _unauthorized(bool(given))
        wait_s = self._rate.take(key.id) if self._rate is not None else 0.0
        return RateLimitedError(wait_s) if wait_s else None


class Gate:
    """What an operation asks before it begins; without keys nothing is refused."""

    def __init__(self, *, has_keys: bool, rate: RateLimit | None = None) -> None:
        self._has_keys = has_keys
        self._rate = rate

    def admit(self, request: Request, needed: KeyScope | None) -> None:
        """Refuse a key of another tenant as if nothing were there, then one of a smaller scope.

        Raises:
            QueryError: 404 `tenant_not_found`, 403 `scope_missing`.
        """
        if not self._has_keys or needed is None:
            return
        key: Key = request.state.key
        tenant_id = request.path_params.get("tenant")
        if tenant_id is not None and not key.may_see(tenant_id):
            raise tenant_not_found(tenant_id)
        if not key.scope.allows(needed) or (tenant_id is None and not key.is_operators):
            raise QueryError(403, "scope_missing", f"this needs a key of scope {needed}, the given one has {key.scope}")

    def charge(self, request: Request, n: int) -> None:
        """Count a request that does the work of several as so many."""
        key: Key | None = getattr(request.state, "key", None)
        if self._rate is not None and key is not None and n > 1:
            self._rate.charge(key.id, n - 1)

    def may_see_all(self, request: Request) -> bool:
        """Whether the asker may know what concerns the whole installation."""
        key: Key | None = getattr(request.state, "key", None)
        return not self._has_keys or (key is not None and key.is_operators)


def _bearer(value: bytes) -> str:
    kind, _, text = value.decode("latin-1").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


def _unauthorized(given: bool) -> QueryError:
    message = "this key is not known, or has expired" if given else "send an access key: Authorization: Bearer lk_…"
    return QueryError(401, "unauthorized", message)
