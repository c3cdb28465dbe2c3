"""`python -m perf.tune` (`make tune`): batching, threads, instances and delays for the present machine.

Tries one candidate after the other against the best so far. Both servers are alive and take turns, best, candidate,
best, candidate, best: so the best is also measured against itself, and the spread of its own rates is the noise. A
candidate is kept when it serves 16 clients faster by more than this spread and by more than `GAIN`, without making
a single client wait longer. The kept changes are written as `configs/tuned.pbtxt` of each model that changed, with
`tuned.json` (every candidate's measurements) beside it, and served by `--model-config-name=tuned`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from perf import machine, store
from perf.breakdown import portrait_requests
from perf.calls import Calls, run_concurrently
from server.arguments import positive_number, whole_number
from server.backends.onnxruntime.onnx_session import MOST_THREADS
from server.embedded import EmbeddedServer, ServerOptions, on_free_ports
from server.repository import DEFAULT_REPOSITORY, read_config, read_repository

FLAVOUR = "tuned"
GAIN = 1.03
"""Least gain in rate for which a configuration is kept."""
MAX_WAIT_RATIO = 1.15
"""Largest latency of a single client relative to the best's."""
CLIENTS = 16


@dataclass(frozen=True)
class Change:
    """One setting of one model.

    Attributes:
        model: whose configuration.
        setting: ``instances``, ``batching`` (1: dynamic batching, 0: none), ``preferred_batch``,
            ``delay_us`` (both only with dynamic batching), or the name of a parameter of the backend.
        value: the number.
    """

    model: str
    setting: str
    value: int

    def apply(self, config: Any) -> None:
        """Change a model configuration (protobuf) in place."""
        if self.setting == "instances":
            config.instance_group[0].count = self.value
        elif self.setting == "batching":
            config.dynamic_batching.SetInParent()
            if not self.value:
                config.ClearField("dynamic_batching")
        elif self.setting in ("preferred_batch", "delay_us"):
            if config.HasField("dynamic_batching"):
                if self.setting == "delay_us":
                    config.dynamic_batching.max_queue_delay_microseconds = self.value
                else:
                    config.dynamic_batching.preferred_batch_size[:] = [self.value]
        else:
            config.parameters[self.setting].string_value = str(self.value)

    def __str__(self) -> str:
        return f"{self.model}: {self.setting} {self.value}"


Candidate = tuple[Change, ...]
"""Changes that are tried together."""


