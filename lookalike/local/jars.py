"""A Java program's jars from Maven Central, by jgo in pure Python, kept in a folder of the user's cache."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

from streams.errors import ConfigError

Download = Callable[[Path], Sequence[Path]]
"""Gets every jar, into a Maven repository of its own: the user's ~/.m2 is neither needed nor touched."""

_COMPLETE = "complete.json"
"""Written last: the name and size of every jar, so that a cache that lost one is filled again."""


@dataclass(frozen=True, slots=True)
class JavaProgram:
    """What to have: `title` and `size_mb` are for people, `otherwise` is their way out where there is no network."""

    name: str
    title: str
    version: str
    size_mb: int
    download: Download
    otherwise: str

    def default_folder(self) -> Path:
        """Where the jars of this version are kept, for all data folders of the user.

        Raises:
            ConfigError: the user has no home folder.
        """
        try:
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError as exc:
            raise ConfigError(
                f"there is no home folder to keep {self.title} in: set XDG_CACHE_HOME to a folder"
            ) from exc
        return Path(cache) / "lookalike" / f"{self.name}-{self.version}"

    def fetch(self, folder: Path, progress: Callable[[str], None] = lambda _line: None) -> None:
        """Fill `folder` unless it is complete; whole or not at all. Several processes may ask at once. Blocks.

        Raises:
            ConfigError: the jars are not there and cannot be had, or the folder cannot be written.
        """
        if os.pathsep in str(folder):  # it ends a folder's name in Java's class path
            raise ConfigError(
                f"{folder} cannot hold {self.title}: choose a path without '{os.pathsep}' in XDG_CACHE_HOME"
            )
        if _is_complete(folder):
            return
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_name(f"{folder.name}.lock")):
                if not _is_complete(folder):
                    progress(f"downloading {self.title} {self.version} ({self.size_mb} MB)")
                    self._fill(folder)
        except OSError as exc:
            raise ConfigError(f"{folder} cannot be written: {exc.strerror or exc}") from exc

    def _fill(self, folder: Path) -> None:
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # of somebody who was killed meanwhile
        try:
            (part / "jars").mkdir(parents=True)
            sizes = {}
            for jar in self._downloaded(part / "maven"):
                jar.replace(part / "jars" / jar.name)
                sizes[jar.name] = (part / "jars" / jar.name).stat().st_size
            (part / "jars" / _COMPLETE).write_text(json.dumps(sizes, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            (part / "jars").rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _downloaded(self, repository: Path) -> Sequence[Path]:
        logging.getLogger("jgo").setLevel(logging.ERROR)
        try:
            jars = self.download(repository)
            for jar in jars:
                check_jar(jar)
        except (OSError, RuntimeError, ValueError, KeyError, ParseError, zipfile.BadZipFile) as exc:
            if isinstance(exc, OSError) and exc.errno is not None:  # the disk; an HTTP client's error has no number
                raise
            raise ConfigError(
                f"{self.title} {self.version} could not be downloaded from Maven Central ({_in_short(exc)}): connect "
                f"this machine to the network once, or {self.otherwise}"
            ) from exc
        return jars


def _is_complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _COMPLETE).read_text())
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except FileNotFoundError:
        return False


def check_jar(jar: Path) -> None:
    """A proxy's login page is no jar, nor is half of one; jgo only warns of a wrong checksum."""
    with zipfile.ZipFile(jar) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"{jar.name} is damaged")


def _in_short(error: BaseException) -> str:
    """The innermost cause says what happened; those around it repeat addresses."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
