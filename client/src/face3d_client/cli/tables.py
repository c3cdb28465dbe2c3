"""Progress and tables, by Rich. Everything but results goes to stderr."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from face3d_client._protocol.server import ModelStatus
from face3d_client._text import printable
from face3d_client.cli.batch import Record

__all__ = ["Progress", "print_models", "print_summary"]


class Progress:
    """A bar with counts of faces, failures and pictures a second; draws nothing where stderr is no terminal."""

    def __init__(self, total: int) -> None:
        self._bar = Bar(
            TextColumn("reconstruct"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[faces]} faces"),
            TextColumn("[red]{task.fields[failures]} failed"),
            TextColumn("{task.fields[rate]:.1f}/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.disable = not self._bar.console.is_terminal
        self._task = self._bar.add_task("", total=total, faces=0, failures=0, rate=0.0)
        self._faces = self._failures = self._done = 0
        self._began = time.monotonic()
        self.seconds = 0.0

    def add(self, faces: int, *, failed: bool) -> None:
        """Count one more picture."""
        self._done += 1
        self._faces += faces
        self._failures += failed
        self.seconds = time.monotonic() - self._began
        rate = self._done / max(self.seconds, 1e-9)
        self._bar.update(self._task, advance=1, faces=self._faces, failures=self._failures, rate=rate)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()


def print_summary(records: Sequence[Record], planned: int, seconds: float, listing: Path, interrupted: bool) -> None:
    """Print what became of all pictures and why some failed; `listing` is empty where no file lists the failures."""
    console = Console(stderr=True, highlight=False)
    statuses = Counter(record.status for record in records)
    faces = sum(len(record.faces) for record in records)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    tried = len(records) - statuses["skipped"]
    table.add_row(
        str(statuses["written"]),
        f"written ({faces} {'face' if faces == 1 else 'faces'}, {tried / max(seconds, 1e-3):.1f} pictures a second)",
    )
    if statuses["skipped"]:
        table.add_row(str(statuses["skipped"]), "skipped: their results are there")
    if statuses["failed"]:
        table.add_row(str(statuses["failed"]), Text("failed", style="red"))
    if planned > len(records):
        table.add_row(str(planned - len(records)), "not done" + (": interrupted" if interrupted else ""))
    console.print(table)
    reasons = Counter(reason for record in records for reason, _ in record.failures)
    if reasons:
        why = Table(box=None, pad_edge=False)
        for column in ("reason", "count", "for instance"):
            why.add_column(column, overflow="fold", justify="right" if column == "count" else "left")
        for reason, count in reasons.most_common():
            record, message = next(
                (record, message) for record in records for name, message in record.failures if name == reason
            )
            why.add_row(reason, str(count), Text(printable(f"{record.job.name}: {message}")))
        console.print(why)
        console.print(Text(printable(f"all of them are listed in {listing}")))


def print_models(models: Sequence[ModelStatus]) -> None:
    """Print a table of the server's models."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "version", "state", "reason"):
        table.add_column(column)
    for model in models:
        style = "green" if model.ready else "red"
        # As Text: a server's words are no markup of Rich's.
        state = Text(model.state or "NOT LOADED", style=style)
        table.add_row(Text(model.name), Text(model.version or "-"), state, Text(model.reason))
    Console(highlight=False).print(table)
