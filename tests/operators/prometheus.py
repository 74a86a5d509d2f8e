"""A real Prometheus on a port of its own, and alert rules in which a minute is six seconds."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

import yaml

from lookalike.local.processes import OwnProcess, free_ports
from tests.waiting import wait_until

QUICKER = 10
"""Durations of the alerts are divided by it: the same expressions, over the series of this run, in minutes."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"\[(\d+)([smhd])\]")


def program(name: str) -> str:
    """The program that tools/test-operators found."""
    return os.environ.get(name.upper(), name)


def quicker(text: str) -> str:
    """Rules whose windows and waiting times are shorter; nothing else is changed."""
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = _DURATION.sub(lambda found: f"[{_shorter(found[1], found[2])}s]", rule["expr"])
            if "for" in rule:
                rule["for"] = f"{_shorter(rule['for'][:-1], rule['for'][-1])}s"
    return str(yaml.safe_dump(rules))


def _shorter(number: str, unit: str) -> int:
    return math.ceil(int(number) * _UNITS[unit] / QUICKER)


class Prometheus:
    """Scrapes what `up` says is there, once a second. `with` starts it and leaves nothing behind."""

    def __init__(self, folder: Path, *, targets: Path, rules: str) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        (folder / "alerts.yml").write_text(rules)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [
                {"job_name": "lookalike", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process: OwnProcess | None = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        asked = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = self._get(f"/api/v1/query?{asked}")["result"]
        return found

    def number(self, expression: str) -> float:
        """The value of an expression that gives one series, 0 where it gives none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        return {one["labels"]["alertname"] for one in self._get("/api/v1/alerts")["alerts"] if one["state"] == "firing"}

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)["data"]
            return found

    def __enter__(self) -> Self:
        command = [
            program("prometheus"),
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self._process = OwnProcess(command, log=self._folder / "prometheus.log")
        wait_until(self._answers, timeout_s=60.0)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.stop(10.0)

    def _answers(self) -> bool:
        try:
            return bool(self.query("vector(1)"))
        except OSError:
            return False


def promtool(*arguments: str) -> tuple[int, str]:
    """Exit code and everything it says."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
