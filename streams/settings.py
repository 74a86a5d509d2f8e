"""How settings are read, and those of the event log.

A section is one frozen class; each room has its own, the composition roots read them all
(`lookalike.settings`). Every value comes from an environment variable; a secret also from a file,
named by the same variable with ``_FILE`` behind it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from streams.consume.retry import DEFAULT_DELAYS_S, RetrySteps
from streams.errors import ConfigError
from streams.topics import TopicNames, TopicSpec, specs

PREFIX = "LOOKALIKE_"
FILE_SUFFIX = "_FILE"
DEFAULT_PARTITIONS = 64
"""Of each lane: a partition is worked on by one worker, and later growth would move keys."""
MAX_DELAY_S = 86_400.0
"""A record must come back long before its topic's retention (7 days) ends."""


class Section(BaseSettings):
    """The settings of one concern. Empty variables count as not set. Built by :func:`load` only."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a secret must not reach a traceback
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls)


class _SecretFiles(PydanticBaseSettingsSource):
    """A secret's value from the file that ``<its variable>_FILE`` names, as container platforms mount them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = variable_of(self.settings_cls, field_name)
        path = os.environ.get(variable + FILE_SUFFIX)
        if not path or not is_secret(field):
            return None, field_name, False
        if os.environ.get(variable):
            raise ConfigError(f"{variable} and {variable}{FILE_SUFFIX} are both set: keep one")
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{variable}{FILE_SUFFIX}={path} cannot be read: {exc}") from exc

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


_S = TypeVar("_S", bound=Section)


def load(section: type[_S], **given: Any) -> _S:
    """Read a section from the environment; what is `given` by name wins over it.

    Raises:
        ConfigError: a value is wrong; the one line names the variable.
    """
    try:
        return section(**given)
    except ValidationError as exc:
        raise ConfigError("; ".join(_complaint(section, error) for error in exc.errors())) from exc


