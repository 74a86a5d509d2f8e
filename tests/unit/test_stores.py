"""One place decides where pictures lie, from the settings and the running `up`."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from embedder.objects.folder import FolderStore
from embedder.objects.s3 import S3Store
from lookalike.addresses import Addresses
from lookalike.commands.doctor import _objects
from lookalike.local.children import Parts
from lookalike.local.runfile import Run
from lookalike.local.s3 import LocalS3, S3Address
from lookalike.local.up import UpOptions
from lookalike.local.up import _objects as make_objects
from lookalike.settings import Settings, read_settings
from lookalike.stores import open_store, place_of
from streams.errors import ConfigError

ADDRESS = S3Address("http://127.0.0.1:1", "key", "secret")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("b", tmp_path / "socket", tmp_path, "http://127.0.0.1:2", 1, "p", 0.0)


def _s3(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in ADDRESS.environment().items():
        monkeypatch.setenv(name, value)
    return read_settings()


def test_the_settings_come_first(monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path) -> None:
    """An S3 endpoint or a folder that is set is used, whatever runs beside it."""
    monkeypatch.setenv("LOOKALIKE_OBJECTS_DIR", str(tmp_path))
    beside = Addresses(tmp_path, _with_s3(run, ADDRESS))
    assert isinstance(open_store(read_settings(), beside), FolderStore)
    assert place_of(read_settings(), beside) == str(tmp_path)
    monkeypatch.delenv("LOOKALIKE_OBJECTS_DIR")
    settings = _s3(monkeypatch)
    assert isinstance(open_store(settings, Addresses(tmp_path, run)), S3Store)
    assert place_of(settings, Addresses(tmp_path, run)) == ADDRESS.endpoint


def test_else_the_running_up_says_where(run: Run, tmp_path: Path) -> None:
    """Its own S3 server, or its folder."""
    settings = read_settings()
    in_s3 = Addresses(tmp_path, _with_s3(run, ADDRESS))
    assert isinstance(open_store(settings, in_s3), S3Store)
    assert place_of(settings, in_s3) == ADDRESS.endpoint
    assert isinstance(open_store(settings, Addresses(tmp_path, run)), FolderStore)


def test_without_any_word_the_line_says_what_to_set(tmp_path: Path) -> None:
    """Nothing set, nothing running."""
    with pytest.raises(ConfigError, match="LOOKALIKE_OBJECTS_DIR"):
        open_store(read_settings(), Addresses(tmp_path, None))


def test_doctor_finds_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With its endpoint and never with its secret."""
    finding = _objects(_s3(monkeypatch), Addresses(tmp_path, None))
    assert not finding.ok
    assert ADDRESS.endpoint in finding.text
    assert "secret" not in finding.text


def _parts(settings: Settings, tmp_path: Path, s3: LocalS3 | None = None) -> Parts:
    return Parts(settings, tmp_path, None, "b", 1, tmp_path / "s", "exact", tmp_path / "objects", 1, 1, s3)


def test_the_children_of_up_are_told_one_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder, the server beside them, or the S3 of the caller's own variables: two would be an error in each."""
    names = {"LOOKALIKE_OBJECTS_DIR", *ADDRESS.environment()}
    told = {name for name in _parts(read_settings(), tmp_path).environment() if name in names}
    assert told == {"LOOKALIKE_OBJECTS_DIR"}
    server = LocalS3(tmp_path / "s3")
    server.prepare()
    environment = _parts(read_settings(), tmp_path, server).environment()
    assert server.address.environment().items() <= environment.items()
    assert "LOOKALIKE_OBJECTS_DIR" not in environment
    given = _parts(_s3(monkeypatch), tmp_path).environment()
    assert given["LOOKALIKE_S3_ENDPOINT"] == ADDRESS.endpoint
    assert "LOOKALIKE_OBJECTS_DIR" not in given


def test_up_refuses_a_second_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--objects s3` beside a store that the settings name; of the latter no bucket is made here."""
    monkeypatch.setenv("LOOKALIKE_OBJECTS_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="LOOKALIKE_OBJECTS_DIR says where objects lie"):
        make_objects(UpOptions(read_settings(), tmp_path, objects="s3"), tmp_path, tmp_path, print)
    monkeypatch.delenv("LOOKALIKE_OBJECTS_DIR")
    settings = _s3(monkeypatch)
    with pytest.raises(ConfigError, match="LOOKALIKE_S3_ENDPOINT says where objects lie"):
        make_objects(UpOptions(settings, tmp_path, objects="s3"), tmp_path, tmp_path, print)
    assert make_objects(UpOptions(settings, tmp_path), tmp_path, tmp_path / "objects", print) is None
    assert not (tmp_path / "objects").exists()


def _with_s3(run: Run, s3: S3Address) -> Run:
    return msgspec.structs.replace(run, s3=s3)
