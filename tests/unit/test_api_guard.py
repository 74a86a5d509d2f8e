"""Without access keys only this machine, and no page but our own, may ask."""

from __future__ import annotations

import pytest

from tests.api_rig import error_of, filled, get


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_every_name_of_this_machine_is_served(host: str) -> None:
    """With the port that the server listens on, and with the Origin of that very address."""
    app = filled(1, 1).app()
    assert get(app, "/healthz", headers={"Host": host}).status_code == 200
    assert get(app, "/healthz", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example:8080",
        "localhost.:8080",
        "127.0.0.1",
        "127.0.0.1:80800",
        "127.0.0.1:8081",
        "127.0.0.1:8080\n",
        "user@127.0.0.1:8080",
        "0.0.0.0:8080",
        "127.0.0.2:8080",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/tenants/acme/images", "/nowhere"])
def test_a_foreign_host_is_refused_everywhere(host: str, path: str) -> None:
    """A name that was made to point here (DNS rebinding) gets nothing, not even a 404."""
    response = get(filled(1, 1).app(), path, headers={"Host": host})
    assert (response.status_code, error_of(response)["code"]) == (403, "host_forbidden")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1", ""]
)
def test_a_foreign_origin_is_refused(origin: str) -> None:
    """A page of any other address may not ask, not even one of this machine on another port."""
    response = get(filled(1, 1).app(), "/v1/tenants/acme/images", headers={"Origin": origin})
    assert (response.status_code, error_of(response)["code"]) == (403, "origin_forbidden")


def test_two_hosts_are_none() -> None:
    """What one reader takes for the host must be what every reader takes for it."""
    headers = [("Host", "127.0.0.1:8080"), ("Host", "evil.example")]
    assert get(filled(1, 1).app(), "/healthz", headers=headers).status_code == 403
