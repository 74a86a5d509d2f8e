"""What a filter may be, before any index sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embedder.index.fields import Field, Kind, declared_values, parse_fields, time_us
from embedder.index.filters import AllOf, AnyOf, Filter, HasTag, Is, Not, Within, depth, size, whole
from streams.errors import ConfigError

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "build",
    [
        lambda: HasTag(()),
        lambda: Is("a", ()),
        lambda: Is("", ("x",)),
        lambda: Is("a=b", ("x",)),
        lambda: Within("price"),
        lambda: Within("price", gte=NAN),
        lambda: Within("price", lt=INFINITY),
        lambda: Within("price", lt=2**53),
        lambda: Within("price", lt=10**400),
        lambda: Within("price", gte=1, gt=1),
        lambda: Within("price", lte=1, lt=1),
        lambda: AllOf(()),
        lambda: AnyOf(()),
    ],
)
def test_a_condition_that_says_nothing_cannot_be_built(build: Callable[[], Filter]) -> None:
    """What has no values, no bounds, no parts or no name is refused where it is made."""
    with pytest.raises(ValueError, match=r"empty|name|number|bounds"):
        build()


def test_depth_and_size_count_what_is_nested() -> None:
    """A single condition is 1 deep; conditions and their values are counted together."""
    one: Filter = HasTag(("a", "b"))
    assert (depth(one), size(one)) == (1, 3)
    nested = AllOf((one, Not(AnyOf((Is("x", (True,)), Within("price", gte=1))))))
    assert (depth(nested), size(nested)) == (4, 1 + 3 + 1 + 1 + 2 + 1)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (Within("n", gt=2.5, lt=2.5), Within("n", gt=2, lt=3)),
        (Within("n", gte=2.5, lte=2.5), Within("n", gte=3, lte=2)),
        (Within("n", gte=-2.5, lte=-2.5), Within("n", gte=-2, lte=-3)),
        (Within("n", gt=2, lte=3), Within("n", gt=2, lte=3)),
    ],
)
def test_a_range_of_whole_numbers_has_whole_bounds(given: Within, same: Within) -> None:
    """The same whole numbers lie in both."""
    assert whole(given) == same


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01", 0),
        ("2024-05-01T12:00:00.123456+02:00", 1_714_557_600_123_456),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("9999-12-31T23:59:59Z", None),
        ("never", None),
        ("", None),
    ],
)
def test_a_time_is_whole_microseconds(text: str, us: int | None) -> None:
    """RFC 3339 with or without a zone, exactly; what a float64 cannot hold is no time."""
    assert time_us(text) == us


def test_only_values_of_the_declared_kind_are_compared() -> None:
    """Text is no number, a bool is none either, and a time must be one."""
    fields = (Field("price", Kind.NUMBER), Field("taken_at", Kind.TIME))
    assert declared_values({"price": 3, "taken_at": "1970-01-01"}, fields) == {"price": 3, "taken_at": 0}
    for attributes in ({"price": "3"}, {"price": True}, {"taken_at": 3}, {"taken_at": "soon"}, {"other": 3}, {}):
        assert declared_values(attributes, fields) == {}


def test_declared_fields_are_read_in_one_order() -> None:
    """However they are listed, the same fields are the same collection."""
    assert parse_fields(["b:time", "a:number"]) == parse_fields(["a:number", "b:time"])
    assert parse_fields([]) == ()


@pytest.mark.parametrize(
    "declared",
    [
        ["price"],
        ["price:text"],
        ["9:number"],
        ["a=b:number"],
        ["tags:number"],
        ["width_px:number"],
        ["a:time"] * 2,
        [f"f{n}:number" for n in range(17)],
    ],
)
def test_a_wrong_declaration_stops_the_start(declared: list[str]) -> None:
    """A kind that is none, a name that is taken, twice or no attribute's, and a seventeenth field."""
    with pytest.raises(ConfigError):
        parse_fields(declared)
