"""The JSON language of filters, read into the index's tree. Whatever is wrong is named by its path.

    {"tags": ["red", "blue"]}                                at least one of these tags
    {"attribute": "colour", "in": ["red", true]}             a string or bool is one of these
    {"range": "price", "gte": 10, "lt": 20}                  a declared number, or width_px, height_px
    {"range": "created_at", "gte": "2026-01-01T00:00:00Z"}   a declared time, or created_at, indexed_at
    {"all": […]}   {"any": […]}   {"not": {…}}

Each condition is one object with exactly one of these words. Depth and size are those of the index
(`MAX_DEPTH`, `MAX_SIZE`); an empty condition is refused: it would mean everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from embedder.index.fields import Field, Kind, kinds, time_us
from embedder.index.filters import MAX_DEPTH, MAX_SIZE, AllOf, AnyOf, Filter, HasTag, Is, Not, Within, size
from query_api.bodies import decode_json
from streams.errors import QueryError
from streams.event import ATTRIBUTE_NAME_PATTERN, MAX_INTEGER, MAX_TEXT

_name = re.compile(ATTRIBUTE_NAME_PATTERN)
_BOUNDS = ("gte", "gt", "lte", "lt")
_WORDS: Mapping[str, frozenset[str]] = {
    "tags": frozenset(),
    "attribute": frozenset({"in"}),
    "range": frozenset(_BOUNDS),
    "all": frozenset(),
    "any": frozenset(),
    "not": frozenset(),
}
"""The word that says what a condition is, and what may stand beside it."""


def read_filter(given: Any, fields: Sequence[Field], *, at: str = "filter") -> Filter | None:
    """The filter, None where nothing (or null) is given. `fields` are those that the collection declares.

    Raises:
        QueryError: 400 `invalid_filter`, `unknown_field`, `filter_too_large`; `field` is the path of what is wrong.
    """
    if given is None:
        return None
    condition = _Reader(kinds(fields)).read(given, at, 1)
    if size(condition) > MAX_SIZE:
        raise _too_large(at)
    return condition


def read_filter_text(text: str | None, fields: Sequence[Field]) -> Filter | None:
    """As :func:`read_filter`, from the JSON of a query parameter."""
    return None if text is None else read_filter(decode_json(text.encode(), object, within="filter"), fields)


class _Reader:
    def __init__(self, known: Mapping[str, Kind]) -> None:
        self._known = known

    def read(self, given: Any, at: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise _too_large(at)
        if not isinstance(given, dict):
            raise _invalid(at, "a condition is an object")
        words = [word for word in given if word in _WORDS]
        if len(words) != 1:
            raise _invalid(at, f"a condition has exactly one of {', '.join(_WORDS)}")
        word = words[0]
        for other in given:
            if other != word and other not in _WORDS[word]:
                raise _invalid(f"{at}.{other[:80]}", f"{other[:80]!r} has no place beside {word!r}")
        match word:
            case "tags":
                return HasTag(_texts(given[word], f"{at}.tags"))
            case "attribute":
                return self._attribute(given, at)
            case "range":
                return self._range(given, at)
            case "not":
                return Not(self.read(given[word], f"{at}.not", depth + 1))
            case _:
                parts = self._parts(given[word], f"{at}.{word}", depth + 1)
                return AllOf(parts) if word == "all" else AnyOf(parts)

    def _parts(self, given: Any, at: str, depth: int) -> tuple[Filter, ...]:
        return tuple(self.read(one, f"{at}.{i}", depth) for i, one in enumerate(_list(given, at)))

    def _attribute(self, given: Mapping[str, Any], at: str) -> Filter:
        name = given["attribute"]
        if not isinstance(name, str) or _name.match(name) is None or name == "tags":
            raise _unknown(f"{at}.attribute", f"{str(name)[:80]!r} is no name of an attribute")
        if name in self._known:
            raise _invalid(f"{at}.attribute", f"{name!r} is a {self._known[name]}: ask for a range of it")
        values = _list(given.get("in"), f"{at}.in")
        for i, value in enumerate(values):
            if not isinstance(value, str | bool) or (isinstance(value, str) and len(value) > MAX_TEXT):
                raise _invalid(f"{at}.in.{i}", "a value is a string or a bool; numbers and times have ranges")
        return Is(name, tuple(values))

    def _range(self, given: Mapping[str, Any], at: str) -> Filter:
        name = given["range"]
        if not isinstance(name, str) or name not in self._known:
            known = ", ".join(sorted(self._known))
            raise _unknown(f"{at}.range", f"{str(name)[:80]!r} has no ranges: declared are {known}")
        bounds = {
            word: self._bound(given[word], self._known[name], f"{at}.{word}") for word in _BOUNDS if word in given
        }
        try:
            return Within(name, **bounds)
        except ValueError as exc:
            raise _invalid(at, str(exc)) from exc

    def _bound(self, value: Any, kind: Kind, at: str) -> int | float:
        if kind is Kind.TIME:
            at_us = time_us(value) if isinstance(value, str) and len(value) <= 64 else None
            if at_us is None:
                raise _invalid(at, "a bound of a time is a time of RFC 3339: 2026-01-31T12:00:00Z")
            return at_us
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_INTEGER:
            raise _invalid(at, f"a bound of a number is a number up to {MAX_INTEGER}")
        return value


def _list(given: Any, at: str) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise _invalid(at, "this is a list that is not empty")
    if len(given) > MAX_SIZE:
        raise _too_large(at)
    return given


def _texts(given: Any, at: str) -> tuple[str, ...]:
    values = _list(given, at)
    for i, value in enumerate(values):
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
            raise _invalid(f"{at}.{i}", f"a tag is a string of 1 to {MAX_TEXT} characters")
    return tuple(values)


def _invalid(at: str, message: str) -> QueryError:
    return QueryError(400, "invalid_filter", message, field=at[:200])


def _unknown(at: str, message: str) -> QueryError:
    return QueryError(400, "unknown_field", message, field=at[:200])


def _too_large(at: str) -> QueryError:
    message = f"a filter may be {MAX_DEPTH} deep and hold {MAX_SIZE} conditions and values"
    return QueryError(400, "filter_too_large", message, field=at[:200])
