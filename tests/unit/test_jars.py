"""A Java program's jars are downloaded once, whole, and what stops that is one line."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest

from lookalike.local.jars import JavaProgram, check_jar
from lookalike.local.kafka_jars import KAFKA
from lookalike.local.s3 import S3PROXY
from streams.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries to download is refused at once: nothing listens on the port of this proxy."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "")


class MavenFolder:
    """Stands in for the download: two small jars, and how often they were asked for."""

    def __init__(self) -> None:
        self.n_asked = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def resolve(self, repository: Path) -> list[Path]:
        self.n_asked += 1
        repository.mkdir()
        jars = [repository / "a.jar", repository / "b.jar"]
        for jar in jars:
            with zipfile.ZipFile(jar, "w") as archive:
                archive.writestr("Main.class", jar.name)
        assert self.may_go_on.wait(30)
        return jars

    @property
    def program(self) -> JavaProgram:
        return JavaProgram("kafka", "Kafka", "1", 45, self.resolve, "set SOMETHING")


@pytest.fixture
def maven() -> MavenFolder:
    return MavenFolder()


@pytest.mark.parametrize(
    ("program", "variable"), [(KAFKA, "LOOKALIKE_KAFKA_BOOTSTRAP"), (S3PROXY, "LOOKALIKE_S3_ENDPOINT")]
)
def test_without_network_one_line_says_what_to_do(tmp_path: Path, program: JavaProgram, variable: str) -> None:
    """Nothing can be downloaded: the error names the cause and both ways out, and nothing half is left."""
    with pytest.raises(ConfigError) as caught:
        program.fetch(tmp_path / "kafka")
    assert "Connection refused" in str(caught.value)
    assert f"connect this machine to the network once, or set {variable}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["kafka.lock"]


def test_a_second_time_nothing_is_downloaded(tmp_path: Path, maven: MavenFolder) -> None:
    """What is complete is used as it is; only the first time something is said."""
    said: list[str] = []
    for _ in range(2):
        maven.program.fetch(tmp_path / "kafka", said.append)
    assert maven.n_asked == 1
    assert len(said) == 1
    assert sorted(path.name for path in (tmp_path / "kafka").glob("*.jar")) == ["a.jar", "b.jar"]


def test_a_cache_that_lost_a_jar_is_filled_again(tmp_path: Path, maven: MavenFolder) -> None:
    """A jar that is missing or cut short is noticed before the broker is."""
    maven.program.fetch(tmp_path / "kafka")
    (tmp_path / "kafka" / "a.jar").unlink()
    maven.program.fetch(tmp_path / "kafka")
    (tmp_path / "kafka" / "b.jar").write_bytes(b"PK")
    maven.program.fetch(tmp_path / "kafka")
    assert maven.n_asked == 3
    assert all(zipfile.is_zipfile(jar) for jar in (tmp_path / "kafka").glob("*.jar"))


def test_two_at_once_download_once(tmp_path: Path, maven: MavenFolder) -> None:
    """The second waits for the first and takes what that one has brought."""
    maven.may_go_on.clear()
    threads = [threading.Thread(target=maven.program.fetch, args=(tmp_path / "kafka",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert not (tmp_path / "kafka").exists(), "it appears only when it is complete"
    maven.may_go_on.set()
    for thread in threads:
        thread.join(30)
    assert maven.n_asked == 1
    assert len(list((tmp_path / "kafka").glob("*.jar"))) == 2


def test_a_killed_download_does_not_disturb_the_next(tmp_path: Path, maven: MavenFolder) -> None:
    """What somebody left half done is thrown away."""
    (tmp_path / "kafka.part" / "maven").mkdir(parents=True)
    (tmp_path / "kafka.part" / "maven" / "half.jar").touch()
    maven.program.fetch(tmp_path / "kafka")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kafka", "kafka.lock"]


def test_the_cache_follows_the_users_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_CACHE_HOME is where it says, else the home folder's .cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert KAFKA.default_folder() == tmp_path / "lookalike" / f"kafka-{KAFKA.version}"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert KAFKA.default_folder().parent == tmp_path / "home" / ".cache" / "lookalike"


def test_a_folder_java_cannot_read_from_is_refused(tmp_path: Path) -> None:
    """A colon would end the folder's name in Java's class path."""
    with pytest.raises(ConfigError, match="without ':'"):
        KAFKA.fetch(tmp_path / "a:b")


def test_what_is_no_jar_is_refused(tmp_path: Path) -> None:
    """The login page of a network's gate is not kept as a jar."""
    page = tmp_path / "page.jar"
    page.write_text("<html>please log in</html>")
    with pytest.raises(zipfile.BadZipFile):
        check_jar(page)
