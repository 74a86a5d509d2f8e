"""What benches compute from what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lookalike.bench.figures import keep, percentile
from lookalike.bench.proc import cpu_s, descendants, device, rss_mb


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0)])
def test_percentile_is_the_nearest_rank(share: float, expected: float) -> None:
    """Of 1 to 100, the 95th percentile is 95: no interpolation, no off-by-one."""
    assert percentile([float(n) for n in range(100, 0, -1)], share) == expected


def test_percentile_of_one_value_is_that_value() -> None:
    """A single measurement is every percentile."""
    assert {percentile([7.0], share) for share in (0.0, 0.5, 0.99, 1.0)} == {7.0}


def test_percentile_of_nothing_is_an_error() -> None:
    """No measurement gives no figure."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_kept_figures_are_the_printed_line(tmp_path: Path) -> None:
    """What stands in build/ is the line that was printed."""
    line = keep("x", {"events": 1}, folder=tmp_path / "build")
    assert json.loads((tmp_path / "build" / "bench-x.json").read_text()) == json.loads(line) == {"events": 1}


def test_children_count_towards_a_process() -> None:
    """A child's CPU time belongs to the process that started it; memory is its own."""
    code = "import sys; s = sum(range(3_000_000)); print('ready', flush=True); sys.stdin.read()"
    before = cpu_s(os.getpid())
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert child.pid in descendants(os.getpid())
        assert cpu_s(os.getpid()) > before
        assert 1 < rss_mb(child.pid) < 500
        child.communicate()


def test_device_names_cores_and_python() -> None:
    """A figure's machine is named in words."""
    assert "cores of" in device()
    assert "Python 3." in device()
