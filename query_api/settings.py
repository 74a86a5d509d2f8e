"""Settings of the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from streams.settings import PREFIX, Section


class ApiSettings(Section):
    """Where the API listens and what a request may cost."""

    model_config = SettingsConfigDict(env_prefix=PREFIX + "API_")

    host: Annotated[
        str, Field(description="address to listen on; without access keys only one of this machine itself")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, description="0 for a free one")] = 8080
    keys_file: Annotated[
        Path | None,
        Field(description="access keys, made by `lookalike keys create`; read again when it changes (docs/api.md)"),
    ] = None
    key: Annotated[
        SecretStr | None, Field(description="access key that `lookalike similar` sends where the API wants one")
    ] = None
    rate_per_s: Annotated[
        float, Field(gt=0, le=100_000, description="requests a second with one key, in each API process")
    ] = 100.0
    max_body_bytes: Annotated[int, Field(ge=1024, le=1 << 30, description="a larger body is answered 413")] = (
        64 * 1024 * 1024
    )
    max_uploads: Annotated[
        int, Field(ge=1, le=1024, description="query pictures in hand at once; more are answered 429")
    ] = 8
    deadline_s: Annotated[float, Field(gt=0, le=300, description="a request that takes longer is answered 504")] = 10.0
    drain_s: Annotated[
        float, Field(ge=0, le=300, description="how long a stop waits for requests under way; 25 on a cluster")
    ] = 2.0
