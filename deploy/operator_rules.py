"""`python -m deploy.operator_rules`: the rules of deploy/monitoring as the Prometheus operator wants them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TARGET = HERE / "kubernetes" / "overlays" / "monitoring" / "rules.yaml"


def resource() -> dict[str, Any]:
    """Return one PrometheusRule with the groups of every file; their names, which must differ, say which file."""
    groups: list[dict[str, Any]] = []
    for path in sorted((HERE / "monitoring" / "rules").glob("*.yml")):
        found = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        groups += [{**group, "name": path.stem} for group in found]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "face3d"},
        "spec": {"groups": groups},
    }


def main() -> int:
    """Write the manifest."""
    head = "# Made by `python -m deploy.operator_rules` from deploy/monitoring/rules; do not edit.\n"
    TARGET.write_text(head + yaml.safe_dump(resource(), sort_keys=False, width=118), encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
