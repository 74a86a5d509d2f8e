"""Access keys: what is handed out, what is stored of it, and the file that may change while the API runs.

A key reads ``lk_ID_SECRET``. Only its SHA-256 is stored: the secret has 256 random bits, so nothing is
gained by a slow hash, and whoever reads the file cannot ask with what is in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from streams.errors import ConfigError
from streams.event import TENANT_ID_PATTERN

EVERY_TENANT = "*"
"""The tenant of an operator's key."""
_TEXT = re.compile(r"lk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}\Z", re.ASCII)
_NOBODYS = "0" * 64
"""Compared with where no key has the id, so that an unknown one takes as long as a wrong one."""


class Scope(StrEnum):
    """What a key may do; each includes the one before."""

    SEARCH = "search"
    WRITE = "write"
    ADMIN = "admin"

    def allows(self, needed: Scope) -> bool:
        """Whether a key of this scope may do what needs `needed`."""
        order = list(Scope)
        return order.index(self) >= order.index(needed)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a key. Times have a zone; `expires_at` None never comes."""

    id: str
    sha256: str
    tenant_id: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None = None

    def may_see(self, tenant_id: str) -> bool:
        """Whether the key is one of this tenant, or of every tenant."""
        return self.tenant_id in (tenant_id, EVERY_TENANT)

    @property
    def is_operators(self) -> bool:
        """Whether its holder may know what concerns all tenants together."""
        return self.tenant_id == EVERY_TENANT and self.scope is Scope.ADMIN


class _File(msgspec.Struct):
    keys: list[Key] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NewKey:
    """`text` is shown once and stored nowhere."""

    text: str
    key: Key


def new_key(tenant_id: str, scope: Scope, *, now: datetime, expires_at: datetime | None = None) -> NewKey:
    """A fresh key; ValueError for a tenant that cannot be."""
    if tenant_id != EVERY_TENANT and re.match(TENANT_ID_PATTERN, tenant_id) is None:
        raise ValueError(f"{tenant_id!r} is no tenant id")
    key_id = secrets.token_hex(6)
    text = f"lk_{key_id}_{secrets.token_urlsafe(32)}"
    key = Key(id=key_id, sha256=_digest(text), tenant_id=tenant_id, scope=scope, created_at=now, expires_at=expires_at)
    return NewKey(text, key)


def find(keys: dict[str, Key], text: str, *, now: datetime) -> Key | None:
    """The key of this text, None where there is none or it has expired. Compared in constant time."""
    match = _TEXT.match(text)
    key = keys.get(match[1]) if match else None
    same = hmac.compare_digest(_digest(text), key.sha256 if key else _NOBODYS)
    if key is None or not same:
        return None
    return key if key.expires_at is None or now < key.expires_at else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ---- the file ------------------------------------------------------------------------------------


def read_keys(path: Path) -> dict[str, Key]:
    """The keys of a file, by id.

    Raises:
        ConfigError: it is not there, cannot be read, or is no file of keys.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise ConfigError(f"{path} is not there: `lookalike keys create` makes it") from exc
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    try:
        keys = msgspec.json.decode(data, type=_File).keys
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is no file of keys: {exc}") from exc
    for key in keys:
        times = [at for at in (key.created_at, key.expires_at) if at is not None]
        if any(at.tzinfo is None for at in times) or re.fullmatch(r"[0-9a-f]{64}", key.sha256) is None:
            raise ConfigError(f"{path} is no file of keys: key {key.id} needs a SHA-256 and times with a zone")
    return {key.id: key for key in keys}


@contextmanager
def changing(path: Path) -> Iterator[dict[str, Key]]:
    """The keys of a file, to be changed: they are written back at the end, as a whole. One process at a time.

    Raises:
        ConfigError: the file is there and cannot be read, or cannot be written.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_path.open("w")
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path) if path.exists() else {}
        yield keys
        _replace(path, list(keys.values()))


def _replace(path: Path, keys: Sequence[Key]) -> None:
    """A reader, or a crash, sees the old file or the new one; only its owner may read it."""
    scratch = path.with_name(path.name + ".new")
    data = msgspec.json.format(msgspec.json.encode(_File(list(keys))), indent=1) + b"\n"
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        scratch.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
