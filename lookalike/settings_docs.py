"""Write docs/settings.md from the catalogue: ``python -m lookalike.settings_docs``. A test holds the file to it."""

from __future__ import annotations

import sys
import types
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from lookalike.settings import CATALOGUE
from streams.settings import is_secret, variable_of

HEAD = """# Settings

Every process reads environment variables with the prefix `LOOKALIKE_`, once, at start. A variable with that prefix
which stands in no table below is an error (exit 3), and so is a wrong value; an empty one counts as not set.
A *secret* is never shown, and may come from a file instead: `LOOKALIKE_…_FILE=/run/secrets/name`.
`lookalike doctor` says what is wrong with the settings in force.

This page is generated: `make docs`.
"""

_WORDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "Path": "path",
    "SecretStr": "secret",
    "bool": "`true` / `false`",
}


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for section in CATALOGUE:
        title = section.__name__.removesuffix("Settings")
        parts.append(f"\n## {title}\n{(section.__doc__ or '').strip()}\n")
        parts.append("| variable | value | default | meaning |\n|---|---|---|---|")
        for name, field in section.model_fields.items():
            cells = (f"`{variable_of(section, name)}`", _kind(field), _default(field), field.description or "")
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(parts) + "\n"


def _kind(field: FieldInfo) -> str:
    if is_secret(field):
        return "secret, or `…_FILE`"
    words = _type_words(field.annotation)
    bounds = [m for m in field.metadata if isinstance(m, Ge | Gt | Le)]
    low = next((f"{'≥' if isinstance(b, Ge) else '>'} {_low(b)}" for b in bounds if not isinstance(b, Le)), "")
    high = next((f"≤ {b.le}" for b in bounds if isinstance(b, Le)), "")
    return ", ".join(part for part in (words, low, high) if part)


def _low(bound: Ge | Gt) -> object:
    return bound.ge if isinstance(bound, Ge) else bound.gt


def _type_words(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _type_words(next(arg for arg in get_args(annotation) if arg is not type(None)))
    if origin is Literal:
        return " / ".join(f"`{value}`" for value in get_args(annotation))
    if origin is tuple:
        return "list"
    return _WORDS.get(getattr(annotation, "__name__", ""), "path")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == "":
        return "–"
    if isinstance(value, tuple):
        return f"`{','.join(str(part) for part in value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.stdout.write(render())
