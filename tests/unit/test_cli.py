"""The command line: exit codes, one-line errors, help, the object on the last line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lookalike import cli, output
from lookalike.commands.publish import summary
from lookalike.pictures import Picture
from lookalike.publishing import Failure, Published
from streams.errors import ConfigError, DependencyError, QueryError, Reason
from streams.report.outcomes import Outcome, OutcomeState


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "nothing-runs-here"))


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for help sees a line to type."""
    assert cli.run([name, "--help"]) == 0
    assert "lookalike " + name in capsys.readouterr().out.partition("xample")[2]


def test_help_imports_nothing_heavy() -> None:
    """`lookalike --help` answers before torch could be imported."""
    code = (
        "import sys; from lookalike.cli import run; run(['--help']); "
        "print([m for m in ('torch', 'pydantic', 'confluent_kafka', 'PIL', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.splitlines()[-1] == "[]"
    for name, line in cli.COMMANDS.items():
        assert name in shown.stdout
        assert line in shown.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nonsense"], "No such command"),
        (["similar", "--tenant", "acme"], "either --image or --file"),
        (["similar", "--tenant", "ACME!", "--image", "x"], "is no tenant id"),
        (["similar", "--tenant", "acme", "--image", "../x"], "is no image id"),
        (["publish", "--tenant", "acme", "/no/such/path"], "does not exist"),
        (["publish", "--tenant", "acme"], "Missing argument"),
        (["publish", "."], "Missing option '--tenant'"),
    ],
)
def test_a_wrong_call_is_exit_2(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Usage errors say what is wrong, before anything is connected."""
    assert cli.run(args) == 2
    assert told in capsys.readouterr().err


def test_one_name_for_many_pictures_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--image-id` with a folder of two would make one image of them."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    assert cli.run(["publish", "--tenant", "acme", str(tmp_path), "--image-id", "x"]) == 2
    assert "names one picture, the paths hold 2" in capsys.readouterr().err


def test_nothing_running_is_one_line_and_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    """Without addresses the line says where was looked and what to set."""
    assert cli.run(["topics", "check"]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "nothing-runs-here" in shown.err
    assert "LOOKALIKE_KAFKA_BOOTSTRAP" in shown.err


def test_a_misspelt_variable_is_one_line_and_exit_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command reads the settings first."""
    monkeypatch.setenv("LOOKALIKE_API_PROT", "80")
    assert cli.run(["similar", "--tenant", "acme", "--image", "x"]) == 3
    assert capsys.readouterr().err.startswith(
        "lookalike: LOOKALIKE_API_PROT is not a setting; the nearest is LOOKALIKE_API_PORT"
    )


def _raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def command() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: command)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("set\nthat"), 3),
        (DependencyError("broker", "the broker does not answer"), 3),
        (QueryError(404, "not_found", "no such image"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    """One place maps errors to exit codes, and at most one line is said."""
    _raising(monkeypatch, error)
    assert cli.run(["x"]) == code
    assert len([line for line in capsys.readouterr().err.splitlines() if line]) <= 1


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody raised on purpose keeps its traceback."""
    _raising(monkeypatch, ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError):
        cli.run(["x"])


def test_json_is_the_last_line_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks inside values are escaped, so `tail -n 1` has the whole object."""
    output.say("before")
    output.print_json({"text": "two\nlines", "name": "ü"})
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1]) == {"text": "two\nlines", "name": "ü"}
    assert len(lines) == 2


def test_a_table_aligns_text_left_and_numbers_right() -> None:
    """What a person compares stands under each other."""
    assert output.table([("a", 5), ("long", 1000)]) == ["a        5", "long  1000"]
    assert output.table([]) == []


def _outcome(event_id: str, state: OutcomeState, reason: Reason | None = None) -> Outcome:
    return Outcome(
        state=state,
        topic="images.live",
        partition=0,
        offset=0,
        collection="c",
        worker="w",
        at_us=0,
        event_id=event_id,
        reason=reason,
        message="broken" if reason else None,
    )


def test_published_pictures_are_accounted_for_one_by_one() -> None:
    """Failed by the worker, failed before, without an answer: each is listed with its file."""
    good, bad, silent = (Picture(Path(f"{n}.jpg"), n, f"acme/{n}.jpg") for n in ("good", "bad", "silent"))
    early = Failure("early", "early.jpg", "image_too_large", "larger")
    done = Published({"1": good, "2": bad, "3": silent}, [early])
    outcomes = {
        "1": _outcome("1", OutcomeState.INDEXED),
        "2": _outcome("2", OutcomeState.FAILED, Reason.IMAGE_UNREADABLE),
    }
    found = summary(done, outcomes, seconds=1.0)
    assert found["outcomes"] == {"indexed": 1, "failed": 1}
    assert [(f["image_id"], f["reason"]) for f in found["failed"]] == [
        ("early", "image_too_large"),
        ("bad", "image_unreadable"),
    ]
    assert found["unanswered"] == [{"image_id": "silent", "file": "silent.jpg"}]


def test_without_wait_nothing_counts_as_unanswered() -> None:
    """Announcing is all that was asked for."""
    done = Published({"1": Picture(Path("a.jpg"), "a", "acme/a.jpg")}, [])
    found = summary(done, None, seconds=1.0)
    assert (found["published"], found["outcomes"], found["unanswered"]) == (1, None, [])