def candidates(cores: int, batching: Mapping[str, bool]) -> list[Candidate]:
    """List the candidates, by expected gain.

    Args:
        cores: that the server may use.
        batching: model -> whether it is configured with dynamic batching; models that are not listed are left alone.
    """
    networks = [model for model in ("detector", "texture", "regressor") if model in batching]
    result: list[Candidate] = [tuple(Change(model, "batching", on) for model in networks) for on in (0, 1)]
    result += [(Change(model, "batching", int(not batching[model])),) for model in networks]
    threads = "intra_op_thread_count"
    # On one or two cores a network has one thread by default; trying one again would measure noise.
    for count in (1, cores // 2) if cores > 2 else range(2, cores + 1):
        result.append(tuple(Change(model, threads, count) for model in networks if model != "regressor"))
        result += [(Change(model, threads, count),) for model in networks]
    if cores > 1:
        result += [
            (Change(model, "instances", 2), Change(model, threads, max(1, cores // 2)))
            for model in networks
            if model != "regressor"
        ]
        result += [(Change(model, "instances", 2),) for model in ("preprocess", "align") if model in batching]
    if cores > MOST_THREADS and "regressor" in batching:
        # One instance has threads for so many cores, and its batches one after the other keep the others idle.
        result.append((Change("regressor", "instances", 2),))
    if "postprocess" in batching:
        result += [(Change("postprocess", "instances", count),) for count in sorted({1, max(2, cores // 2)})]
    if "regressor" in batching:
        result += [(Change("regressor", "preferred_batch", size),) for size in (2, 4)]
        result += [(Change("regressor", "delay_us", delay),) for delay in (2000, 10000)]
    return [candidate for candidate in dict.fromkeys(result) if candidate]


def changed(repository: Path, model: str, changes: Sequence[Change]) -> Any:
    """Return a model's configuration (protobuf) with the changes of this model."""
    config = read_config(repository / model / "config.pbtxt")
    for change in changes:
        if change.model == model:
            change.apply(config)
    return config


def replaced(kept: Sequence[Change], candidate: Candidate) -> list[Change]:
    """Add a candidate to the kept changes; of two changes of one setting the later one holds."""
    new = {(change.model, change.setting) for change in candidate}
    return [change for change in kept if (change.model, change.setting) not in new] + list(candidate)


def write(repository: Path, changes: Sequence[Change]) -> None:
    """Write `configs/tuned.pbtxt` for each changed model; others keep their configuration."""
    for path in repository.glob(f"*/configs/{FLAVOUR}.*"):
        path.unlink()
    for model in dict.fromkeys(change.model for change in changes):
        config = changed(repository, model, changes)
        folder = repository / model / "configs"
        folder.mkdir(exist_ok=True)
        description = "; ".join(str(change) for change in changes if change.model == model)
        header = f"# Written by `make tune` on this machine ({description}); measurements in tuned.json.\n"
        (folder / f"{FLAVOUR}.pbtxt").write_text(header + text_format.MessageToString(config))


def _server(repository: Path, changes: Sequence[Change]) -> EmbeddedServer:
    write(repository, changes)
    options = ServerOptions(repository=repository, model_config_name=FLAVOUR)
    server = EmbeddedServer(on_free_ports(options)).start()
    run_concurrently(portrait_requests(Calls(server.grpc)), CLIENTS, 1.0)
    return server


@dataclass(frozen=True)
class Turn:
    """One server's turn: pictures a second of 16 clients, median latency of a single one in ms."""

    rate: float
    p50_ms: float

    @classmethod
    def of(cls, server: EmbeddedServer, seconds: float) -> Turn:
        """Measure for ``seconds`` with `CLIENTS`, and half as long with one client."""
        ask = portrait_requests(Calls(server.grpc))
        start = time.perf_counter()
        latencies, _ = run_concurrently(ask, CLIENTS, seconds)
        rate = len(latencies) / (time.perf_counter() - start)
        return cls(rate, statistics.median(run_concurrently(ask, 1, seconds / 2)[0]) * 1000)


def verdict(best: Sequence[Turn], challenger: Sequence[Turn]) -> dict[str, Any]:
    """Decide whether the challenger is kept; each of its turns lies between two of the best's.

    Returns:
        ``gain``: the median of its rate over the mean of its neighbours'; ``spread``: the largest difference between
        two turns of the best that follow each other, as a share; ``wait``: the same as gain of a client's wait.
    """
    pairs = list(itertools.pairwise(best))
    between = list(zip(pairs, challenger, strict=True))
    gain = statistics.median(2 * one.rate / (a.rate + b.rate) for (a, b), one in between)
    wait = statistics.median(2 * one.p50_ms / (a.p50_ms + b.p50_ms) for (a, b), one in between)
    spread = max(max(a.rate, b.rate) / min(a.rate, b.rate) - 1 for a, b in pairs)
    return {
        "gain": gain,
        "spread": spread,
        "wait": wait,
        "kept": gain >= max(GAIN, 1 + spread) and wait <= MAX_WAIT_RATIO,
    }


def search(
    repository: Path, tried: Sequence[Candidate], rounds: int, seconds: float
) -> tuple[list[Change], list[dict[str, Any]]]:
    """Try candidates on a copy of the repository; return the kept changes and the measurements of each candidate."""
    kept: list[Change] = []
    log: list[dict[str, Any]] = []
    best = _server(repository, kept)
    try:
        for candidate in tried:
            changes = replaced(kept, candidate)
            models = {change.model for change in candidate}
            if all(changed(repository, model, changes) == changed(repository, model, kept) for model in models):
                continue  # configured so already
            challenger = _server(repository, changes)
            try:
                challenger_turns, best_turns = [], [Turn.of(best, seconds)]
                for _ in range(rounds):
                    challenger_turns.append(Turn.of(challenger, seconds))
                    best_turns.append(Turn.of(best, seconds))
                result = verdict(best_turns, challenger_turns)
                name = ", ".join(map(str, candidate))
                memory = {"best": machine.resident_mb(best.pid), "challenger": machine.resident_mb(challenger.pid)}
                turns = {"best": list(map(asdict, best_turns)), "challenger": list(map(asdict, challenger_turns))}
                log.append({"change": name, **result, "memory_mb": memory, "turns": turns})
                print(
                    f"{name}: {result['gain']:.2f} of the rate (the best varies by {result['spread']:.0%}), "
                    f"{result['wait']:.2f} of one client's wait: {'kept' if result['kept'] else 'no'}",
                    flush=True,
                )
                if result["kept"]:
                    best, challenger, kept = challenger, best, changes
            finally:
                challenger.stop()
    finally:
        best.stop()
    return kept, log


def main(arguments: Sequence[str] | None = None) -> None:
    """Search on a copy of the repository, then write the kept changes into the repository itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=whole_number(1), default=3)
    parser.add_argument("--seconds", type=positive_number(86400), default=2.0, help="of a turn (default 2)")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="try changes of these models only")
    parser.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY)
    options = parser.parse_args(arguments)
    batching = {
        name: model.config.HasField("dynamic_batching") for name, model in read_repository(options.repository).items()
    }
    batching = {name: batched for name, batched in batching.items() if not options.only or name in options.only}
    tried = candidates(len(os.sched_getaffinity(0)), batching)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(options.repository, copy, ignore=shutil.ignore_patterns("__pycache__"))
        kept, log = search(copy, tried, options.rounds, options.seconds)
    write(options.repository, kept)
    measured = {"machine": machine.facts(), "kept": [str(change) for change in kept], "candidates": log}
    for model in dict.fromkeys(change.model for change in kept):
        path = options.repository / model / "configs" / f"{FLAVOUR}.json"
        path.write_text(json.dumps(measured, indent=1) + "\n")
    store.save("tune", **{key: value for key, value in measured.items() if key != "machine"})
    print("kept: " + ("; ".join(map(str, kept)) or "nothing, the configurations are the best that was tried"))


if __name__ == "__main__":
    main()
