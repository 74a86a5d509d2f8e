"""What commands print: results on stdout, everything else on stderr; with ``--json`` one object as the last line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """How far a long piece of work is."""

    def advance(self, n: int = 1) -> None:
        """`n` more are done."""
        ...


class _Silent:
    def advance(self, n: int = 1) -> None:
        pass


@contextmanager
def progress(title: str, *, total: int) -> Iterator[Progress]:
    """A bar on stderr, on a terminal only: a log file gets none."""
    if not sys.stderr.isatty() or total == 0:
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=total)

        class _Bar:
            def advance(self, n: int = 1) -> None:
                bars.advance(task, n)

        yield _Bar()


def print_json(result: object) -> None:
    """The result on one line, the last of stdout."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False, separators=(", ", ": ")) + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """One line of result."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """One line beside the result, on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def table(rows: Iterable[Sequence[object]]) -> list[str]:
    """Rows as aligned lines; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    kinds = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in kinds]
    numeric = [all(cell.lstrip("-").replace(".", "", 1).isdigit() or cell == "–" for cell in col) for col in kinds]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
