"""Access keys: what is stored of them, what each is good for, and a file that changes under a running API."""

from __future__ import annotations

import hashlib
import json
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from lookalike import cli
from query_api.app import create_app
from query_api.deps import Limits
from query_api.key_ring import KeyRing
from query_api.keys import EVERY_TENANT, Scope, changing, find, new_key, read_keys
from query_api.rate import RateLimit
from streams.errors import ConfigError, DependencyError
from tests.api_rig import TENANT, ask, error_of, filled, get, picture, serving
from tests.waiting import wait_until

NOW = datetime(2026, 11, 25, tzinfo=UTC)
IMAGES = f"/v1/tenants/{TENANT}/images"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOKALIKE_API_KEYS_FILE", raising=False)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


class KeyedApp:
    """The app with keys in a file: `add` makes one, `get` and `ask` use it."""

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        self.path = folder / "keys.json"
        with changing(self.path):
            pass
        self.rig = filled(1, 2)
        self.ring = KeyRing(self.path, every_s=0.01)
        self.app: Starlette = create_app(replace(self.rig.deps(limits=limits), keys=self.ring))

    def add(self, tenant_id: str = TENANT, scope: Scope = Scope.SEARCH, **options: Any) -> str:
        made = new_key(tenant_id, scope, now=options.pop("now", datetime.now(UTC)), **options)
        with changing(self.path) as keys:
            keys[made.key.id] = made.key
        self.ring.look()
        return made.text

    def get(self, path: str, text: str | None = None, **headers: str) -> httpx.Response:
        return get(self.app, path, headers={**(bearer(text) if text else {}), **headers})


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[KeyedApp]:
    api = KeyedApp(tmp_path)
    yield api
    api.ring.close()


# ---- one key -------------------------------------------------------------------------------------


def test_only_the_hash_of_a_key_is_stored(tmp_path: Path) -> None:
    """The file holds SHA-256 and can be read by its owner alone; the text is nowhere in it."""
    made = new_key("acme", Scope.WRITE, now=NOW)
    path = tmp_path / "keys.json"
    with changing(path) as keys:
        keys[made.key.id] = made.key
    stored = path.read_text()
    assert made.text not in stored
    assert made.text.rpartition("_")[2] not in stored
    assert hashlib.sha256(made.text.encode()).hexdigest() in stored
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(path) == {made.key.id: made.key}


def test_a_key_is_found_by_its_whole_text_only() -> None:
    """Another secret under the same id, a cut one, a longer one and nonsense are nobody's."""
    made, other = new_key("acme", Scope.SEARCH, now=NOW), new_key("acme", Scope.SEARCH, now=NOW)
    keys = {made.key.id: made.key}
    assert find(keys, made.text, now=NOW) == made.key
    swapped = f"lk_{made.key.id}_{other.text.split('_', 2)[2]}"
    for text in (swapped, made.text[:-1], made.text + "a", made.text + "\n", other.text, "", "lk_", made.key.sha256):
        assert find(keys, text, now=NOW) is None


def test_a_key_expires() -> None:
    """It holds up to its time and not from then on."""
    made = new_key("acme", Scope.SEARCH, now=NOW, expires_at=NOW + timedelta(hours=1))
    keys = {made.key.id: made.key}
    assert find(keys, made.text, now=NOW + timedelta(minutes=59)) == made.key
    assert find(keys, made.text, now=NOW + timedelta(hours=1)) is None


def test_no_two_keys_are_alike() -> None:
    """Ids and secrets are random; a tenant that cannot be is refused."""
    assert len({new_key("acme", Scope.SEARCH, now=NOW).text for _ in range(100)}) == 100
    with pytest.raises(ValueError, match="no tenant id"):
        new_key("ACME!", Scope.SEARCH, now=NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": [{"id": "a"}]}',
        '{"keys": [{"id":"a","sha256":"x","tenant_id":"b","scope":"search","created_at":"2026-01-01T00:00:00Z"}]}',
        '{"keys": [{"id":"a","sha256":"%s","tenant_id":"b","scope":"root","created_at":"2026-01-01T00:00:00Z"}]}'
        % ("0" * 64),
        '{"keys": [{"id":"a","sha256":"%s","tenant_id":"b","scope":"search","created_at":"2026-01-01T00:00:00"}]}'
        % ("0" * 64),
        "\xff",
    ],
)
def test_what_is_no_file_of_keys_is_one_line(tmp_path: Path, text: str) -> None:
    """A damaged file names itself; it is never taken for one without keys."""
    path = tmp_path / "keys.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"keys\.json is no file of keys") as caught:
        read_keys(path)
    assert "\n" not in str(caught.value)


