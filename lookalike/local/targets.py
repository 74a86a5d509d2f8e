"""DATA/prometheus.json: what a Prometheus beside `up` should scrape, in the form of its file discovery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from streams.errors import ConfigError

FILE = "prometheus.json"


def targets(status_urls: Mapping[str, str]) -> list[dict[str, object]]:
    """One group a process: job `lookalike-KIND`, instance its name (`worker-2`)."""
    return [
        {
            "targets": [urlsplit(url).netloc],
            "labels": {"job": f"lookalike-{name.partition('-')[0]}", "instance": name},
        }
        for name, url in sorted(status_urls.items())
    ]


def write_targets(data: Path, status_urls: Mapping[str, str]) -> None:
    """Replace the file; Prometheus sees the old one or the new one. ConfigError where it cannot be written."""
    scratch = data / f"{FILE}.new"
    try:
        scratch.write_text(json.dumps(targets(status_urls), indent=1) + "\n")
        scratch.replace(data / FILE)
    except OSError as exc:
        raise ConfigError(f"{data} cannot be written: {exc.strerror or exc}") from exc
