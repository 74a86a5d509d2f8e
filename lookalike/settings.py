"""All settings of all processes: one catalogue, so that a misspelt variable is an error and not a default."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsConfigDict

from embedder.settings import (
    DecodeSettings,
    IndexSettings,
    ModelSettings,
    NormalizeSettings,
    ObjectSettings,
    WorkerSettings,
)
from query_api.settings import ApiSettings
from streams.errors import ConfigError
from streams.settings import FILE_SUFFIX, PREFIX, KafkaSettings, Section, is_secret, load, variable_of


class ProcessSettings(Section):
    """What every process has."""

    data: Annotated[Path, Field(description="folder in which `up` keeps everything, and where it is found")] = Path(
        "lookalike-data"
    )
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], Field(description="the least that is logged")
    ] = "info"


class PulseSettings(Section):
    """How often `lookalike pulse` looks, and how many tenants it tells apart."""

    model_config = SettingsConfigDict(env_prefix=PREFIX + "PULSE_")

    every_s: Annotated[float, Field(gt=0, le=300, description="seconds between two looks at lag and index")] = 15.0
    recall_every_s: Annotated[float, Field(gt=0, le=86_400, description="seconds between two samples of recall")] = 60.0
    top_tenants: Annotated[int, Field(ge=1, le=100, description="that have rows of their own; all others are one")] = 10
    metrics_host: Annotated[str, Field(description="address of its `/metrics` and `/pulse`")] = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535, description="its port; 0 for a free one")] = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """Every section, read once by a composition root."""

    process: ProcessSettings
    kafka: KafkaSettings
    index: IndexSettings
    objects: ObjectSettings
    model: ModelSettings
    decode: DecodeSettings
    worker: WorkerSettings
    normalize: NormalizeSettings
    api: ApiSettings
    pulse: PulseSettings


CATALOGUE: tuple[type[Section], ...] = (
    ProcessSettings,
    KafkaSettings,
    IndexSettings,
    ObjectSettings,
    ModelSettings,
    DecodeSettings,
    WorkerSettings,
    NormalizeSettings,
    ApiSettings,
    PulseSettings,
)


def read_settings() -> Settings:
    """Everything from the environment.

    Raises:
        ConfigError: a variable nobody knows, or a wrong value; one line naming the variable.
    """
    refuse_unknown(os.environ)
    return Settings(
        process=load(ProcessSettings),
        kafka=load(KafkaSettings),
        index=load(IndexSettings),
        objects=load(ObjectSettings),
        model=load(ModelSettings),
        decode=load(DecodeSettings),
        worker=load(WorkerSettings),
        normalize=load(NormalizeSettings),
        api=load(ApiSettings),
        pulse=load(PulseSettings),
    )


def fields() -> Iterator[tuple[type[Section], str, FieldInfo]]:
    """Every setting: its section, its environment variable, its field."""
    for section in CATALOGUE:
        for name, field in section.model_fields.items():
            yield section, variable_of(section, name), field


def known_variables() -> frozenset[str]:
    """Every variable that means something, the files of secrets included."""
    found = {variable for _, variable, _ in fields()}
    return frozenset(found | {variable + FILE_SUFFIX for _, variable, field in fields() if is_secret(field)})


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """One line per variable with our prefix that no process knows."""
    known = known_variables()
    return [_unknown(name, known) for name in sorted(environment) if name.startswith(PREFIX) and name not in known]


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """A variable that nobody reads is a setting that somebody believes in: ConfigError."""
    unknown = unknown_variables(environment)
    if unknown:
        raise ConfigError("; ".join(unknown))


def _unknown(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
    return f"{name} is not a setting; the nearest is {nearest[0]} (all of them: docs/settings.md)"
