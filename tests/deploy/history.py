"""Pages of the real server, put into a database under times of a quarter of a minute, as Prometheus would read them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import Database, Vector

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
STEP = 15.0  # scrape and evaluation interval of prometheus.yml
START = 1_000_000.0
TRITON = {"job": "triton", "instance": "cpu:8002"}
SUPERVISOR = {"job": "supervisor", "instance": "cpu:8003"}


@dataclass
class History:
    """Pages in the order they were read.

    Attributes:
        pages: of Triton.
        supervisor: of the supervisor, as many.
        good, refused: requests that were answered and that were refused between the first page and the last.
    """

    pages: list[str]
    supervisor: list[str]
    good: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def end(self) -> float:
        """When the last page was read."""
        return START + STEP * (len(self.pages) - 1)

    def database(self) -> Database:
        """Everything that Prometheus would know at `end`: the pages, and what the recording rules made of them."""
        database = Database()
        for index, (page, supervisor) in enumerate(zip(self.pages, self.supervisor, strict=True)):
            at = START + STEP * index
            database.add_page(page, at, **TRITON)
            database.add_page(supervisor, at, **SUPERVISOR)
            for rule in recordings():
                database.record(rule["record"], database.query(rule["expr"], at), at)
        return database

    def changed(self, change: Callable[[str], str], last: int = 4) -> History:
        """The same with the last pages changed, for what did not happen to the real server."""
        keep = len(self.pages) - last
        pages = [*self.pages[:keep], *map(change, self.pages[keep:])]
        return History(pages, self.supervisor, self.good, self.refused)


def rules(file: str) -> list[dict[str, Any]]:
    """The rules of one file, in its order."""
    groups = yaml.safe_load((MONITORING / "rules" / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def recordings() -> list[dict[str, Any]]:
    """The recording rules, in the order Prometheus evaluates them in."""
    return rules("face3d.recording.yml")


def alerts() -> dict[str, str]:
    """Name -> expression."""
    return {rule["alert"]: rule["expr"] for rule in rules("face3d.alerts.yml")}


def dashboard() -> Any:
    """The Grafana dashboard."""
    return json.loads((MONITORING / "grafana" / "dashboards" / "face3d.json").read_text())


def queries() -> Iterator[tuple[str, str]]:
    """(Panel's title, query) of everything the dashboard asks."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def add(page: str, line: str, amount: float) -> str:
    """The page with ``amount`` added to every sample whose name and labels match ``line``; it must match one."""
    changed, count = re.subn(rf"^({line}) (\S+)$", lambda m: f"{m[1]} {float(m[2]) + amount:.10g}", page, flags=re.M)
    assert count, f"the page has no {line}"
    return changed


def only(vector: Vector) -> float:
    """The single number of an answer."""
    (number,) = vector.values()
    return number
