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
