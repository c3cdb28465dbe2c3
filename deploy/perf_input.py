"""`python -m deploy.perf_input`: the picture that docker-compose.yml's `perf` sends, as perf_analyzer reads it."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from server.probe import PORTRAIT

TARGET = Path(__file__).resolve().parent.parent / "out" / "perf" / "input.json"


def main() -> int:
    """Write out/perf/input.json."""
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    picture = base64.b64encode(PORTRAIT.read_bytes()).decode()
    TARGET.write_text(json.dumps({"data": [{"image": {"b64": picture, "shape": [1]}}]}), encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
