"""Which object store is used: decided here, from the settings, for every command alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lookalike.addresses import Addresses
from lookalike.settings import Settings

if TYPE_CHECKING:
    from pydantic import SecretStr

    from embedder.objects.protocol import ObjectStore
    from embedder.settings import ObjectSettings


def open_store(settings: Settings, addresses: Addresses) -> ObjectStore:
    """The S3 store or the folder of the settings, else that of the running `up`. Connects nothing.

    Raises:
        ConfigError: neither is known, or the folder is none.
    """
    given, running = settings.objects, addresses.running
    if given.s3_endpoint is not None:
        return _s3(given, given.s3_endpoint)
    if given.objects_dir is None and running is not None and running.s3 is not None:
        from embedder.objects.s3 import S3Store

        there = running.s3
        return S3Store(there.endpoint, access_key=there.access_key, secret_key=there.secret_key)
    from embedder.objects.folder import FolderStore

    return FolderStore(addresses.objects_dir(settings))


def place_of(settings: Settings, addresses: Addresses) -> str:
    """Where that store is, for people."""
    given, running = settings.objects, addresses.running
    if given.s3_endpoint is not None:
        return given.s3_endpoint
    if given.objects_dir is None and running is not None and running.s3 is not None:
        return running.s3.endpoint
    return str(addresses.objects_dir(settings))


def _s3(given: ObjectSettings, endpoint: str) -> ObjectStore:
    from embedder.objects.s3 import S3Store

    return S3Store(
        endpoint,
        region=given.s3_region,
        access_key=_plain(given.s3_access_key),
        secret_key=_plain(given.s3_secret_key),
        session_token=_plain(given.s3_session_token),
        path_style=given.s3_path_style,
        ca_file=given.s3_ca_file,
    )


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
