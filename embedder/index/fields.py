"""Which fields of a picture a range can be asked of: the built-in ones, and up to 16 declared in settings.

A declared field names an attribute of the events and says how its values are meant. An attribute of
another type is kept and shown as it came, and is never within any range. Every other string or bool
attribute is filtered without being declared, as ``name=value`` (:func:`pairs`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from streams.errors import ConfigError
from streams.event import ATTRIBUTE_NAME_PATTERN, MAX_INTEGER, Attribute

MAX_FIELDS = 16
"""Declared fields of a collection: each costs an index over every point, searched or not."""
_NAME = re.compile(ATTRIBUTE_NAME_PATTERN)


class Kind(StrEnum):
    """How the values of a field are meant; a range of times is given in microseconds since 1970."""

    NUMBER = "number"
    TIME = "time"


@dataclass(frozen=True, slots=True, order=True)
class Field:
    """An attribute that ranges can be asked of."""

    name: str
    kind: Kind


BUILT_IN: Mapping[str, Kind] = {
    "width_px": Kind.NUMBER,
    "height_px": Kind.NUMBER,
    "created_at": Kind.TIME,
    "indexed_at": Kind.TIME,
}
"""What every picture has without an attribute; their names cannot be declared."""


def parse_fields(declared: Iterable[str]) -> tuple[Field, ...]:
    """The fields that ``NAME:number`` and ``NAME:time`` declare, in one order however they were given.

    Raises:
        ConfigError: not of that form, a name twice or taken, or more than 16.
    """
    fields = tuple(sorted(_parse(text) for text in declared))
    check_fields(fields)
    return fields


def is_name(text: str) -> bool:
    """Whether an attribute can be called so."""
    return _NAME.match(text) is not None


def check_fields(fields: Sequence[Field]) -> None:
    """ConfigError for fields that no collection may have."""
    names = [field.name for field in fields]
    if len(names) > MAX_FIELDS:
        raise ConfigError(f"{len(names)} fields are declared, at most {MAX_FIELDS} can be")
    for name in names:
        if not is_name(name) or name in BUILT_IN or name == "tags":
            raise ConfigError(f"a field cannot be called {name!r}: choose the name of an attribute of the events")
        if names.count(name) > 1:
            raise ConfigError(f"field {name!r} is declared twice")


def _parse(text: str) -> Field:
    name, _, kind = text.partition(":")
    if kind not in set(Kind):
        raise ConfigError(f"{text!r} declares no field: write NAME:number or NAME:time")
    return Field(name, Kind(kind))


def kinds(fields: Sequence[Field]) -> dict[str, Kind]:
    """Every field that a range can be asked of, built-in ones included."""
    return {**BUILT_IN, **{field.name: field.kind for field in fields}}


def declared_values(attributes: Mapping[str, Attribute], fields: Sequence[Field]) -> dict[str, int | float]:
    """The numbers that ranges are compared with; fields without a value of their kind are left out."""
    values = {field.name: _value(attributes.get(field.name), field.kind) for field in fields}
    return {name: value for name, value in values.items() if value is not None}


def _value(attribute: Attribute | None, kind: Kind) -> int | float | None:
    if kind is Kind.TIME:
        return time_us(attribute) if isinstance(attribute, str) else None
    if isinstance(attribute, bool) or not isinstance(attribute, int | float) or not math.isfinite(attribute):
        return None
    return attribute


def time_us(text: str) -> int | None:
    """RFC 3339 as microseconds since 1970, UTC where it names no zone; None where it is no time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds  # timestamp() is a float: it rounds
    return us if abs(us) <= MAX_INTEGER else None


def pair(name: str, value: str | bool) -> str:
    """An attribute as the one keyword that filters ask for; names hold no ``=``, so it is not ambiguous."""
    return f"{name}={str(value).lower() if isinstance(value, bool) else value}"


def pairs(attributes: Mapping[str, Attribute]) -> list[str]:
    """String and bool attributes as ``name=value``: one keyword field filters any number of names."""
    return [pair(name, value) for name, value in sorted(attributes.items()) if isinstance(value, str | bool)]
