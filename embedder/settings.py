"""Settings of the embedder's rooms: the index, the object store, the model, decoding, the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from embedder.index.fields import Field as DeclaredField
from embedder.index.fields import parse_fields
from embedder.objects.grants import Grants
from embedder.objects.places import Places
from streams.errors import ConfigError
from streams.notifications.keys import DEFAULT_TEMPLATE, KeyTemplate
from streams.settings import PREFIX, Section, variable_of

STORE_ADDRESS = "store://"


class IndexSettings(Section):
    """Where the index answers."""

    index_socket: Annotated[
        Path | None,
        Field(description="unix socket of `lookalike index serve`; without it the running `up` of the data folder"),
    ] = None
    index_metrics_host: Annotated[str, Field(description="address of the index process's own `/metrics`")] = "127.0.0.1"
    index_metrics_port: Annotated[
        int | None, Field(ge=0, le=65_535, description="its port, 0 for a free one; without it there is none")
    ] = None
    qdrant_url: Annotated[
        str | None, Field(description="a Qdrant server instead (its REST port): `https://qdrant.example:6333`")
    ] = None
    qdrant_grpc_port: Annotated[int, Field(ge=1, le=65_535, description="its gRPC port, which carries the points")] = (
        6334
    )
    qdrant_api_key: Annotated[SecretStr | None, Field(description="its key")] = None
    qdrant_ca_file: Annotated[FilePath | None, Field(description="certificates to trust for it (PEM)")] = None
    qdrant_alias: Annotated[
        str, Field(pattern=r"^[a-z0-9_-]{1,64}$", description="the alias there that means the current collection")
    ] = "lookalike"
    declared_fields: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(
            description="comma-separated `NAME:number` and `NAME:time`: attributes that ranges can be asked of, at "
            "most 16; a collection is made with them, others need `lookalike index migrate`"
        ),
    ] = ()

    @field_validator("declared_fields", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        try:
            self.fields()
        except ConfigError as exc:
            raise ValueError(f"LOOKALIKE_DECLARED_FIELDS: {exc}") from exc
        if self.qdrant_url is not None and self.index_socket is not None:
            raise ValueError("LOOKALIKE_QDRANT_URL and LOOKALIKE_INDEX_SOCKET are both set: one index is enough")
        return self

    def fields(self) -> tuple[DeclaredField, ...]:
        """The attributes that ranges can be asked of."""
        return parse_fields(self.declared_fields)


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
    thumbnail_bucket: Annotated[
        str, Field(min_length=1, description="where the API keeps thumbnails; none of the buckets of pictures")
    ] = "thumbnails"
    tenant_prefixes: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(
            description="comma-separated prefixes of keys a tenant may read, in every bucket; "
            "`{tenant_id}` stands for the tenant and must be followed by `/`"
        ),
    ] = ("{tenant_id}/",)
    s3_endpoint: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^/?#@\s]+/?$",
            description="`http[s]://host[:port]` of an S3 store, in place of a folder; with https its certificate "
            "is checked",
        ),
    ] = None
    s3_region: Annotated[str, Field(min_length=1, description="the region that requests are signed for")] = "us-east-1"
    s3_path_style: Annotated[
        bool, Field(description="`true`: `https://host/bucket/key`; `false`: `https://bucket.host/key`")
    ] = True
    s3_access_key: Annotated[SecretStr | None, Field(description="without keys, requests are anonymous")] = None
    s3_secret_key: Annotated[SecretStr | None, Field(description="of the access key")] = None
    s3_session_token: Annotated[SecretStr | None, Field(description="of temporary keys; read once, at start")] = None
    s3_ca_file: Annotated[FilePath | None, Field(description="certificates to trust (PEM) instead of the system's")] = (
        None
    )

    @field_validator("buckets", "tenant_prefixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split(value)

    @model_validator(mode="after")
    def _tenants_apart(self) -> Self:
        try:
            Grants(self.buckets, self.tenant_prefixes)
        except ConfigError as exc:
            raise ValueError(f"LOOKALIKE_TENANT_PREFIXES: {exc}") from exc
        if self.thumbnail_bucket in self.buckets:
            raise ValueError(f"LOOKALIKE_THUMBNAIL_BUCKET={self.thumbnail_bucket}: pictures lie there, choose another")
        return self

    @property
    def all_buckets(self) -> tuple[str, ...]:
        """Every bucket that must be there: those of pictures, and the thumbnails'."""
        return (*self.buckets, self.thumbnail_bucket)

    def places(self) -> Places:
        """Where uploads and thumbnails lie."""
        return Places(self.buckets[0], self.thumbnail_bucket, self.tenant_prefixes[0])

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if self.s3_endpoint is None:
            given = [name for name in type(self).model_fields if name.startswith("s3_") and name in self._given()]
            if given:
                raise ValueError(f"{variable_of(type(self), given[0])} has no effect: set LOOKALIKE_S3_ENDPOINT")
            return self
        if self.objects_dir is not None:
            raise ValueError("LOOKALIKE_OBJECTS_DIR and LOOKALIKE_S3_ENDPOINT are both set: keep one")
        if (self.s3_access_key is None) != (self.s3_secret_key is None):
            raise ValueError("LOOKALIKE_S3_ACCESS_KEY and LOOKALIKE_S3_SECRET_KEY need each other")
        if self.s3_session_token is not None and self.s3_access_key is None:
            raise ValueError("LOOKALIKE_S3_SESSION_TOKEN needs LOOKALIKE_S3_ACCESS_KEY and LOOKALIKE_S3_SECRET_KEY")
        if self.s3_ca_file is not None and not self.s3_endpoint.startswith("https://"):
            raise ValueError("LOOKALIKE_S3_CA_FILE has no effect: LOOKALIKE_S3_ENDPOINT is not https")
        return self

    def _given(self) -> set[str]:
        return {name for name in self.model_fields_set if getattr(self, name) is not None}


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
        int | None,
        Field(
            ge=1,
            le=256,
            description="pictures per call of the network at most, and no more than 50 ms have room for; unset: the "
            "engine's own, 1 or 2 on a CPU, 64 on a GPU",
        ),
    ] = None
    max_in_flight: Annotated[int, Field(ge=1, le=65_536, description="events in hand at most")] = 1024
    max_in_flight_bytes: Annotated[
        int, Field(ge=1 << 20, le=1 << 34, description="bytes of the records in hand at most; pictures do not count")
    ] = 64 * 1024 * 1024
    tenant_live_share: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="of what is in hand, the part one tenant may hold of live while live waits; what is above it "
            "is moved to bulk; 1: nothing is ever moved",
        ),
    ] = 0.5
    shunt_after_s: Annotated[
        float, Field(ge=0, le=600, description="how long a tenant must be above that share before it is moved")
    ] = 0.25
    dead_letter_limit: Annotated[
        int,
        Field(
            ge=0,
            le=100_000,
            description="failures within a minute (internal errors, or spread over tenants) at which nothing more is "
            "dead-lettered until something succeeds again; 0: no limit",
        ),
    ] = 50
    watchdog_s: Annotated[
        float, Field(ge=1, le=3600, description="an event in flight for so long ends the process with 70")
    ] = 120.0
    retry_window_s: Annotated[
        float, Field(ge=0, le=60, description="how long a picture that fails for now is tried in place")
    ] = 5.0
    drain_s: Annotated[float, Field(ge=0, le=300, description="how long a stop waits for what is in hand")] = 12.0
    metrics_host: Annotated[str, Field(description="address of the worker's own `/metrics`")] = "127.0.0.1"
    metrics_port: Annotated[
        int | None, Field(ge=0, le=65_535, description="its port, 0 for a free one; without it there is none")
    ] = None