def test_keys_made_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    """Two operators at once do not overwrite each other."""
    path = tmp_path / "keys.json"

    def make() -> None:
        for _ in range(10):
            made = new_key("acme", Scope.SEARCH, now=NOW)
            with changing(path) as keys:
                keys[made.key.id] = made.key

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_keys(path)) == 40


# ---- what a key is good for ----------------------------------------------------------------------


@pytest.mark.parametrize("path", [IMAGES, IMAGES + "/f0-m0", "/v1/tenants/nobody/images", "/nowhere", "/", "/metrics"])
def test_without_a_key_everything_is_401(keyed: KeyedApp, path: str) -> None:
    """Also what does not exist: nothing is learned without a key."""
    response = keyed.get(path)
    assert (response.status_code, error_of(response)["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "value", ["Bearer", "Bearer x", "Basic YTpi", "bearer lk_000000000000_" + "a" * 43, "", "Bearer \xff"]
)
def test_a_wrong_key_is_401_even_where_none_is_needed(keyed: KeyedApp, value: str) -> None:
    """Who sends one means it; a typing error must not look like success."""
    headers = [(b"Authorization", value.encode("latin-1"))]
    for path in (IMAGES, "/healthz"):
        assert get(keyed.app, path, headers=headers).status_code == 401


def test_two_keys_are_none(keyed: KeyedApp) -> None:
    """What one reader takes for the key must be what every reader takes for it."""
    text = keyed.add()
    headers = [("Authorization", f"Bearer {text}"), ("Authorization", f"Bearer {text}")]
    assert get(keyed.app, IMAGES, headers=headers).status_code == 401


def test_machines_may_ask_without_a_key_and_learn_no_inside(keyed: KeyedApp) -> None:
    """Health and readiness have no key to send; texts of errors, which name hosts and folders, are left out."""
    keyed.ring.look()
    keyed.path.write_text("broken")
    keyed.ring.look()
    assert keyed.get("/healthz").status_code == 200
    assert keyed.get("/openapi.json").status_code == 200
    told = keyed.get("/readyz").json()["dependencies"]["keys"]
    assert (told["state"], told["required"], told["last_error"]) == ("failed", False, None)


def test_a_key_opens_its_own_tenant_and_the_other_is_not_there(keyed: KeyedApp) -> None:
    """Another tenant's answer is, word for word, that of a tenant who does not exist."""
    keyed.rig.add("theirs", picture(9, 9), tenant_id="globex")
    text = keyed.add(TENANT)
    assert keyed.get(IMAGES, text).status_code == 200
    foreign = keyed.get(IMAGES.replace(TENANT, "globex"), text)
    missing = keyed.get(IMAGES.replace(TENANT, "nobody"), text)
    assert foreign.status_code == missing.status_code == 404
    assert error_of(foreign)["message"].replace("globex", "nobody") == error_of(missing)["message"]


def test_the_operators_key_opens_every_tenant_and_the_metrics(keyed: KeyedApp) -> None:
    """A tenant's own admin key does not show what concerns all tenants together."""
    operators, tenants = keyed.add(EVERY_TENANT, Scope.ADMIN), keyed.add(TENANT, Scope.ADMIN)
    assert keyed.get(IMAGES, operators).status_code == 200
    assert keyed.get("/metrics", operators).status_code == 200
    for text in (tenants, keyed.add(EVERY_TENANT, Scope.WRITE)):
        refused = keyed.get("/metrics", text)
        assert (refused.status_code, error_of(refused)["code"]) == (403, "scope_missing")


def test_there_is_no_page_where_there_are_keys(keyed: KeyedApp) -> None:
    """It sends none: it is for the user of this very machine."""
    text = keyed.add(EVERY_TENANT, Scope.ADMIN)
    for path in ("/", "/static/page.js"):
        assert keyed.get(path, text).status_code == 404


def test_host_and_origin_do_not_matter_where_there_are_keys(keyed: KeyedApp) -> None:
    """A proxy may stand in front; no browser adds a key by itself."""
    text = keyed.add()
    assert keyed.get(IMAGES, text, Host="search.example", Origin="https://shop.example").status_code == 200


# ---- a file that changes -------------------------------------------------------------------------


def test_a_running_api_follows_the_file(tmp_path: Path) -> None:
    """A new key is good, a revoked one is refused, without a restart; also where a link is turned to another file."""
    api = KeyedApp(tmp_path)
    made = new_key(TENANT, Scope.SEARCH, now=datetime.now(UTC))
    with serving(api.app) as address:

        def status() -> int:
            return httpx.get(address + IMAGES, headers=bearer(made.text), timeout=20).status_code

        assert status() == 401
        with changing(api.path) as keys:
            keys[made.key.id] = made.key
        wait_until(lambda: status() == 200)
        with changing(tmp_path / "other.json"):
            pass
        (tmp_path / "link").symlink_to("other.json")
        (tmp_path / "link").replace(api.path)
        wait_until(lambda: status() == 401)


def test_a_file_that_breaks_changes_nothing_and_is_told(keyed: KeyedApp) -> None:
    """Half a file, or none, locks nobody out and lets nobody in; once it is whole again it holds."""
    text = keyed.add()
    whole = keyed.path.read_bytes()
    for broken in (b"{", None):
        keyed.path.unlink() if broken is None else keyed.path.write_bytes(broken)
        keyed.ring.look()
        assert keyed.get(IMAGES, text).status_code == 200
        with pytest.raises(DependencyError, match="keys"):
            keyed.ring.check()
    keyed.path.write_bytes(whole.replace(b"acme", b"acne"))
    keyed.ring.look()
    keyed.ring.check()
    assert keyed.get(IMAGES, text).status_code == 404


def test_an_expired_key_is_refused_while_the_api_runs(tmp_path: Path) -> None:
    """Nobody has to touch the file for that."""
    made = new_key(TENANT, Scope.SEARCH, now=NOW, expires_at=NOW + timedelta(hours=1))
    path = tmp_path / "keys.json"
    with changing(path) as keys:
        keys[made.key.id] = made.key
    clock = [NOW]
    app = create_app(replace(filled(1, 1).deps(), keys=KeyRing(path, now=lambda: clock[0])))
    assert get(app, IMAGES, headers=bearer(made.text)).status_code == 200
    clock[0] = NOW + timedelta(hours=2)
    assert get(app, IMAGES, headers=bearer(made.text)).status_code == 401


# ---- rate ----------------------------------------------------------------------------------------


def test_a_bucket_fills_steadily_and_keeps_debts() -> None:
    """Two seconds' worth at once, then as fast as it fills; a batch may leave debts that are paid first."""
    clock = [100.0]
    rate = RateLimit(per_s=2.0, clock=lambda: clock[0])
    assert [rate.take("a") for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert rate.take("b") == 0.0
    clock[0] += 0.5
    assert rate.take("a") == 0.0
    rate.charge("a", 3)
    assert rate.take("a") == 2.0
    clock[0] += 2.0
    assert rate.take("a") == 0.0


def test_a_key_above_its_rate_is_429_and_another_key_is_not(tmp_path: Path) -> None:
    """Retry-After says when one request passes; the other tenant does not notice."""
    api = KeyedApp(tmp_path, Limits(rate_per_s=0.001))
    busy, calm = api.add(), api.add()
    assert [api.get(IMAGES, busy).status_code for _ in range(3)] == [200, 200, 429]
    refused = api.get(IMAGES, busy)
    assert error_of(refused)["code"] == "rate_limited"
    assert int(refused.headers["retry-after"]) >= 990
    assert api.get(IMAGES, calm).status_code == 200


def test_the_command_line_sends_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lookalike similar` is refused without one, in one line; with LOOKALIKE_API_KEY it is answered."""
    api = KeyedApp(tmp_path)
    text = api.add()
    with serving(api.app) as address:
        monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "nothing-runs-here"))
        monkeypatch.setenv("LOOKALIKE_API_PORT", address.rpartition(":")[2])
        asked = ["similar", "--tenant", TENANT, "--image", "f0-m0", "--json"]
        assert cli.run(asked) == 1
        assert "access key" in capsys.readouterr().err
        (tmp_path / "key").write_text(text + "\n")
        monkeypatch.setenv("LOOKALIKE_API_KEY_FILE", str(tmp_path / "key"))
        assert cli.run(asked) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["hits"][0]["image_id"] == "f0-m1"


# ---- the command ---------------------------------------------------------------------------------


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The key is on stdout once; the list does not show it; a second revocation is exit 1."""
    file = ["--file", str(tmp_path / "new" / "keys.json")]
    made = ["keys", "create", "--tenant", "acme", "--scope", "write", "--expires", "30d", "--json", *file]
    assert cli.run(made) == 0
    created = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert created["key"].startswith(f"lk_{created['id']}_")
    left = datetime.fromisoformat(created["expires"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)
    assert cli.run(["keys", "list", "--json", *file]) == 0
    shown = capsys.readouterr().out
    assert created["key"] not in shown
    assert [(key["id"], key["tenant"], key["scope"]) for key in json.loads(shown)["keys"]] == [
        (created["id"], "acme", "write")
    ]
    assert cli.run(["keys", "revoke", created["id"], *file]) == 0
    assert cli.run(["keys", "revoke", created["id"], *file]) == 1
    assert cli.run(["keys", "list", "--json", *file]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"keys": []}


@pytest.mark.parametrize(
    "args",
    [
        ["--scope", "search"],
        ["--tenant", "ACME"],
        ["--tenant", "acme", "--scope", "root"],
        ["--tenant", "acme", "--expires", "yesterday"],
        ["--tenant", "acme", "--expires", "2020-01-01"],
        ["--tenant", "acme", "--expires", "0d"],
        ["--tenant", "acme", "--expires", "1h30"],
    ],
)
def test_a_wrong_key_is_not_made(tmp_path: Path, args: list[str]) -> None:
    """Usage errors are exit 2, and leave no file."""
    path = tmp_path / "keys.json"
    assert cli.run(["keys", "create", *args, "--file", str(path)]) == 2
    assert not path.exists()


def test_no_file_of_keys_is_one_line_and_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither set nor given, or given and not there."""
    assert cli.run(["keys", "list"]) == 3
    assert "LOOKALIKE_API_KEYS_FILE" in capsys.readouterr().err
    assert cli.run(["keys", "revoke", "x", "--file", str(tmp_path / "none")]) == 3
    assert "keys create" in capsys.readouterr().err


def test_what_a_file_of_another_tenant_would_say_is_not_asked(keyed: KeyedApp) -> None:
    """A key of another tenant reaches no index: the refusal comes before."""
    text = keyed.add("globex")
    keyed.rig.index.get = None  # type: ignore[method-assign,assignment]
    assert ask(keyed.app, "GET", IMAGES + "/f0-m0", headers=bearer(text)).status_code == 404


@pytest.mark.parametrize("text", ['{"keys": []}', "nonsense"])
def test_doctor_looks_at_the_keys(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that the API could not start with is told before it is started."""
    path = tmp_path / "keys.json"
    path.write_text(text)
    monkeypatch.setenv("LOOKALIKE_API_KEYS_FILE", str(path))
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "nothing-runs-here"))
    cli.run(["doctor", "--json"])
    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out.splitlines()[-1])["findings"]}
    assert findings["keys"]["ok"] == (text != "nonsense")
    assert str(path) in findings["keys"]["text"]