def _complaint(section: type[Section], error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:  # a check over several variables names them itself
        return message
    name = str(error["loc"][0])
    shown = "" if is_secret(section.model_fields[name]) else f"={error['input']}"
    return f"{variable_of(section, name)}{shown}: {message[:1].lower()}{message[1:]}"


def variable_of(section: type[BaseSettings], name: str) -> str:
    """The environment variable of a field."""
    return f"{section.model_config.get('env_prefix', '')}{name}".upper()


def is_secret(field: FieldInfo) -> bool:
    """Whether a value must never be shown, and may come from a file."""
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


class KafkaSettings(Section):
    """Where the event log is, and how to be let in."""

    model_config = SettingsConfigDict(env_prefix=PREFIX + "KAFKA_")

    bootstrap: Annotated[
        str | None,
        Field(description="`host:port[,host:port…]` of the cluster; without it the running `up` of the data folder"),
    ] = None
    group_id: Annotated[
        str, Field(min_length=1, description="consumer group of the workers; one group feeds one collection")
    ] = "lookalike-embedder"
    group_protocol: Annotated[
        Literal["auto", "consumer", "classic"],
        Field(description="`auto` asks the broker; `consumer` (KIP-848): Kafka ≥ 4.0; `classic`: cooperative-sticky"),
    ] = "auto"
    topic_prefix: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9._-]{0,100}$", description="put before every topic name: several installations"),
    ] = ""
    partitions: Annotated[
        int | None, Field(ge=1, le=10_000, description="of each lane; 64, or 8 on the broker of `up`")
    ] = None
    replication: Annotated[int, Field(ge=1, le=10, description="replicas of each topic; 3 on a real cluster")] = 1
    allow_single_broker: Annotated[
        bool, Field(description="work on topics with fewer than 3 replicas: one lost disk then loses events")
    ] = False
    retry_delays_s: Annotated[
        tuple[float, ...],
        NoDecode,
        Field(
            description="comma-separated seconds that a record waits in `images.retry.30s`, `.5m` and `.30m`, rising; "
            "`off`: no retry topics"
        ),
    ] = DEFAULT_DELAYS_S
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], Field(description="how the brokers are spoken to")
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, Field(description="needed with SASL_…")
    ] = None
    sasl_username: Annotated[str | None, Field(description="needed with SASL_…")] = None
    sasl_password: Annotated[SecretStr | None, Field(description="needed with SASL_…")] = None
    ssl_ca_file: Annotated[
        FilePath | None, Field(description="certificates to trust (PEM) instead of the system's")
    ] = None
    ssl_certificate_file: Annotated[FilePath | None, Field(description="client certificate (PEM)")] = None
    ssl_key_file: Annotated[FilePath | None, Field(description="its key (PEM)")] = None
    ssl_key_password: Annotated[SecretStr | None, Field(description="of the key, where it has one")] = None

    @field_validator("retry_delays_s", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if value == "off":
            return ()
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("retry_delays_s")
    @classmethod
    def _rising(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (0, len(DEFAULT_DELAYS_S)) or list(value) != sorted(value):
            raise ValueError("three rising numbers, or none")
        if not all(0 < delay_s <= MAX_DELAY_S for delay_s in value):
            raise ValueError(f"each must be above 0 and at most {MAX_DELAY_S:g}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sasl = {
            "LOOKALIKE_KAFKA_SASL_MECHANISM": self.sasl_mechanism,
            "LOOKALIKE_KAFKA_SASL_USERNAME": self.sasl_username,
            "LOOKALIKE_KAFKA_SASL_PASSWORD": self.sasl_password,
        }
        wanted = self.security_protocol.startswith("SASL_")
        for variable, value in sasl.items():
            if wanted and value is None:
                raise ValueError(f"LOOKALIKE_KAFKA_SECURITY_PROTOCOL={self.security_protocol} needs {variable}")
            if not wanted and value is not None:
                raise ValueError(f"{variable} has no effect: set LOOKALIKE_KAFKA_SECURITY_PROTOCOL=SASL_SSL")
        self._check_tls()
        return self

    def _check_tls(self) -> None:
        files = {
            "LOOKALIKE_KAFKA_SSL_CA_FILE": self.ssl_ca_file,
            "LOOKALIKE_KAFKA_SSL_CERTIFICATE_FILE": self.ssl_certificate_file,
            "LOOKALIKE_KAFKA_SSL_KEY_FILE": self.ssl_key_file,
        }
        given = [variable for variable, path in files.items() if path is not None]
        if given and not self.security_protocol.endswith("SSL"):
            raise ValueError(f"{given[0]} has no effect: set LOOKALIKE_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL")
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            raise ValueError("LOOKALIKE_KAFKA_SSL_CERTIFICATE_FILE and LOOKALIKE_KAFKA_SSL_KEY_FILE need each other")

    def client_config(self) -> dict[str, str | int]:
        """librdkafka's configuration to reach the cluster and be let in; nothing about what is done there.

        Raises:
            ConfigError: no `bootstrap`.
        """
        if self.bootstrap is None:
            raise ConfigError("LOOKALIKE_KAFKA_BOOTSTRAP is not set: host:port of the Kafka cluster")
        found: dict[str, str | Path | SecretStr | None] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password,
            "ssl.ca.location": self.ssl_ca_file,
            "ssl.certificate.location": self.ssl_certificate_file,
            "ssl.key.location": self.ssl_key_file,
            "ssl.key.password": self.ssl_key_password,
        }
        return {name: _plain(value) for name, value in found.items() if value is not None}

    def retry_steps(self) -> RetrySteps:
        """How long each retry lane makes a record wait."""
        return RetrySteps.of(self.retry_delays_s)

    def topic_names(self) -> TopicNames:
        """The names of the topics on this cluster."""
        return TopicNames(self.topic_prefix)

    def topic_specs(self, *, partitions: int | None = None) -> list[TopicSpec]:
        """The topics as they must be on this cluster; `partitions` is used where no setting says how many."""
        n_partitions = self.partitions or partitions or DEFAULT_PARTITIONS
        return specs(self.topic_names(), partitions=n_partitions, replication=self.replication)


def _plain(value: str | Path | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
