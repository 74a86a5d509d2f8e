"""Asking the HTTP API from the command line, with the standard library only."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from streams.errors import DependencyError, QueryError

if TYPE_CHECKING:
    from pydantic import SecretStr

_TIMEOUT_S = 30.0


def ask(url: str, path: str, *, body: bytes | None = None, key: SecretStr | None = None) -> dict[str, Any]:
    """The JSON object that `path` answers; a POST where there is a `body`. With a `key` as its holder. Blocks.

    Raises:
        DependencyError: nobody answers at `url`, or something else does.
        QueryError: the API refuses; with its status, code and message.
    """
    status, answer = request(url, path, body=body, key=key)
    error = answer.get("error")
    if isinstance(error, dict):
        raise QueryError(status, str(error.get("code")), str(error.get("message")))
    if status >= 400:
        raise DependencyError("api", f"what answers at {url} is not this API: {status} without its error body")
    return answer


def request(
    url: str,
    path: str,
    *,
    body: bytes | None = None,
    key: SecretStr | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of an answer, whatever they are. DependencyError as :func:`ask`."""
    address = urlsplit(url)
    headers = {"Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key.get_secret_value()}"
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=timeout_s)
    try:
        connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
        response = connection.getresponse()
        status, text = response.status, response.read()
    except (OSError, http.client.HTTPException) as exc:
        raise DependencyError("api", f"the API at {url} does not answer: {exc}") from exc
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise DependencyError("api", f"what answers at {url} is not this API: {status} without a JSON object")
    return status, answer
