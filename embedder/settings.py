"""Settings of the embedder's rooms: the index, the object store, the model, decoding, the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from embedder.objects.grants import Grants
from streams.errors import ConfigError
from streams.settings import PREFIX, Section, variable_of

STORE_ADDRESS = "store://"


class IndexSettings(Section):
    """Where the index answers."""

    index_socket: Annotated[
        Path | None,
        Field(description="unix socket of `lookalike index serve`; without it the running `up` of the data folder"),
    ] = None
    qdrant_url: Annotated[str | None, Field(description="a Qdrant server; refused: not in this version")] = None
    qdrant_api_key: Annotated[SecretStr | None, Field(description="its key; refused: not in this version")] = None
    qdrant_ca_file: Annotated[
        FilePath | None, Field(description="certificates to trust for it (PEM); refused: not in this version")
    ] = None

    @model_validator(mode="after")
    def _no_server_yet(self) -> Self:
        _refuse(self, "qdrant_", "this version keeps its vectors in `lookalike index serve` only")
        return self


class ObjectSettings(Section):
    """Where pictures lie and which of them a tenant may read."""

    objects_dir: Annotated[
        Path | None, Field(description="folder with one folder per bucket; without it that of the running `up`")
    ] = None
    buckets: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(min_length=1, description="comma-separated; `publish` stores in the first"),
    ] = ("pictures",)
    tenant_prefixes: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(
            description="comma-separated prefixes of keys a tenant may read, in every bucket; "
            "`{tenant_id}` stands for the tenant and must be followed by `/`"
        ),
    ] = ("{tenant_id}/",)
    s3_endpoint: Annotated[str | None, Field(description="an S3 store; refused: not in this version")] = None
    s3_region: Annotated[str | None, Field(description="its region; refused: not in this version")] = None
    s3_access_key: Annotated[SecretStr | None, Field(description="refused: not in this version")] = None
    s3_secret_key: Annotated[SecretStr | None, Field(description="refused: not in this version")] = None
    s3_session_token: Annotated[SecretStr | None, Field(description="refused: not in this version")] = None
    s3_ca_file: Annotated[
        FilePath | None, Field(description="certificates to trust for it (PEM); refused: not in this version")
    ] = None

    @field_validator("buckets", "tenant_prefixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _tenants_apart(self) -> Self:
        try:
            Grants(self.buckets, self.tenant_prefixes)
        except ConfigError as exc:
            raise ValueError(f"LOOKALIKE_TENANT_PREFIXES: {exc}") from exc
        return self

    @model_validator(mode="after")
    def _no_s3_yet(self) -> Self:
        _refuse(self, "s3_", "this version reads pictures from a folder only (LOOKALIKE_OBJECTS_DIR)")
        return self


class ModelSettings(Section):
    """Which network turns pictures into vectors."""

    model: Annotated[
        str, Field(min_length=1, description="`efficientnet_lite0` (weights installed) or `efficientnet_b0`")
    ] = "efficientnet_lite0"
    model_weights: Annotated[
        str | None,
        Field(
            description="a weights file instead of where the model looks, or `store://bucket/key` in the object "
            "store (then with LOOKALIKE_MODEL_WEIGHTS_SHA256)"
        ),
    ] = None
    model_weights_sha256: Annotated[
        str | None,
        Field(pattern=r"^[0-9a-f]{8,64}$", description="SHA-256 of that file, or at least 8 digits of its beginning"),
    ] = None
    model_engine: Annotated[
        Literal["torch", "openvino", "openvino-fp32", "torch-cuda", "auto"],
        Field(
            description="what runs the network; each has to pass the fidelity gate on its machine; `auto`: the "
            "quickest that does"
        ),
    ] = "torch"
    model_preprocessing: Annotated[
        Literal["full", "scaled", "scaled-turbo"],
        Field(description="from bytes to the network's input (docs/models.md); another one is another collection"),
    ] = "full"
    model_cache: Annotated[
        Path | None,
        Field(description="folder for exported networks, gate verdicts, fetched weights; default ~/.cache/lookalike"),
    ] = None

    @model_validator(mode="after")
    def _a_store_address_has_a_hash(self) -> Self:
        if self.model_weights is not None and self.model_weights.startswith(STORE_ADDRESS):
            bucket, _, key = self.model_weights.removeprefix(STORE_ADDRESS).partition("/")
            if not bucket or not key:
                raise ValueError(f"LOOKALIKE_MODEL_WEIGHTS={self.model_weights} is no {STORE_ADDRESS}bucket/key")
            if self.model_weights_sha256 is None:
                raise ValueError(
                    f"LOOKALIKE_MODEL_WEIGHTS={self.model_weights} needs LOOKALIKE_MODEL_WEIGHTS_SHA256: what comes "
                    "over a network is used only where its hash is known"
                )
        return self


class DecodeSettings(Section):
    """What a picture may cost, the same for the worker and for pictures sent to the API."""

    model_config = SettingsConfigDict(env_prefix=PREFIX + "DECODE_")

    children: Annotated[int, Field(ge=1, le=64, description="decoder processes; each may be killed alone")] = 2
    timeout_s: Annotated[
        float, Field(gt=0, le=600, description="seconds for one picture, then the child is killed")
    ] = 10.0
    max_image_bytes: Annotated[
        int, Field(ge=1024, le=1 << 30, description="a larger file is `image_too_large` before it is read")
    ] = 64 * 1024 * 1024
    max_pixels: Annotated[
        int, Field(ge=10_000, le=500_000_000, description="a larger picture is `image_too_large` before it is decoded")
    ] = 50_000_000


class WorkerSettings(Section):
    """How one worker process works."""

    model_config = SettingsConfigDict(env_prefix=PREFIX + "WORKER_")

    id: Annotated[
        str | None, Field(max_length=128, description="name in outcomes and dead letters; default `host-pid`")
    ] = None
    max_batch: Annotated[
        int | None, Field(ge=1, le=256, description="pictures per call of the network; 4 on a CPU, 64 on a GPU")
    ] = None
    max_in_flight: Annotated[int, Field(ge=1, le=65_536, description="events in hand at most")] = 1024
    retry_window_s: Annotated[
        float, Field(ge=0, le=60, description="how long a picture that fails for now is tried in place")
    ] = 5.0
    drain_s: Annotated[float, Field(ge=0, le=300, description="how long a stop waits for what is in hand")] = 12.0
    metrics_host: Annotated[str, Field(description="address of the worker's own `/metrics`")] = "127.0.0.1"
    metrics_port: Annotated[
        int | None, Field(ge=0, le=65_535, description="its port, 0 for a free one; without it there is none")
    ] = None


def _refuse(section: Section, start: str, why: str) -> None:
    """A setting of an adapter that is not there yet is an error: ignoring it would write somewhere else."""
    for name in type(section).model_fields:
        if name.startswith(start) and getattr(section, name) is not None:
            raise ValueError(f"{variable_of(type(section), name)} is set, but {why}: unset it")
