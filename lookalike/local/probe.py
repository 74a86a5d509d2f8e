"""``python -m lookalike.local.probe URL``: exit 0 where the address answers 200. For images without curl."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4.0


def probe(url: str) -> int:
    """0 for an answer of 200; else 1, with the reason on stderr for whoever reads the container's health log."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the container's own address
            return 0 if answer.status == 200 else 1
    except (urllib.error.URLError, TimeoutError, ConnectionError) as exc:
        sys.stderr.write(f"{url}: {exc}\n")
        return 1


if __name__ == "__main__":
    sys.exit(probe(sys.argv[1]))