class NormalizeSettings(Section):
    """How bucket notifications become events."""

    model_config = SettingsConfigDict(env_prefix=PREFIX + "NORMALIZE_")

    key_template: Annotated[
        str,
        Field(
            description="where tenant and image stand in a key; keys of another form are not announced. Without "
            "`.{ext}` the extension is part of the image's id"
        ),
    ] = DEFAULT_TEMPLATE
    skip_prefixes: Annotated[
        tuple[str, ...], NoDecode, Field(description="comma-separated prefixes of keys that are not announced")
    ] = ()
    group_id: Annotated[str, Field(min_length=1, description="consumer group of the normalizers")] = (
        "lookalike-normalizer"
    )
    id: Annotated[str | None, Field(max_length=128, description="name in dead letters; default `host-pid`")] = None
    head_threads: Annotated[int, Field(ge=1, le=256, description="HEAD requests at the same time")] = 8
    max_in_flight: Annotated[int, Field(ge=1, le=65_536, description="notifications in hand at most")] = 1024
    look_again_s: Annotated[
        float,
        Field(
            ge=0, le=60, description="how long an announced object that is not there is looked for, then it is deleted"
        ),
    ] = 1.0
    retry_window_s: Annotated[
        float,
        Field(ge=0, le=60, description="how long an object that cannot be asked about is tried, then dead letter"),
    ] = 5.0
    drain_s: Annotated[float, Field(ge=0, le=300, description="how long a stop waits for what is in hand")] = 12.0
    metrics_host: Annotated[str, Field(description="address of its own `/metrics`")] = "127.0.0.1"
    metrics_port: Annotated[
        int | None, Field(ge=0, le=65_535, description="its port, 0 for a free one; without it there is none")
    ] = None

    @field_validator("skip_prefixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return split(value)

    @field_validator("key_template")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            KeyTemplate(value)
        except ConfigError as exc:
            raise ValueError(str(exc)) from exc
        return value


def split(value: object) -> object:
    """A comma-separated list; spaces around the commas and empty parts do not count."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _refuse(section: Section, start: str, why: str) -> None:
    """A setting of an adapter that is not there yet is an error: ignoring it would write somewhere else."""
    for name in type(section).model_fields:
        if name.startswith(start) and getattr(section, name) is not None:
            raise ValueError(f"{variable_of(type(section), name)} is set, but {why}: unset it")
