"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from streams.event import IMAGE_ID_PATTERN, TENANT_ID_PATTERN

_F = TypeVar("_F", bound=Callable[..., Any])


class _Id(click.ParamType):
    """An id that would be refused in an event is a usage error here."""

    def __init__(self, name: str, pattern: str) -> None:
        self.name = name
        self._pattern = re.compile(pattern)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if self._pattern.match(value) is None:
            self.fail(f"{value!r} is no {self.name}: it must match {self._pattern.pattern}", param, ctx)
        return value


TENANT_ID = _Id("tenant id", TENANT_ID_PATTERN)
IMAGE_ID = _Id("image id", IMAGE_ID_PATTERN)


def tenant_option(command: _F) -> _F:
    """``--tenant``, always required."""
    return click.option("--tenant", "tenant_id", type=TENANT_ID, required=True, help="Whose pictures.")(command)


def data_option(command: _F) -> _F:
    """``--data``: where a running `up` is found."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help="Data folder of the running `up`; default LOOKALIKE_DATA, else ./lookalike-data.",
    )(command)


def json_option(command: _F) -> _F:
    """``--json``: the result as one object, on the last line of stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object, on one line.")(
        command
    )
