"""`python -m perf.tune` (`make tune`): instances, threads and delays for the present machine.

Tries one change after the other and keeps what serves 16 clients more than `GAIN` faster without making a single
client wait longer. Every candidate takes turns with the best so far, both servers being alive, so that what else
happens on the machine happens to both. What is kept is written as `configs/tuned.pbtxt` of each model that changed,
with `tuned.json` (every candidate's measurements) beside it, and served by `--model-config-name=tuned`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from perf import machine, store
from perf.breakdown import asks
from perf.calls import Calls, together
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.repository import DEFAULT_REPOSITORY, read_config

FLAVOUR = "tuned"
GAIN = 1.03
"""A change that gains less is not worth a configuration of its own."""
PATIENCE = 1.15
"""What a single client may wait longer."""
CLIENTS = 16


@dataclass(frozen=True)
class Change:
    """One setting of one model.

    Attributes:
        model: whose configuration.
        setting: ``instances``, ``delay_us``, or the name of a parameter of the backend.
        value: the number.
    """

    model: str
    setting: str
    value: int

    def apply(self, config: Any) -> None:
        """Change a model configuration (protobuf) in place."""
        if self.setting == "instances":
            config.instance_group[0].count = self.value
        elif self.setting == "delay_us":
            config.dynamic_batching.max_queue_delay_microseconds = self.value
        else:
            config.parameters[self.setting].string_value = str(self.value)

    def __str__(self) -> str:
        return f"{self.model}: {self.setting} {self.value}"


def candidates(cores: int) -> list[Change]:
    """What is tried, in the order of what it may gain."""
    threads = sorted({1, max(1, cores // 2), cores})
    changes = [
        Change(model, "intra_op_thread_count", count) for model in ("detector", "texture") for count in threads[:-1]
    ]
    if cores > 1:
        changes += [Change(model, "instances", 2) for model in ("detector", "texture", "preprocess")]
    changes.append(Change("postprocess", "instances", 1 if cores <= 2 else cores // 2))
    changes.append(Change("regressor", "intra_op_thread_count", 1))
    changes += [Change("regressor", "delay_us", delay) for delay in (2000, 10000)]
    return changes


def write(repository: Path, changes: Sequence[Change]) -> None:
    """`configs/tuned.pbtxt` for each model that a change is about; others keep their configuration."""
    for path in repository.glob(f"*/configs/{FLAVOUR}.*"):
        path.unlink()
    for model in dict.fromkeys(change.model for change in changes):
        config = read_config(repository / model / "config.pbtxt")
        for change in changes:
            if change.model == model:
                change.apply(config)
        folder = repository / model / "configs"
        folder.mkdir(exist_ok=True)
        said = "; ".join(str(change) for change in changes if change.model == model)
        head = f"# Written by `make tune` on this machine ({said}); measurements in tuned.json.\n"
        (folder / f"{FLAVOUR}.pbtxt").write_text(head + text_format.MessageToString(config))


def _server(repository: Path, changes: Sequence[Change]) -> EmbeddedServer:
    write(repository, changes)
    options = ServerOptions(repository=repository, model_config_name=FLAVOUR)
    server = EmbeddedServer(on_free_ports(options)).start()
    together(asks(Calls(server.grpc)), CLIENTS, 1.0)
    return server


def duel(servers: Mapping[str, EmbeddedServer], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Name -> rate at 16 clients, p50 of one client in ms, memory in MB; all take turns."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    singles: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds):
        for name in sorted(servers, reverse=bool(number % 2)):
            ask = asks(Calls(servers[name].grpc))
            start = time.perf_counter()
            latencies, _ = together(ask, CLIENTS, seconds)
            rates[name].append(len(latencies) / (time.perf_counter() - start))
            singles[name] += together(ask, 1, seconds / 2)[0]
    return {
        name: {
            "rate": statistics.median(rates[name]),
            "p50_ms": statistics.median(singles[name]) * 1000,
            "memory_mb": machine.resident_mb(server.pid),
        }
        for name, server in servers.items()
    }


def search(repository: Path, changes: Sequence[Change], rounds: int, seconds: float) -> tuple[list[Change], list[Any]]:
    """The changes that are kept, and what was measured for each candidate. ``repository`` is a copy to work in."""
    kept: list[Change] = []
    log: list[Any] = []
    best = _server(repository, kept)
    try:
        for change in changes:
            if change.setting == "instances" and _same(repository, change):
                continue
            rest = [other for other in kept if (other.model, other.setting) != (change.model, change.setting)]
            challenger = _server(repository, [*rest, change])
            try:
                found = duel({"best": best, "challenger": challenger}, rounds, seconds)
                gain = found["challenger"]["rate"] / found["best"]["rate"]
                wait = found["challenger"]["p50_ms"] / found["best"]["p50_ms"]
                better = gain >= GAIN and wait <= PATIENCE
                log.append({"change": str(change), "gain": gain, "wait": wait, "kept": better, **found})
                print(
                    f"{change}: {gain:.2f} of the rate, {wait:.2f} of one client's wait: {'kept' if better else 'no'}"
                )
                if better:
                    best, challenger = challenger, best
                    kept = [*rest, change]
            finally:
                challenger.stop()
    finally:
        best.stop()
    return kept, log


def _same(repository: Path, change: Change) -> bool:
    config = read_config(repository / change.model / "config.pbtxt")
    return bool(config.instance_group[0].count == change.value)


def main(arguments: Sequence[str] | None = None) -> None:
    """Search on a copy of the repository, then write what is better into the repository itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement (default 3)")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="try changes of these models only")
    parser.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY)
    options = parser.parse_args(arguments)
    changes = candidates(len(os.sched_getaffinity(0)))
    if options.only:
        changes = [change for change in changes if change.model in options.only]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(options.repository, copy, ignore=shutil.ignore_patterns("__pycache__"))
        kept, log = search(copy, changes, options.rounds, options.seconds)
    write(options.repository, kept)
    measured = {"machine": machine.facts(), "kept": [str(change) for change in kept], "candidates": log}
    for model in dict.fromkeys(change.model for change in kept):
        path = options.repository / model / "configs" / f"{FLAVOUR}.json"
        path.write_text(json.dumps(measured, indent=1) + "\n")
    store.save("tune", **{key: value for key, value in measured.items() if key != "machine"})
    print("kept: " + ("; ".join(map(str, kept)) or "nothing, the configurations are the best that was tried"))


if __name__ == "__main__":
    main()
