"""Files of measurements: `build/perf/NAME.json`, each with the facts of its machine, and plots beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from perf import machine
from server.repository import ROOT

FOLDER = Path(os.environ.get("FACE3D_PERF", ROOT / "build" / "perf"))


def save(name: str, **values: Any) -> Path:
    """Write a measurement and the machine's facts; return the file."""
    return keep(name, {"machine": machine.facts(), **values})


def keep(name: str, values: dict[str, Any]) -> Path:
    """Write what has the facts of its machine already; return the file."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(values, indent=1) + "\n")
    return path


def read(name: str) -> dict[str, Any] | None:
    """Read a measurement; None where there is none."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None
