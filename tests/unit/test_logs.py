"""What processes log: a failure is one warning, a finished event one debug line, a secret never."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from lookalike.logs import configure_logging
from lookalike.settings import fields
from streams.event import TRACEPARENT_HEADER, created
from streams.settings import is_secret
from tests.worker_rig import NAMES, Rig

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
WHICH = {"event_id", "tenant_id", "image_id", "topic", "partition", "offset", "traceparent"}


def _worked(rig: Rig, n_outcomes: int) -> list[EventDict]:
    with capture_logs() as lines, rig.work() as running:
        running.settle(n_outcomes)
    return lines


def test_a_failure_is_one_warning_that_finds_the_event_again() -> None:
    """Its ids, where it lies in Kafka, the stage, the reason, and its trace."""
    rig = Rig()
    event = created("acme", "cat", rig.put("acme", "cat.jpg", b"bad"), traceparent=TRACE)
    rig.publish(event)
    lines = [line for line in _worked(rig, 1) if line["log_level"] == "warning"]
    assert len(lines) == 1
    (line,) = lines
    assert set(line) >= WHICH | {"stage", "reason", "error", "tries", "verdict"}
    assert (line["event_id"], line["tenant_id"], line["image_id"]) == (event.event_id, "acme", "cat")
    assert (line["stage"], line["reason"], line["traceparent"]) == ("decode", "image_unreadable", TRACE)


def test_a_finished_event_is_one_debug_line_and_its_trace_goes_on() -> None:
    """Nothing louder: a million events are not a million lines. The outcome's record carries the trace."""
    rig = Rig()
    rig.publish(created("acme", "cat", rig.put("acme", "cat.jpg", b"image:1"), traceparent=TRACE))
    lines = [line for line in _worked(rig, 1) if line.get("event_id")]
    assert [(line["log_level"], line["event"], line["state"]) for line in lines] == [
        ("debug", "event finished", "indexed")
    ]
    assert set(lines[0]) >= WHICH
    (record,) = rig.log.records(NAMES.outcomes)
    assert dict(record.headers)[TRACEPARENT_HEADER] == TRACE.encode()


def test_lines_are_json_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One object a line, with level and time; below the level nothing."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    before = structlog.get_config()
    try:
        configure_logging("info")
        log = structlog.get_logger("test")
        log.debug("quiet")
        log.warning("loud", n=1)
    finally:
        structlog.configure(**before)
    (line,) = out.getvalue().splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"], found["n"]) == ("loud", "warning", 1)
    assert found["timestamp"].endswith("Z")


@pytest.mark.parametrize("how", ["variable", "file"])
def test_no_process_says_a_secret(tmp_path: Path, how: str) -> None:
    """Started with every secret there is and nothing that answers: not in what they log, not in what they print."""
    names = [variable for _, variable, field in fields() if is_secret(field)]
    assert len(names) >= 5
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOOKALIKE_")}
    secrets = {}
    for number, name in enumerate(names):
        secrets[name] = f"hush-{number}-do-not-tell"
        (tmp_path / name).write_text(secrets[name])
        if how == "file":
            environment[f"{name}_FILE"] = str(tmp_path / name)
        else:
            environment[name] = secrets[name]
    environment |= {
        "LOOKALIKE_LOG_LEVEL": "debug",
        "LOOKALIKE_DATA": str(tmp_path / "data"),
        "LOOKALIKE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "LOOKALIKE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "LOOKALIKE_KAFKA_SASL_MECHANISM": "PLAIN",
        "LOOKALIKE_KAFKA_SASL_USERNAME": "somebody",
        "LOOKALIKE_S3_ENDPOINT": "http://127.0.0.1:2",
        "LOOKALIKE_QDRANT_URL": "http://127.0.0.1:3",
        "LOOKALIKE_INDEX_METRICS_PORT": "0",
    }
    commands = (["worker"], ["pulse"], ["normalize"], ["doctor", "--json"], ["status", "--json"])
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "lookalike", *command],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for command in commands
        ]
        said = [process.communicate(timeout=200)[0] for process in running]
    for command, text in zip(commands, said, strict=True):
        assert text, command
        told = [name for name, value in secrets.items() if value in text]
        assert told == [], f"{command} says {told}"


def test_a_logger_outlives_the_stderr_it_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever logs after a command's captured output was closed writes to the stderr of that moment."""
    before = structlog.get_config()
    first, second = io.StringIO(), io.StringIO()
    try:
        monkeypatch.setattr(sys, "stderr", first)
        configure_logging("info")
        log = structlog.get_logger("test").bind()
        log.info("one")
        monkeypatch.setattr(sys, "stderr", second)
        first.close()
        log.info("two")
    finally:
        structlog.configure(**before)
    assert json.loads(second.getvalue())["event"] == "two"
