"""`python -m perf.cores`: the rule for threads and instances on 2 to 32 cores, simulated from measured times.

Measures processor time by process on the real server (one client), the rate with 16 clients, how long the Python
processes hold Python's lock, and how threads shorten the regressor; then simulates the pipeline on other numbers of
cores (`perf/cores/pipeline.py` says what is in it and what is not), with eight clients a core. Two cores are simulated
as well, beside what was measured there. ``--measured`` simulates from the last measurement again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from perf import store
from perf.cores.measured import CLIENTS, Measured, measure
from perf.cores.pipeline import Layout, Outcome, simulate
from server.arguments import positive_number, whole_number
from server.backends.onnxruntime.onnx_session import MOST_THREADS

CORES = (2, 4, 8, 16, 32)
CLIENTS_A_CORE = 8
# Name -> processes of models of which there are more than one, and lanes and threads of a network at most.
VARIANTS: dict[str, tuple[dict[str, int], int]] = {
    "the rule": ({}, MOST_THREADS),
    "two of postprocess": ({"postprocess": 2}, MOST_THREADS),
    "two of regressor": ({"regressor": 2}, MOST_THREADS),
    "two of regressor, texture, postprocess": ({"regressor": 2, "texture": 2, "postprocess": 2}, MOST_THREADS),
    "these and two of the gateway": ({"regressor": 2, "texture": 2, "postprocess": 2, "gateway": 2}, MOST_THREADS),
    "as many lanes as cores": ({}, 1024),
}


def variants(measured: Measured, cores: Sequence[int], seconds: float) -> dict[str, dict[str, Outcome]]:
    """Simulate every variant on every number of cores: variant -> cores -> outcome."""
    found: dict[str, dict[str, Outcome]] = {}
    for name, (instances, lanes) in VARIANTS.items():
        for count in cores:
            layout = Layout(count, instances, lanes)
            clients = CLIENTS if count == measured.cores else CLIENTS_A_CORE * count
            found.setdefault(name, {})[str(count)] = simulate(measured, layout, clients, seconds)
    return found


def markdown(measured: Measured, found: dict[str, dict[str, Outcome]]) -> str:
    """Format the tables."""
    parts = ", ".join(f"{name} {value:.1f}" for name, value in sorted(measured.milliseconds.items()))
    locks = ", ".join(f"{name} {share:.0%}" for name, share in measured.locked.items())
    sentence = (
        f"Simulated, not measured: nothing here ran on more than {measured.cores} cores. Fed with processor "
        f"milliseconds a picture ({parts}), the part of it under Python's lock ({locks}) and the regressor's serial "
        f"part ({measured.serial:.0%}); {CLIENTS_A_CORE} clients a core, on {measured.cores} cores {CLIENTS}, where "
        f"{measured.rate:.1f} pictures a second were measured."
    )
    rates = [
        f"| {cores} | " + " | ".join(f"{by[cores].rate:.0f}" for by in found.values()) + " |"
        for cores in next(iter(found.values()))
    ]
    rule = [
        f"| {cores} | {one.rate / int(cores):.1f} | {1000 * one.p50:.0f} | {1000 * one.p99:.0f} "
        f"| {one.tightest} {one.busy[one.tightest]:.0%} | {one.busy['cores']:.0%} |"
        for cores, one in found["the rule"].items()
    ]
    return (
        "\n".join(
            [
                *(sentence, "", "Pictures a second:", ""),
                *("| cores | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|", *rates),
                *("", "By the rule:", ""),
                *(
                    "| cores | a second and core | p50 ms | p99 ms | busiest part | cores busy |",
                    "|---" * 6 + "|",
                    *rule,
                ),
            ]
        )
        + "\n"
    )


def outcomes(values: dict[str, dict[str, dict[str, object]]]) -> dict[str, dict[str, Outcome]]:
    """Read outcomes as `main` saves them."""
    return {name: {cores: Outcome(**one) for cores, one in by.items()} for name, by in values.items()}  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, simulate, print, and write `cores.json`, which `perf.report` reads."""
    parser = argparse.ArgumentParser(prog="python -m perf.cores", description=__doc__)
    parser.add_argument("--seconds", type=positive_number(3600), default=15.0, help="of each measurement (15)")
    parser.add_argument(
        "--simulated", type=positive_number(3600), default=30.0, metavar="S", help="simulated time (30)"
    )
    parser.add_argument("--cores", nargs="+", type=whole_number(1, 256), default=list(CORES), metavar="N")
    parser.add_argument("--measured", action="store_true", help="simulate from the last measurement")
    options = parser.parse_args(arguments)
    last = store.read("cores") if options.measured else None
    if options.measured and last is None:
        parser.error("nothing has been measured yet: leave out --measured.")
    measured = measure(options.seconds) if last is None else Measured(**last["measured"])
    found = variants(measured, options.cores, options.simulated)
    print(markdown(measured, found))
    simulated = {name: {cores: asdict(one) for cores, one in by.items()} for name, by in found.items()}
    if last is None:
        print(f"written: {store.save('cores', measured=measured.as_json(), simulated=simulated)}")
    else:
        store.keep("cores", {**last, "simulated": simulated})


if __name__ == "__main__":
    main()
