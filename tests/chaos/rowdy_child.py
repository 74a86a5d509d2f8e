"""A decode child whose pictures can misbehave: those that end with ``#hang`` never end, ``#crash`` aborts it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

HANG = b"#hang"
CRASH = b"#crash"
_REAL = Path(__file__).parents[2] / "embedder" / "stages" / "decode_child.py"


def main(arguments: list[str]) -> int:
    """Run the real child with a decoder that looks at the end of the file first; nothing can be imported here."""
    real = ModuleType("decode_child")
    real.__file__ = str(_REAL)
    sys.modules[real.__name__] = real
    exec(compile(_REAL.read_text(), str(_REAL), "exec"), real.__dict__)
    decode_picture = real.decode_picture

    def rowdy(data: bytes, **rules: Any) -> Any:
        if data.endswith(HANG):
            threading.Event().wait()
        if data.endswith(CRASH):
            os.abort()
        return decode_picture(data, **rules)

    real.decode_picture = rowdy  # type: ignore[attr-defined]
    return int(real.main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
